//! Certificates of clients: verification, and the user name in them.

use std::{fmt, sync::Arc};

use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, UnixTime},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use crate::x509_v1::{Certificate, Reader, SEQUENCE, verify_handshake};

/// DER tags, X.690.
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0C;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;

/// `id-at-commonName`, 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// Returns the common name of a certificate's subject. Several are joined by commas, as in
/// RabbitMQ.
pub(crate) fn common_name(der: &[u8]) -> Option<String> {
    common_name_of(Certificate::parse(der)?.subject)
}

/// Returns the common name in the contents of a distinguished name.
fn common_name_of(subject: &[u8]) -> Option<String> {
    let mut subject = Reader(subject);
    let mut names = Vec::new();
    while let Some(relative_name) = subject.contents(SET) {
        let mut attributes = Reader(relative_name);
        while let Some(attribute) = attributes.contents(SEQUENCE) {
            let mut attribute = Reader(attribute);
            if attribute.contents(OBJECT_IDENTIFIER)? == COMMON_NAME {
                names.push(text(&mut attribute)?);
            }
        }
    }
    (!names.is_empty()).then(|| names.join(","))
}

/// Reads a string of a type that is a subset of UTF-8.
fn text<'a>(value: &mut Reader<'a>) -> Option<&'a str> {
    let (tag, _, contents) = value.any_element()?;
    match tag {
        UTF8_STRING | PRINTABLE_STRING | IA5_STRING => std::str::from_utf8(contents).ok(),
        _ => None,
    }
}

/// Verifies clients like webpki, and accepts certificates of version 1 too, which
/// `openssl x509 -req` writes, and those that are in `cacertfile` themselves.
pub(crate) struct ClientVerifier {
    webpki: Arc<dyn ClientCertVerifier>,
    authorities: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ClientVerifier {
    /// Returns a verifier of certificates signed by `authorities`. If `required`, clients without a
    /// certificate are refused.
    pub(crate) fn new(
        authorities: Vec<CertificateDer<'static>>,
        required: bool,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(authorities.iter().cloned());
        let builder =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let builder = match required {
            true => builder,
            false => builder.allow_unauthenticated(),
        };
        Ok(Self {
            webpki: builder.build().map_err(|error| error.to_string())?,
            authorities,
            provider,
        })
    }

    /// Verifies a signature of the handshake by a certificate of version 1, `None` for others.
    fn verify_signature_of_version_1(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Option<Result<HandshakeSignatureValid, Error>> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_handshake(certificate, message, signature, algorithms)
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.webpki.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.webpki.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let pinned = self.authorities.contains(end_entity);
        if pinned && let Some(certificate) = Certificate::parse(end_entity) {
            certificate.verify_dates(now)?;
        } else if let Some(certificate) = Certificate::of_version_1(end_entity) {
            let algorithms = &self.provider.signature_verification_algorithms;
            certificate.verify_issuer(&self.authorities, algorithms, now)?;
        } else {
            return self
                .webpki
                .verify_client_cert(end_entity, intermediates, now);
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature_of_version_1(message, certificate, signature)
            .unwrap_or_else(|| {
                self.webpki
                    .verify_tls12_signature(message, certificate, signature)
            })
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature_of_version_1(message, certificate, signature)
            .unwrap_or_else(|| {
                self.webpki
                    .verify_tls13_signature(message, certificate, signature)
            })
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientVerifier").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    fn certificate(name: &str) -> CertificateDer<'static> {
        let folder =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../nameko-amqp/tests/it/certificates");
        CertificateDer::from_pem_file(folder.join(name)).unwrap()
    }

    /// Encodes a DER element of less than 128 bytes.
    fn element(tag: u8, contents: &[u8]) -> Vec<u8> {
        [&[tag, contents.len() as u8], contents].concat()
    }

    /// Encodes a relative name of one attribute, with an object identifier below 2.5.4.
    fn attribute(id: u8, tag: u8, value: &[u8]) -> Vec<u8> {
        let id = element(OBJECT_IDENTIFIER, &[0x55, 0x04, id]);
        element(SET, &element(SEQUENCE, &[id, element(tag, value)].concat()))
    }

    #[test]
    fn the_common_name_is_read_from_certificates_of_any_version() {
        assert_eq!(
            common_name(&certificate("client.pem")),
            Some("guest".to_owned())
        );
        assert_eq!(
            common_name(&certificate("v1.pem")),
            Some("localhost".to_owned())
        );
        assert_eq!(common_name(b"no certificate"), None);
    }

    #[test]
    fn several_common_names_are_joined_and_other_attributes_ignored() {
        let organization = attribute(10, UTF8_STRING, b"Nameko");
        let first = attribute(3, UTF8_STRING, "Zo\u{eb}".as_bytes());
        let second = attribute(3, PRINTABLE_STRING, b"b");
        assert_eq!(
            common_name_of(&[&*organization, &*first, &*second].concat()),
            Some("Zo\u{eb},b".to_owned())
        );
        assert_eq!(common_name_of(&organization), None);
        // Neither bytes that are not UTF-8 nor UTF-16 name a user.
        for (tag, value) in [(UTF8_STRING, &b"\xff"[..]), (0x1E, b"\0g")] {
            assert_eq!(common_name_of(&attribute(3, tag, value)), None);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_subjects_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = common_name_of(&bytes);
        }

        #[test]
        fn damaged_certificates_never_panic(at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
            let mut der = certificate("client.pem").to_vec();
            let at = at.index(der.len());
            der[at] = byte;
            let _ = common_name(&der);
            let _ = common_name(&der[..cut.index(der.len())]);
        }
    }
}
