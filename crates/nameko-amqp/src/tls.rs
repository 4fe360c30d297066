//! TLS: verification of the server, certificate of the client.

use std::{io, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    sign::SingleCertAndKey,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    certificate_files::{certificates, identity},
    error::Error,
    options::{Tls, Verify},
    peer::Peer,
    socket::Socket,
    uri::Uri,
    x509_v1::{Certificate, verify_handshake},
};

/// Performs the TLS handshake.
pub(crate) async fn connect(
    stream: Socket,
    tls: Tls,
    uri: &Uri,
    peer: &Peer,
) -> Result<TlsStream<Socket>, Error> {
    let failed = |reason: String| Error::Tls {
        peer: peer.clone(),
        reason,
    };
    let host = tls.server_name.as_ref().unwrap_or(&uri.host);
    let name = ServerName::try_from(host.clone()).map_err(|_| {
        failed(format!(
            "`{host}` is not a valid host name for a certificate"
        ))
    })?;
    // Reads files, so on a thread for blocking calls.
    let config = tokio::task::spawn_blocking(move || client_config(&tls))
        .await
        .map_err(|error| failed(error.to_string()))?
        .map_err(failed)?;
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(|error| failed(explain(&error)))
}

/// Explains an error of the AMQP handshake to a client without a certificate. A TLS 1.3 server that
/// requires one lets the client complete the TLS handshake and then closes the connection.
pub(crate) fn explain_missing_certificate(error: Error) -> Error {
    match error {
        Error::Lost { peer, reason } => Error::Tls {
            peer,
            reason: format!(
                "connection closed by the server after the TLS handshake: {reason}; does it require a client certificate (certfile, keyfile)?"
            ),
        },
        other => other,
    }
}

fn explain(error: &io::Error) -> String {
    let cause = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidMessage(_)) => {
            format!("{error}; is that a TLS port (5671 is usual)?")
        }
        Some(rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => {
            format!("{error}; is the host in the AMQP URI the right one?")
        }
        Some(rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        )) => "the server's certificate has expired; renew it, and check the clock of this machine"
            .to_owned(),
        Some(rustls::Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        )) => {
            "the server's certificate is not valid yet; check the clock of this machine".to_owned()
        }
        Some(rustls::Error::General(reason)) => reason.clone(),
        Some(rustls::Error::InvalidCertificate(_)) => {
            format!(
                "{error}; does ca_certs name the authority that signed the server's certificate?"
            )
        }
        Some(rustls::Error::AlertReceived(_)) => {
            format!(
                "{error}; does the server require a client certificate (certfile, keyfile), or another one?"
            )
        }
        _ if error.kind() == io::ErrorKind::UnexpectedEof => {
            format!("{error}; is that a TLS port (5671 is usual)?")
        }
        _ => error.to_string(),
    }
}

fn client_config(tls: &Tls) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let verifier = verifier(tls, &provider)?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let Some(certfile) = &tls.certfile else {
        if let Some(keyfile) = &tls.keyfile {
            return Err(format!(
                "keyfile {} is given without a certfile",
                keyfile.display()
            ));
        }
        return Ok(config.with_no_client_auth());
    };
    let identity = identity(certfile, tls.keyfile.as_deref())?;
    // Not `with_client_auth_cert`, which takes no certificate of version 1.
    Ok(config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity))))
}

fn verifier(
    tls: &Tls,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, String> {
    if tls.verify == Verify::None {
        return Ok(Arc::new(Verifier {
            trust: Trust::Any,
            provider: Arc::clone(provider),
        }));
    }
    let trusted = match &tls.ca_certs {
        Some(file) => certificates("ca_certs", file)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(trusted.iter().cloned());
    if roots.is_empty() && tls.ca_certs.is_none() {
        return Err("this system has no certificate authorities; set ca_certs".to_owned());
    }
    let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| format!("the certificates in ca_certs cannot be used: {error}"))?;
    Ok(Arc::new(Verifier {
        trust: Trust::Chain {
            chain,
            // The system's store contains authorities only.
            pinned: if tls.ca_certs.is_some() {
                trusted
            } else {
                Vec::new()
            },
            check_hostname: tls.check_hostname,
        },
        provider: Arc::clone(provider),
    }))
}

/// A verifier with the options of Python's `ssl`: the chain and the host name are optional.
///
/// The server always has to prove that it holds the key of its certificate.
#[derive(Debug)]
struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
enum Trust {
    /// Any certificate.
    Any,
    /// A certificate signed by a trusted authority.
    Chain {
        chain: Arc<WebPkiServerVerifier>,
        /// Certificates in `ca_certs`, which are trusted by themselves: OpenSSL accepts a
        /// self-signed certificate that is its own authority, webpki does not.
        pinned: Vec<CertificateDer<'static>>,
        check_hostname: bool,
    },
}

impl Verifier {
    /// Verifies a server certificate of version 1: its authority has to be given.
    fn verify_version_1(
        &self,
        certificate: &Certificate<'_>,
        pinned: &[CertificateDer<'_>],
        check_hostname: bool,
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let refused = |reason: &str| {
            rustls::Error::General(format!(
                "the server's certificate is X.509 version 1, {reason}; make one with extensions: \
                 openssl x509 -req -extfile FILE, with a line \
                 subjectAltName=DNS:HOST in FILE"
            ))
        };
        if check_hostname {
            return Err(refused("which has no host names for check_hostname"));
        }
        if pinned.is_empty() {
            return Err(refused(
                "which is accepted if ca_certs names its authority, or without verification",
            ));
        }
        certificate.verify_issuer(
            pinned,
            &self.provider.signature_verification_algorithms,
            now,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    /// Verifies a signature of the handshake by a certificate of version 1, `None` for others.
    fn verify_signature_of_version_1(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Option<Result<HandshakeSignatureValid, rustls::Error>> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_handshake(certificate, message, signature, algorithms)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Trust::Chain {
            chain,
            pinned,
            check_hostname,
        } = &self.trust
        else {
            return Ok(ServerCertVerified::assertion());
        };
        if let Some(certificate) = Certificate::of_version_1(end_entity)
            && (*check_hostname || pinned.iter().all(|pinned| pinned != end_entity))
        {
            return self.verify_version_1(&certificate, pinned, *check_hostname, now);
        }
        if *check_hostname {
            return chain.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            );
        }
        if pinned.iter().any(|pinned| pinned == end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is checked last, after a valid chain.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if let Some(verified) = self.verify_signature_of_version_1(message, certificate, signature)
        {
            return verified;
        }
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // TLS 1.3 has no signatures by PKCS #1 and SHA-1: rustls offers and accepts none there.
        if let Some(verified) = self.verify_signature_of_version_1(message, certificate, signature)
        {
            return verified;
        }
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    fn file(name: &str) -> Option<PathBuf> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/certificates");
        Some(folder.join(name))
    }

    #[test]
    fn client_certificates_of_version_1_are_used_with_their_key_only() {
        let with_key = |certificate: &str, key: &str| Tls {
            verify: Verify::None,
            certfile: file(certificate),
            keyfile: file(key),
            ..Tls::default()
        };
        assert!(client_config(&with_key("v1.pem", "v1.key")).is_ok());
        assert!(client_config(&with_key("client.pem", "client.key")).is_ok());
        for certificate in ["v1.pem", "client.pem"] {
            let error = client_config(&with_key(certificate, "server.key")).unwrap_err();
            assert!(error.contains("does not belong to"), "{error}");
        }
    }
}
