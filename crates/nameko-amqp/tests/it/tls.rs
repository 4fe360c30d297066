//! TLS: verification of servers, certificates of clients.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use nameko_amqp::{ConnectOptions, Connection, Error, Login, Tls, Uri, Verify};
use nameko_broker::Broker;
use nameko_broker::testing::TestBroker;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::support::{broker, connect_options, in_time};

/// Returns the path of a certificate or key.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/certificates")
        .join(name)
}

/// A TLS proxy for a broker.
struct TlsProxy {
    addr: SocketAddr,
    _tasks: JoinSet<()>,
}

impl TlsProxy {
    /// Starts a proxy with a certificate. With `verify_clients` it requires one from the client.
    async fn start(broker: &TestBroker, certificate: &str, verify_clients: bool) -> Self {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if verify_clients {
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
        // `v1-expired` has the key of `v1`.
        let key = format!("{}.key", certificate.trim_end_matches("-expired"));
        let key = PrivateKeyDer::from_pem_file(file(&key)).unwrap();
        // Not `with_single_cert`, which takes no certificate of version 1.
        let identity = CertifiedKey::new(
            vec![CertificateDer::from_pem_file(file(&format!("{certificate}.pem"))).unwrap()],
            ring::sign::any_supported_type(&key).unwrap(),
        );
        let config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
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
                        // Fails if either side is reset, which ends the connection as well.
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

/// Returns TLS options that trust one authority.
fn trusting(ca: &str) -> Tls {
    Tls {
        ca_certs: Some(file(ca)),
        ..Tls::default()
    }
}

async fn assert_connects(options: &ConnectOptions) {
    let connection = in_time(Connection::open(options)).await.unwrap();
    in_time(connection.channel()).await.unwrap();
    in_time(connection.close()).await;
}

/// Asserts that connecting fails because of TLS, and returns the message.
async fn assert_fails(options: &ConnectOptions) -> String {
    let error = in_time(Connection::open(options)).await.unwrap_err();
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(&options.uris[0].port.to_string()), "{text}");
    text
}

#[tokio::test]
async fn certificates_are_verified_by_their_authority_regardless_of_the_name() {
    let broker = broker().await;
    let proxy = TlsProxy::start(&broker, "server", false).await;
    assert_connects(&proxy.options(&broker, trusting("ca.pem"))).await;
    // The same, since a server always sends a certificate.
    assert_connects(&proxy.options(
        &broker,
        Tls {
            verify: Verify::Optional,
            ..trusting("ca.pem")
        },
    ))
    .await;

    let text = assert_fails(&proxy.options(&broker, trusting("self.pem"))).await;
    assert!(text.contains("ca_certs"), "{text}");
    // Not signed by one of the system's authorities either.
    assert_fails(&proxy.options(&broker, Tls::default())).await;
    assert_connects(&proxy.options(
        &broker,
        Tls {
            verify: Verify::None,
            ..Tls::default()
        },
    ))
    .await;
}

#[tokio::test]
async fn certificates_of_version_1_are_verified_by_a_given_authority() {
    let broker = broker().await;
    let proxy = TlsProxy::start(&broker, "v1", false).await;
    assert_connects(&proxy.options(&broker, trusting("v1-ca.pem"))).await;
    assert_connects(&proxy.options(&broker, trusting("v1.pem"))).await;
    let unverified = Tls {
        verify: Verify::None,
        ..Tls::default()
    };
    assert_connects(&proxy.options(&broker, unverified)).await;

    let text = assert_fails(&proxy.options(&broker, trusting("ca.pem"))).await;
    assert!(text.contains("ca_certs"), "{text}");
    let named = Tls {
        check_hostname: true,
        ..trusting("v1-ca.pem")
    };
    for tls in [Tls::default(), named] {
        let text = assert_fails(&proxy.options(&broker, tls)).await;
        assert!(
            text.contains("version 1") && text.contains("subjectAltName"),
            "{text}"
        );
    }

    let proxy = TlsProxy::start(&broker, "v1-expired", false).await;
    let text = assert_fails(&proxy.options(&broker, trusting("v1-ca.pem"))).await;
    assert!(text.contains("expired"), "{text}");
}

#[tokio::test]
async fn check_hostname_verifies_the_host_name() {
    let broker = broker().await;
    let proxy = TlsProxy::start(&broker, "server", false).await;
    let mut options = proxy.options(
        &broker,
        Tls {
            check_hostname: true,
            ..trusting("ca.pem")
        },
    );
    assert_fails(&options).await;
    options.uris[0].host = "localhost".into();
    assert_connects(&options).await;
}

#[tokio::test]
async fn a_self_signed_certificate_in_ca_certs_is_trusted() {
    let broker = broker().await;
    let proxy = TlsProxy::start(&broker, "self", false).await;
    assert_connects(&proxy.options(&broker, trusting("self.pem"))).await;
    assert_fails(&proxy.options(&broker, trusting("ca.pem"))).await;
}

#[tokio::test]
async fn servers_can_require_a_client_certificate() {
    let broker = broker().await;
    let proxy = TlsProxy::start(&broker, "server", true).await;
    let known = Tls {
        certfile: Some(file("client.pem")),
        keyfile: Some(file("client.key")),
        ..trusting("ca.pem")
    };
    assert_connects(&proxy.options(&broker, known.clone())).await;
    let text = assert_fails(&proxy.options(&broker, trusting("ca.pem"))).await;
    assert!(text.contains("certfile"), "{text}");

    for (tls, reason) in [
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
            "does not belong to",
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
        let text = assert_fails(&proxy.options(&broker, tls)).await;
        assert!(text.contains(reason), "{text} lacks {reason}");
    }
}

#[tokio::test]
async fn tls_on_a_plain_port_and_the_reverse_are_explained() {
    let broker = broker().await;
    let proxy = TlsProxy::start(&broker, "server", false).await;
    let mut options = proxy.options(&broker, trusting("ca.pem"));
    options.tls = None;
    let error = in_time(Connection::open(&options)).await.unwrap_err();
    assert!(matches!(error, Error::NotAmqp { .. }), "{error:?}");
    assert!(error.to_string().contains("TLS"), "{error}");

    let mut options = connect_options(&broker);
    options.tls = Some(trusting("ca.pem"));
    let text = assert_fails(&options).await;
    assert!(text.contains("5671"), "{text}");
}

#[tokio::test]
async fn an_amqps_uri_uses_tls() {
    let broker = broker().await;
    let proxy = TlsProxy::start(&broker, "server", false).await;
    let mut options = proxy.options(&broker, Tls::default());
    options.tls = None;
    options.uris = Uri::parse_list(&format!("amqps://guest:guest@{}", proxy.addr)).unwrap();
    // By default only the system's authorities are trusted.
    assert_fails(&options).await;
}

#[tokio::test]
async fn external_logs_in_the_user_of_the_certificate() {
    let tls = nameko_broker::Tls::new(file("server.pem"), file("server.key"))
        .request_client_certificates(file("ca.pem"));
    let broker = Broker::builder().tls(tls).start("127.0.0.1:0").await;
    let broker = broker.unwrap();
    let mut options = ConnectOptions::from_uri(&broker.tls_uri().unwrap()).unwrap();
    options.uris[0].password = "wrong".into();
    options.login = Login::External;
    options.tls = Some(Tls {
        certfile: Some(file("client.pem")),
        keyfile: Some(file("client.key")),
        ..trusting("ca.pem")
    });
    assert_connects(&options).await;

    options.tls = Some(trusting("ca.pem"));
    let error = in_time(Connection::open(&options)).await.unwrap_err();
    assert!(error.to_string().contains("EXTERNAL"), "{error}");
    broker.stop().await;
}
