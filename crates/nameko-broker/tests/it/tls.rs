use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use amq_protocol::{
    frame::AMQPFrame,
    protocol::{AMQPClass, basic},
};
use nameko_broker::{Broker, BrokerError, Tls};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    peer::{HEADER, Peer},
    support::*,
};

const EXTERNAL_REFUSED: &str = "ACCESS_REFUSED - Login was refused using authentication mechanism EXTERNAL. For details see the broker logfile.";

/// Returns the path of a certificate or key of `nameko-amqp`'s tests.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../nameko-amqp/tests/it/certificates")
        .join(name)
}

fn server() -> Tls {
    Tls::new(file("server.pem"), file("server.key"))
}

async fn start(tls: Tls) -> Broker {
    Broker::builder()
        .user("guest", "guest")
        .tls(tls)
        .start("127.0.0.1:0")
        .await
        .unwrap()
}

/// Connects over TLS, with the certificate of this name or none.
async fn connect(broker: &Broker, certificate: Option<&str>) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(file("ca.pem")).unwrap();
    roots.add(authority).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match certificate {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let key = PrivateKeyDer::from_pem_file(file(&format!("{name}.key"))).unwrap();
            let certificate = CertificateDer::from_pem_file(file(&format!("{name}.pem"))).unwrap();
            let key = ring::sign::any_supported_type(&key).unwrap();
            let identity = SingleCertAndKey::from(CertifiedKey::new(vec![certificate], key));
            builder.with_client_cert_resolver(Arc::new(identity))
        }
    };
    let stream = TcpStream::connect(broker.tls_addr().unwrap()).await?;
    let name = ServerName::try_from("localhost").unwrap();
    with_timeout(TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}

/// Logs in by EXTERNAL; the error is code and text, `None` if the broker only disconnects.
async fn log_in_by_certificate(
    broker: &Broker,
    certificate: Option<&str>,
) -> Result<(), Option<(u16, String)>> {
    let Ok(stream) = connect(broker, certificate).await else {
        return Err(None);
    };
    let mut peer = Peer::new(stream);
    peer.log_in("EXTERNAL", "").await;
    match peer.frame().await {
        Some(AMQPFrame::Method(
            0,
            AMQPClass::Connection(amq_protocol::protocol::connection::AMQPMethod::Close(close)),
        )) => Err(Some((close.reply_code, close.reply_text.to_string()))),
        Some(_) => Ok(()),
        None => Err(None),
    }
}

/// Returns whether the broker refuses a client's certificate, or that it has none. In TLS 1.3, the
/// client completes its handshake first.
async fn is_refused(broker: &Broker, certificate: Option<&str>) -> bool {
    match connect(broker, certificate).await {
        Err(_) => true,
        Ok(mut stream) => {
            // Fails if the broker disconnected already.
            let _ = stream.write_all(HEADER).await;
            !matches!(with_timeout(stream.read(&mut [0])).await, Ok(1..))
        }
    }
}

/// Collects the logs of this thread.
#[derive(Clone, Default)]
struct Logs(Arc<Mutex<Vec<u8>>>);

