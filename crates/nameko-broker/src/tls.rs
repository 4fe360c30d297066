//! Settings of the TLS port, and the rustls configuration made of them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    CertificateError, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, UnixTime},
    sign::SingleCertAndKey,
};

use crate::{
    certificate_files::{certificates, identity},
    client_certificate::ClientVerifier,
    x509_v1::Certificate,
};

/// TLS of a [`Broker`](crate::Broker): a port of its own, with a certificate. All files are PEM.
///
/// Without [`request_client_certificates`](Tls::request_client_certificates) or
/// [`require_client_certificates`](Tls::require_client_certificates), clients present none.
#[derive(Clone, Debug)]
pub struct Tls {
    pub(crate) port: u16,
    certfile: PathBuf,
    keyfile: PathBuf,
    client_certificates: Option<ClientCertificates>,
}

#[derive(Clone, Debug)]
struct ClientCertificates {
    cacertfile: PathBuf,
    required: bool,
}

impl Tls {
    /// Returns TLS on a free port. `certfile` contains the certificate, followed by those of
    /// intermediate authorities; `keyfile` contains its private key, and may be the same file.
    #[must_use]
    pub fn new(certfile: impl Into<PathBuf>, keyfile: impl Into<PathBuf>) -> Self {
        Self {
            port: 0,
            certfile: certfile.into(),
            keyfile: keyfile.into(),
            client_certificates: None,
        }
    }

    /// Sets the port; 0, the default, selects a free one. 5671 is usual.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Requests certificates from clients, and refuses those not signed by an authority in
    /// `cacertfile`. Clients without a certificate log in with a password.
    ///
    /// The mechanism EXTERNAL logs in the user that is the common name of the certificate, without
    /// a password, as RabbitMQ does with `ssl_cert_login_from = common_name`.
    #[must_use]
    pub fn request_client_certificates(mut self, cacertfile: impl Into<PathBuf>) -> Self {
        self.client_certificates = Some(ClientCertificates {
            cacertfile: cacertfile.into(),
            required: false,
        });
        self
    }

    /// The same, and refuses clients without a certificate, as RabbitMQ does with
    /// `ssl_options.fail_if_no_peer_cert = true`.
    #[must_use]
    pub fn require_client_certificates(mut self, cacertfile: impl Into<PathBuf>) -> Self {
        self.client_certificates = Some(ClientCertificates {
            cacertfile: cacertfile.into(),
            required: true,
        });
        self
    }
}

/// Configuration of the TLS port.
#[derive(Debug)]
pub(crate) struct ServerTls {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) requests_certificates: bool,
}

/// Reads the files and returns the configuration of the TLS port.
pub(crate) async fn server_config(tls: Tls) -> Result<ServerTls, String> {
    // Reads files, so on a thread for blocking calls.
    tokio::task::spawn_blocking(move || read_files(&tls))
        .await
        .map_err(|error| error.to_string())?
}

fn read_files(tls: &Tls) -> Result<ServerTls, String> {
    let keyfile = (tls.keyfile != tls.certfile).then_some(&*tls.keyfile);
    let identity = identity(&tls.certfile, keyfile)?;
    if let Some(certificate) = identity.cert.first() {
        check_dates("certfile", &tls.certfile, certificate)?;
    }
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match &tls.client_certificates {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let file = &clients.cacertfile;
            let authorities = certificates("cacertfile", file)?;
            for authority in &authorities {
                check_dates("cacertfile", file, authority)?;
            }
            let verifier = ClientVerifier::new(authorities, clients.required, provider)
                .map_err(|error| cannot_use("cacertfile", file, &error))?;
            builder.with_client_cert_verifier(Arc::new(verifier))
        }
    };
    // Not `with_single_cert`, which takes no certificate of version 1.
    let config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
    Ok(ServerTls {
        config: Arc::new(config),
        requests_certificates: tls.client_certificates.is_some(),
    })
}

/// Checks that a certificate can be parsed and is valid now.
fn check_dates(what: &str, file: &Path, der: &CertificateDer<'_>) -> Result<(), String> {
    let Some(certificate) = Certificate::parse(der) else {
        return Err(cannot_use(what, file, &"it is no X.509 certificate"));
    };
    let name = file.display();
    match certificate.verify_dates(UnixTime::now()) {
        Ok(()) => Ok(()),
        Err(rustls::Error::InvalidCertificate(CertificateError::Expired)) => Err(format!(
            "the certificate in {what} {name} has expired; renew it, and check the clock of this \
             machine"
        )),
        Err(_) => Err(format!(
            "the certificate in {what} {name} is not valid yet; check the clock of this machine"
        )),
    }
}

fn cannot_use(what: &str, file: &Path, reason: &dyn std::fmt::Display) -> String {
    format!(
        "the certificate in {what} {} cannot be used: {reason}",
        file.display()
    )
}
