//! Certificates and private keys from PEM files.
//!
//! Also a module of `nameko-broker`, through a link: both ends of a connection read the same files.

use std::path::Path;

use rustls::{
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    sign::CertifiedKey,
};

use crate::x509_v1::Certificate;

/// Reads the certificates in a file, at least one. `what` is the name of the option.
pub(crate) fn certificates(
    what: &str,
    file: &Path,
) -> Result<Vec<CertificateDer<'static>>, String> {
    let bad = |error: &dyn std::fmt::Display| {
        format!(
            "cannot read certificates from {what} {}: {error}",
            file.display()
        )
    };
    let certificates: Vec<_> = CertificateDer::pem_file_iter(file)
        .map_err(|error| bad(&error))?
        .collect::<Result<_, _>>()
        .map_err(|error| bad(&error))?;
    if certificates.is_empty() {
        return Err(bad(&"the file contains none"));
    }
    Ok(certificates)
}

/// Reads a certificate chain and its private key, which is in `certfile` if there is no `keyfile`.
pub(crate) fn identity(certfile: &Path, keyfile: Option<&Path>) -> Result<CertifiedKey, String> {
    let chain = certificates("certfile", certfile)?;
    let (what, keyfile) = match keyfile {
        Some(keyfile) => ("keyfile", keyfile),
        None => ("certfile", certfile),
    };
    let key = private_key(what, keyfile)?;
    let signing_key = ring::sign::any_supported_type(&key).map_err(|error| {
        format!(
            "cannot use the private key in {what} {}: {error}",
            keyfile.display()
        )
    })?;
    let identity = CertifiedKey::new(chain, signing_key);
    if !is_key_of(&identity) {
        return Err(format!(
            "the private key in {what} {} does not belong to the certificate in certfile {}, whose \
             first certificate has to be the one of the key",
            keyfile.display(),
            certfile.display()
        ));
    }
    Ok(identity)
}

fn private_key(what: &str, file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let name = file.display();
    PrivateKeyDer::from_pem_file(file).map_err(|error| match error {
        pem::Error::NoItemsFound if is_encrypted(file) => format!(
            "the private key in {what} {name} is encrypted; decrypt it: openssl pkey -in {name} \
             -out FILE"
        ),
        error => format!("cannot read a private key from {what} {name}: {error}"),
    })
}

/// Returns whether a file contains an encrypted private key, in which no key is found.
fn is_encrypted(file: &Path) -> bool {
    std::fs::read_to_string(file).is_ok_and(|text| text.contains("ENCRYPTED"))
}

/// Returns whether the private key belongs to the certificate, as far as that can be known.
fn is_key_of(identity: &CertifiedKey) -> bool {
    let certificate = identity
        .cert
        .first()
        .and_then(|der| Certificate::parse(der));
    match (certificate, identity.key.public_key()) {
        (Some(certificate), Some(key)) => certificate.public_key_info == key.as_ref(),
        _ => true,
    }
}
