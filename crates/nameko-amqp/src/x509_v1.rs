//! Certificates of X.509 version 1, which rustls does not read.
//!
//! `openssl x509 -req` without an extension file writes them, so private authorities often have.
//! They have no extensions, thus neither host names nor constraints. The fields that a verification
//! needs are parsed by RFC 5280, section 4.1.
//!
//! Also a module of `nameko-broker`, through a link.

use std::time::Duration;

use rustls::{
    CertificateError, DigitallySignedStruct, Error,
    client::danger::HandshakeSignatureValid,
    crypto::WebPkiSupportedAlgorithms,
    pki_types::{CertificateDer, UnixTime},
};

/// DER tags, X.690.
pub(crate) const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0] EXPLICIT`, the version, which version 1 leaves out.
const VERSION: u8 = 0xA0;

/// Verifies a signature of the handshake by a certificate of version 1, `None` for others.
pub(crate) fn verify_handshake(
    certificate: &CertificateDer<'_>,
    message: &[u8],
    signature: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Option<Result<HandshakeSignatureValid, Error>> {
    let certificate = Certificate::of_version_1(certificate)?;
    Some(certificate.verify_handshake(message, signature, algorithms))
}

/// A certificate, borrowed from its encoding.
pub(crate) struct Certificate<'a> {
    version: u8,
    /// The signed part, with its tag.
    signed: &'a [u8],
    /// Contents of the algorithm identifier of the signature.
    signature_algorithm: &'a [u8],
    signature: &'a [u8],
    issuer: &'a [u8],
    /// The contents of the subject's distinguished name.
    pub(crate) subject: &'a [u8],
    not_before: UnixTime,
    not_after: UnixTime,
    /// The public key with its algorithm, with their tag.
    pub(crate) public_key_info: &'a [u8],
    key_algorithm: &'a [u8],
    key: &'a [u8],
}

impl<'a> Certificate<'a> {
    /// Parses a certificate of any version, `None` if it is malformed.
    pub(crate) fn parse(der: &'a [u8]) -> Option<Self> {
        let mut outer = Reader(Reader(der).contents(SEQUENCE)?);
        let signed = outer.element(SEQUENCE)?.0;
        let signature_algorithm = outer.contents(SEQUENCE)?;
        let signature = bits(outer.contents(BIT_STRING)?)?;
        let mut fields = Reader(Reader(signed).contents(SEQUENCE)?);
        let version = match fields.0.first() {
            Some(&VERSION) => {
                *Reader(fields.contents(VERSION)?)
                    .contents(INTEGER)?
                    .last()?
                    + 1
            }
            _ => 1,
        };
        fields.contents(INTEGER)?;
        fields.contents(SEQUENCE)?;
        let issuer = fields.contents(SEQUENCE)?;
        let mut validity = Reader(fields.contents(SEQUENCE)?);
        let (not_before, not_after) = (validity.time()?, validity.time()?);
        let subject = fields.contents(SEQUENCE)?;
        let (public_key_info, contents) = fields.element(SEQUENCE)?;
        let mut key = Reader(contents);
        Some(Self {
            version,
            signed,
            signature_algorithm,
            signature,
            issuer,
            subject,
            not_before,
            not_after,
            public_key_info,
            key_algorithm: key.contents(SEQUENCE)?,
            key: bits(key.contents(BIT_STRING)?)?,
        })
    }

    /// Parses a certificate of version 1, `None` for others.
    pub(crate) fn of_version_1(der: &'a [u8]) -> Option<Self> {
        Self::parse(der).filter(|certificate| certificate.version == 1)
    }

    /// Verifies that the certificate is valid now.
    pub(crate) fn verify_dates(&self, now: UnixTime) -> Result<(), Error> {
        if now < self.not_before {
            return Err(CertificateError::NotValidYet.into());
        }
        if now > self.not_after {
            return Err(CertificateError::Expired.into());
        }
        Ok(())
    }

    /// Verifies that one of `authorities` has signed the certificate, and that it is valid now.
    pub(crate) fn verify_issuer(
        &self,
        authorities: &[CertificateDer<'_>],
        algorithms: &WebPkiSupportedAlgorithms,
        now: UnixTime,
    ) -> Result<(), Error> {
        self.verify_dates(now)?;
        let issuers = authorities
            .iter()
            .filter_map(|authority| Certificate::parse(authority))
            .filter(|authority| authority.subject == self.issuer);
        let mut known = false;
        for issuer in issuers {
            known = true;
            let signed = algorithms.all.iter().any(|algorithm| {
                algorithm.public_key_alg_id().as_ref() == issuer.key_algorithm
                    && algorithm.signature_alg_id().as_ref() == self.signature_algorithm
                    && algorithm
                        .verify_signature(issuer.key, self.signed, self.signature)
                        .is_ok()
            });
            if signed && now <= issuer.not_after {
                return Ok(());
            }
        }
        Err(match known {
            true => CertificateError::BadSignature.into(),
            false => CertificateError::UnknownIssuer.into(),
        })
    }

    /// Verifies a signature of the handshake by the key of the certificate.
    fn verify_handshake(
        &self,
        message: &[u8],
        signature: &DigitallySignedStruct,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = algorithms
            .mapping
            .iter()
            .find(|(supported, _)| *supported == signature.scheme)
            .map_or(&[][..], |(_, algorithms)| algorithms);
        let verified = known.iter().any(|algorithm| {
            algorithm.public_key_alg_id().as_ref() == self.key_algorithm
                && algorithm
                    .verify_signature(self.key, message, signature.signature())
                    .is_ok()
        });
        match verified {
            true => Ok(HandshakeSignatureValid::assertion()),
            false => Err(CertificateError::BadSignature.into()),
        }
    }
}

/// Returns the bytes of a bit string, whose first byte counts the unused bits.
fn bits(contents: &[u8]) -> Option<&[u8]> {
    contents.strip_prefix(&[0])
}

/// Reads DER elements one after the other.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    /// Reads an element of any tag: the tag, the whole, and its contents.
    pub(crate) fn any_element(&mut self) -> Option<(u8, &'a [u8], &'a [u8])> {
        let input = self.0;
        let (&tag, rest) = input.split_first()?;
        let (&length, rest) = rest.split_first()?;
        let (length, rest) = match length {
            0..=0x7F => (usize::from(length), rest),
            // The number of bytes of the length, of which four suffice.
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7F))?;
                let length = bytes
                    .iter()
                    .fold(0, |length: usize, byte| length << 8 | usize::from(*byte));
                (length, rest)
            }
            _ => return None,
        };
        let (contents, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        let whole = input.get(..input.len() - rest.len())?;
        Some((tag, whole, contents))
    }

    /// Reads an element with this tag: the whole, and its contents.
    fn element(&mut self, tag: u8) -> Option<(&'a [u8], &'a [u8])> {
        let (found, whole, contents) = self.any_element()?;
        (found == tag).then_some((whole, contents))
    }

    /// Reads an element with this tag: its contents.
    pub(crate) fn contents(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.element(tag).map(|(_, contents)| contents)
    }

    /// Reads a `Time`, which ends with a Z.
    fn time(&mut self) -> Option<UnixTime> {
        let tag = *self.0.first()?;
        let text = std::str::from_utf8(self.contents(tag)?).ok()?;
        let digits = text.strip_suffix('Z')?;
        let (year, rest) = match tag {
            UTC_TIME => {
                let (year, rest) = digits.split_at_checked(2)?;
                let year: u64 = year.parse().ok()?;
                // RFC 5280, section 4.1.2.5.1
                (year + if year < 50 { 2000 } else { 1900 }, rest)
            }
            GENERALIZED_TIME => {
                let (year, rest) = digits.split_at_checked(4)?;
                (year.parse().ok()?, rest)
            }
            _ => return None,
        };
        if rest.len() != 10 || !rest.is_ascii() {
            return None;
        }
        let number = |at: usize| rest.get(at..at + 2)?.parse::<u64>().ok();
        let days = days_since_1970(year, number(0)?, number(2)?)?;
        let seconds = (days * 24 + number(4)?) * 3600 + number(6)? * 60 + number(8)?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

/// Returns the number of days from 1970-01-01 to a date of the Gregorian calendar, 0 for an earlier
/// one.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || year > 9999 {
        return None;
    }
    // Counted from March, so that a leap day is the last of its year.
    let (year, month) = match month {
        1 | 2 => (year.checked_sub(1)?, month + 9),
        month => (year, month - 3),
    };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 306 + 5) / 10 + day - 1;
    // 1970-01-01 in this count.
    Some(days.saturating_sub(719_468))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dates_are_days_since_1970() {
        for (date, days) in [
            ((1970, 1, 1), 0),
            ((2000, 2, 29), 11_016),
            ((2000, 3, 1), 11_017),
            ((2026, 11, 30), 20_787),
            ((1950, 1, 1), 0),
        ] {
            assert_eq!(days_since_1970(date.0, date.1, date.2), Some(days));
        }
        assert_eq!(days_since_1970(2026, 13, 1), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Certificate::parse(&bytes);
        }
    }
}
