//! The AMQP client over TLS: whom it trusts, and as whom it is known.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use nameko_amqp::{ConnectOptions, Connection, Error, Tls, Uri, Verify};
use nameko_broker::testing::TestBroker;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::support::{broker, connect_options, soon};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/certificates")
        .join(name)
}

/// A server with the certificate `name` that takes TLS off before a broker, and may ask for a client certificate.
struct TlsFront {
    addr: SocketAddr,
    _tasks: JoinSet<()>,
}

impl TlsFront {
    async fn start(broker: &TestBroker, name: &str, clients: bool) -> Self {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if clients {
            let mut roots = RootCertStore::empty();
            roots
                .add(CertificateDer::from_pem_file(file("ca.pem")).unwrap())
                .unwrap();
            let provider = Arc::new(ring::default_provider());
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let config = builder
            .with_single_cert(
                vec![CertificateDer::from_pem_file(file(&format!("{name}.pem"))).unwrap()],
                PrivateKeyDer::from_pem_file(file(&format!("{name}.key"))).unwrap(),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let upstream = broker.addr();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    if let Ok(mut stream) = acceptor.accept(stream).await
                        && let Ok(mut broker) = TcpStream::connect(upstream).await
                    {
                        // It ends when either side does.
                        let _ = tokio::io::copy_bidirectional(&mut stream, &mut broker).await;
                    }
                });
            }
        });
        Self {
            addr,
            _tasks: tasks,
        }
    }

    fn options(&self, broker: &TestBroker, tls: Tls) -> ConnectOptions {
        let mut options = connect_options(broker);
        options.uris.truncate(1);
        options.uris[0].host = self.addr.ip().to_string();
        options.uris[0].port = self.addr.port();
        options.tls = Some(tls);
        options
    }
}

fn trusting(ca: &str) -> Tls {
    Tls {
        ca_certs: Some(file(ca)),
        ..Tls::default()
    }
}

async fn works(options: &ConnectOptions) {
    let connection = soon(Connection::open(options)).await.unwrap();
    soon(connection.channel()).await.unwrap();
    soon(connection.close()).await;
}

async fn fails(options: &ConnectOptions) -> String {
    let error = soon(Connection::open(options)).await.unwrap_err();
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(&options.uris[0].port.to_string()), "{text}");
    text
}

#[tokio::test]
async fn a_server_is_trusted_by_its_authority_whatever_its_name() {
    let broker = broker().await;
    let front = TlsFront::start(&broker, "server", false).await;
    works(&front.options(&broker, trusting("ca.pem"))).await;
    // A server always shows a certificate, so this is the same.
    works(&front.options(
        &broker,
        Tls {
            verify: Verify::Optional,
            ..trusting("ca.pem")
        },
    ))
    .await;

    let text = fails(&front.options(&broker, trusting("self.pem"))).await;
    assert!(text.contains("ca_certs"), "{text}");
    // The system's authorities do not know it either.
    fails(&front.options(&broker, Tls::default())).await;
    works(&front.options(
        &broker,
        Tls {
            verify: Verify::None,
            ..Tls::default()
        },
    ))
    .await;
}

#[tokio::test]
async fn the_host_name_counts_when_asked_for() {
    let broker = broker().await;
    let front = TlsFront::start(&broker, "server", false).await;
    let mut options = front.options(
        &broker,
        Tls {
            check_hostname: true,
            ..trusting("ca.pem")
        },
    );
    fails(&options).await;
    options.uris[0].host = "localhost".into();
    works(&options).await;
}

#[tokio::test]
async fn a_server_that_signed_itself_is_trusted_when_named() {
    let broker = broker().await;
    let front = TlsFront::start(&broker, "self", false).await;
    works(&front.options(&broker, trusting("self.pem"))).await;
    fails(&front.options(&broker, trusting("ca.pem"))).await;
}

#[tokio::test]
async fn a_server_may_ask_who_the_client_is() {
    let broker = broker().await;
    let front = TlsFront::start(&broker, "server", true).await;
    let known = Tls {
        certfile: Some(file("client.pem")),
        keyfile: Some(file("client.key")),
        ..trusting("ca.pem")
    };
    works(&front.options(&broker, known.clone())).await;
    let text = fails(&front.options(&broker, trusting("ca.pem"))).await;
    assert!(text.contains("certfile"), "{text}");

    for (tls, why) in [
        (
            Tls {
                keyfile: None,
                ..known.clone()
            },
            "private key",
        ),
        (
            Tls {
                certfile: None,
                ..known.clone()
            },
            "without a certfile",
        ),
        (
            Tls {
                keyfile: Some(file("server.key")),
                ..known.clone()
            },
            "do not work together",
        ),
        (
            Tls {
                certfile: Some(file("none.pem")),
                ..known.clone()
            },
            "none.pem",
        ),
        (
            Tls {
                ca_certs: Some(file("client.key")),
                ..known.clone()
            },
            "client.key",
        ),
    ] {
        let text = fails(&front.options(&broker, tls)).await;
        assert!(text.contains(why), "{text} lacks {why}");
    }
}

#[tokio::test]
async fn tls_and_plain_ports_are_told_apart() {
    let broker = broker().await;
    let front = TlsFront::start(&broker, "server", false).await;
    let mut options = front.options(&broker, trusting("ca.pem"));
    options.tls = None;
    let error = soon(Connection::open(&options)).await.unwrap_err();
    assert!(matches!(error, Error::NotAmqp { .. }), "{error:?}");
    assert!(error.to_string().contains("TLS"), "{error}");

    let mut options = connect_options(&broker);
    options.tls = Some(trusting("ca.pem"));
    let text = fails(&options).await;
    assert!(text.contains("5671"), "{text}");
}

#[tokio::test]
async fn amqps_means_tls() {
    let broker = broker().await;
    let front = TlsFront::start(&broker, "server", false).await;
    let mut options = front.options(&broker, Tls::default());
    options.tls = None;
    options.uris = Uri::parse_list(&format!("amqps://guest:guest@{}", front.addr)).unwrap();
    // The default trusts the system's authorities, which do not know this one.
    fails(&options).await;
}