impl io::Write for Logs {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        io::Write::write(&mut *self.0.lock().unwrap(), line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Logs {
    /// Collects logs until the guards are dropped.
    fn collect(&self) -> (tracing::subscriber::DefaultGuard, tracing::Dispatch) {
        let logs = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || logs.clone())
            .with_ansi(false)
            .finish();
        // With one subscriber in the process, `tracing` asks that of the thread that reaches a log
        // statement first, in another test none, and caches the answer. A second one prevents it.
        let second = tracing::Dispatch::new(tracing_subscriber::registry());
        (tracing::subscriber::set_default(subscriber), second)
    }

    async fn wait_for(&self, text: &str) -> String {
        let logged = || String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned();
        wait_until(text, || async { logged().contains(text) }).await;
        logged()
    }
}

#[tokio::test]
async fn clients_with_and_without_tls_share_a_broker() {
    let broker = start(server()).await;
    let uri = broker.tls_uri().unwrap();
    let addr = broker.tls_addr().unwrap();
    assert_eq!(uri, format!("amqps://guest:guest@{addr}"));

    let env = TestEnv::new(broker.uri());
    let connection = env.connect().await;
    let channel = confirm_channel(&connection).await;
    channel.declare("q").await;
    let mut peer = Peer::new(connect(&broker, None).await.unwrap());
    assert_eq!(
        peer.log_in("PLAIN", "\0guest\0guest").await,
        "PLAIN AMQPLAIN"
    );
    assert!(peer.enter_vhost(0).await);
    peer.open_channel().await;
    // Larger than the buffers of TLS and of the socket.
    let body = "0123456789".repeat(500_000);
    channel.send("", "q", &body).await;
    let consume = basic::Consume {
        queue: "q".into(),
        no_ack: true,
        ..basic::Consume::default()
    };
    let consume = basic::AMQPMethod::Consume(consume);
    peer.method(1, AMQPClass::Basic(consume)).await;
    let mut received = Vec::new();
    while received.len() < body.len() {
        if let AMQPFrame::Body(1, part) = peer.frame().await.unwrap() {
            received.extend(part);
        }
    }
    assert!(received == body.as_bytes(), "the body was changed");
    // Small messages arrive without further writes.
    for n in 0..50 {
        channel.send("", "q", &n.to_string()).await;
        loop {
            if let AMQPFrame::Body(1, part) = peer.frame().await.unwrap() {
                assert_eq!(part, n.to_string().as_bytes());
                break;
            }
        }
    }
    broker.stop().await;
}

#[tokio::test]
async fn clients_log_in_by_the_common_name_of_their_certificate() {
    let broker = start(server().request_client_certificates(file("ca.pem"))).await;
    let mut peer = Peer::new(connect(&broker, Some("client")).await.unwrap());
    assert_eq!(peer.log_in("EXTERNAL", "").await, "PLAIN AMQPLAIN EXTERNAL");
    assert!(peer.enter_vhost(0).await);
    // Without a certificate, with a password only.
    let mut peer = Peer::new(connect(&broker, None).await.unwrap());
    peer.log_in("PLAIN", "\0guest\0guest").await;
    assert!(peer.enter_vhost(0).await);
    // No certificate, and one with a common name that is no user.
    for certificate in [None, Some("server")] {
        assert_eq!(
            log_in_by_certificate(&broker, certificate).await,
            Err(Some((403, EXTERNAL_REFUSED.to_owned()))),
            "{certificate:?}"
        );
    }
    // Signed by another authority.
    for certificate in ["self", "v1"] {
        assert!(
            is_refused(&broker, Some(certificate)).await,
            "{certificate}"
        );
    }
    broker.stop().await;
}

#[tokio::test]
async fn client_certificates_can_be_required() {
    let broker = start(server().require_client_certificates(file("ca.pem"))).await;
    assert!(is_refused(&broker, None).await);
    assert!(is_refused(&broker, Some("self")).await);
    assert_eq!(log_in_by_certificate(&broker, Some("client")).await, Ok(()));
    broker.stop().await;
}

#[tokio::test]
async fn client_certificates_of_version_1_and_pinned_ones_are_verified() {
    for (authority, accepted) in [("v1-ca.pem", "v1"), ("self.pem", "self"), ("v1.pem", "v1")] {
        let broker = Broker::builder()
            .user("localhost", "secret")
            .tls(server().require_client_certificates(file(authority)))
            .start("127.0.0.1:0")
            .await
            .unwrap();
        assert_eq!(
            log_in_by_certificate(&broker, Some(accepted)).await,
            Ok(()),
            "{authority}"
        );
        assert!(is_refused(&broker, Some("client")).await, "{authority}");
        broker.stop().await;
    }
}

#[tokio::test]
async fn external_is_unknown_without_client_certificates() {
    let unknown = Some((
        503,
        "COMMAND_INVALID - unknown authentication mechanism 'EXTERNAL'".to_owned(),
    ));
    let broker = start(server()).await;
    let without_tls = TcpStream::connect(broker.addr()).await.unwrap();
    let mut peer = Peer::new(without_tls);
    peer.log_in("EXTERNAL", "").await;
    let closed = peer.closed_with().await;
    assert!(closed.is_none() || closed == unknown, "{closed:?}");
    let refused = log_in_by_certificate(&broker, None).await.unwrap_err();
    assert!(refused.is_none() || refused == unknown, "{refused:?}");
    broker.stop().await;
}

#[tokio::test]
async fn unusable_files_are_errors_that_name_the_file() {
    let folder = std::env::temp_dir().join(format!("nameko-broker-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir(&folder).unwrap();
    let encrypted = folder.join("encrypted.key");
    let header = "ENCRYPTED PRIVATE KEY";
    let key = format!("-----BEGIN {header}-----\nMAA=\n-----END {header}-----\n");
    std::fs::write(&encrypted, key).unwrap();
    let garbage = folder.join("garbage.pem");
    let certificate = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    std::fs::write(&garbage, certificate).unwrap();

    let key = || file("server.key");
    for (tls, expected) in [
        (
            Tls::new(file("none.pem"), key()),
            vec!["certfile", "none.pem"],
        ),
        (
            Tls::new(key(), key()),
            vec!["certfile", "server.key", "none"],
        ),
        (Tls::new(&garbage, key()), vec!["garbage.pem"]),
        (
            Tls::new(file("server.pem"), file("server.pem")),
            vec!["private key", "certfile", "server.pem"],
        ),
        (
            Tls::new(file("server.pem"), file("client.key")),
            vec!["client.key", "does not belong to", "server.pem"],
        ),
        (
            Tls::new(file("server.pem"), &encrypted),
            vec!["encrypted.key", "openssl pkey"],
        ),
        (
            Tls::new(file("v1-expired.pem"), file("v1.key")),
            vec!["certfile", "v1-expired.pem", "has expired", "renew"],
        ),
        (
            server().request_client_certificates(file("none.pem")),
            vec!["cacertfile", "none.pem"],
        ),
        (
            server().request_client_certificates(&garbage),
            vec!["cacertfile", "garbage.pem"],
        ),
        (
            server().require_client_certificates(file("v1-expired.pem")),
            vec!["cacertfile", "v1-expired.pem", "has expired"],
        ),
    ] {
        let started = Broker::builder().tls(tls).start("127.0.0.1:0").await;
        let error = started.unwrap_err();
        assert!(matches!(error, BrokerError::Tls { .. }), "{error:?}");
        let text = error.to_string();
        for part in expected {
            assert!(text.contains(part), "{text} lacks {part}");
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn a_tls_port_in_use_is_an_error() {
    let broker = start(server()).await;
    let port = broker.tls_addr().unwrap().port();
    let again = Broker::builder().tls(server().port(port));
    let error = again.start("127.0.0.1:0").await.unwrap_err();
    assert!(
        matches!(error, BrokerError::ListenTls { port: refused, .. } if refused == port),
        "{error:?}"
    );
    broker.stop().await;
}

#[tokio::test]
async fn clients_on_the_wrong_port_are_logged() {
    let logs = Logs::default();
    let _collecting = logs.collect();
    let broker = start(server().require_client_certificates(file("ca.pem"))).await;
    let mut plain = Peer::connect(&broker.tls_addr().unwrap().to_string()).await;
    plain.write(HEADER).await;
    let peer = plain.stream.local_addr().unwrap().to_string();
    let logged = logs.wait_for("speaks no TLS on the TLS port").await;
    assert!(
        logged.contains(&peer) && logged.contains("amqps://"),
        "{logged}"
    );

    let mut tls = Peer::connect(&broker.addr().to_string()).await;
    // The start of a ClientHello.
    tls.write(&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]).await;
    let peer = tls.stream.local_addr().unwrap().to_string();
    let logged = logs.wait_for("speaks TLS on the port without TLS").await;
    assert!(logged.contains(&peer), "{logged}");

    is_refused(&broker, None).await;
    logs.wait_for("presented no certificate").await;
    is_refused(&broker, Some("self")).await;
    logs.wait_for("cacertfile").await;
    broker.stop().await;
}

#[tokio::test]
async fn tls_handshakes_are_bounded_in_time_and_delay_nobody() {
    let broker = Broker::builder()
        .tls(server())
        .handshake_timeout(Duration::from_millis(500))
        .start("127.0.0.1:0")
        .await
        .unwrap();
    let silent = async || {
        TcpStream::connect(broker.tls_addr().unwrap())
            .await
            .unwrap()
    };
    // Fewer than the maximum: the handshake of another client proceeds at once.
    let mut waiting = Vec::new();
    for _ in 0..50 {
        waiting.push(silent().await);
    }
    connect(&broker, None).await.unwrap();
    // More than the maximum: it proceeds once some have timed out.
    for _ in 0..150 {
        waiting.push(silent().await);
    }
    connect(&broker, None).await.unwrap();
    for mut stream in waiting {
        let read = with_timeout(stream.read(&mut [0])).await;
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
    broker.stop().await;
}

#[tokio::test]
async fn the_broker_stops_during_tls_handshakes() {
    let broker = start(server()).await;
    let silent = TcpStream::connect(broker.tls_addr().unwrap()).await;
    // Accepted after the silent client.
    drop(connect(&broker, None).await.unwrap());
    let begun = Instant::now();
    broker.stop().await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    drop(silent);
}
