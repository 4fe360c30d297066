//! TLS handshakes: bounded in number and time.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::{AlertDescription, Error, InvalidMessage};
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::timeout,
};
use tokio_rustls::server::TlsStream;

use crate::{auth::ExternalLogin, client_certificate::common_name, sync::stopped, tls::ServerTls};

/// Maximum number of simultaneous handshakes. Further clients wait in the backlog of the listener.
const MAX_HANDSHAKES: usize = 100;

/// Accepts TLS clients.
#[derive(Clone)]
pub(crate) struct TlsAcceptor {
    acceptor: tokio_rustls::TlsAcceptor,
    requests_certificates: bool,
    handshakes: Arc<Semaphore>,
}

/// A handshake, counted until it ends.
pub(crate) struct TlsHandshake {
    acceptor: TlsAcceptor,
    _permit: OwnedSemaphorePermit,
}

impl TlsAcceptor {
    pub(crate) fn new(tls: ServerTls) -> Self {
        Self {
            acceptor: tls.config.into(),
            requests_certificates: tls.requests_certificates,
            handshakes: Arc::new(Semaphore::new(MAX_HANDSHAKES)),
        }
    }

    /// Waits until another handshake may begin. Cancel-safe.
    pub(crate) async fn reserve(&self) -> Option<TlsHandshake> {
        // The semaphore is never closed.
        let permit = self.handshakes.clone().acquire_owned().await.ok()?;
        Some(TlsHandshake {
            acceptor: self.clone(),
            _permit: permit,
        })
    }
}

impl TlsHandshake {
    /// Performs the handshake. Returns the stream and, if certificates are requested, the login by
    /// certificate. Logs failures; also ends when the broker stops.
    pub(crate) async fn perform(
        self,
        stream: TcpStream,
        peer: Option<SocketAddr>,
        limit: Duration,
        mut stop: watch::Receiver<bool>,
    ) -> Option<(TlsStream<TcpStream>, Option<ExternalLogin>)> {
        let peer = peer.map(tracing::field::display);
        let accepted = timeout(limit, self.acceptor.acceptor.accept(stream));
        let accepted = tokio::select! {
            accepted = accepted => accepted,
            () = stopped(&mut stop) => return None,
        };
        match accepted {
            Ok(Ok(stream)) => {
                let requested = self.acceptor.requests_certificates;
                let external = requested.then(|| external_login(&stream));
                Some((stream, external))
            }
            Ok(Err(error)) => {
                match explain(&error) {
                    Some(reason) => tracing::warn!(peer, "TLS handshake failed: {reason}"),
                    None => tracing::debug!(peer, %error, "TLS handshake failed"),
                }
                None
            }
            Err(_) => {
                tracing::debug!(peer, "TLS handshake timed out");
                None
            }
        }
    }
}

impl fmt::Debug for TlsAcceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsAcceptor").finish_non_exhaustive()
    }
}

impl fmt::Debug for TlsHandshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsHandshake").finish_non_exhaustive()
    }
}

fn external_login(stream: &TlsStream<TcpStream>) -> ExternalLogin {
    let (_, session) = stream.get_ref();
    let certificate = session.peer_certificates().and_then(|chain| chain.first());
    ExternalLogin {
        common_name: certificate.and_then(|der| common_name(der)),
    }
}

/// Explains a failed handshake, `None` if the client only disconnected.
fn explain(error: &io::Error) -> Option<String> {
    let cause = error.get_ref()?.downcast_ref::<Error>()?;
    Some(match cause {
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "a client speaks no TLS on the TLS port; use amqps:// in its URI, or the port without \
             TLS"
            .to_owned()
        }
        Error::NoCertificatesPresented => {
            "the client presented no certificate, which this broker requires".to_owned()
        }
        Error::InvalidCertificate(reason) => format!(
            "the client's certificate is refused ({reason:?}); is it valid, and signed by an \
             authority in cacertfile?"
        ),
        Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::UnsupportedCertificate,
        ) => format!(
            "the client refuses the broker's certificate ({cause}); does it trust its authority, \
             and does the certificate name the host?"
        ),
        other => other.to_string(),
    })
}
