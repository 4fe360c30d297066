//! The command `nameko broker`.

use std::net::{TcpListener, TcpStream};

#[cfg(feature = "tls")]
use nameko::amqp::Tls;
use nameko::amqp::{ConnectOptions, Connection};

use crate::NAMEKO;
use crate::program::{Program, command, run};

#[tokio::test]
async fn prints_its_uri_and_stops_on_signals() {
    for signal in ["INT", "TERM"] {
        let mut broker = Program::start(command(NAMEKO, ["broker", "--port", "0"]));
        let ready = broker.wait_for("ready at amqp://guest:guest@127.0.0.1:");
        broker.wait_for("messages are kept in memory and lost on exit");
        let uri = ready.strip_prefix("ready at ").unwrap();
        let options = ConnectOptions::from_uri(uri).unwrap();
        Connection::open(&options).await.unwrap().close().await;
        broker.signal(signal);
        assert_eq!(broker.wait(), Some(0));
    }
}

#[test]
fn prints_the_uri_of_the_management_api_if_enabled() {
    let arguments = ["broker", "--port", "0", "--management-port", "0"];
    let mut broker = Program::start(command(NAMEKO, arguments));
    let api = broker.wait_for("management API at http://guest:guest@127.0.0.1:");
    let (_, address) = api.rsplit_once('@').unwrap();
    let address = address.strip_suffix("/api/").unwrap();
    TcpStream::connect(address).unwrap();
    broker.signal("TERM");
    assert_eq!(broker.wait(), Some(0));
}

/// Returns the path of a certificate or key of `nameko-amqp`'s tests.
#[cfg(feature = "tls")]
fn file(name: &str) -> String {
    let folder = env!("CARGO_MANIFEST_DIR");
    format!("{folder}/../nameko-amqp/tests/it/certificates/{name}")
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn serves_clients_over_tls() {
    let (certfile, keyfile) = (file("server.pem"), file("server.key"));
    let arguments = [
        "broker",
        "--port",
        "0",
        "--tls-port",
        "0",
        "--certfile",
        &certfile,
        "--keyfile",
        &keyfile,
        "--cacertfile",
        &file("ca.pem"),
        "--fail-if-no-peer-cert",
    ];
    let mut broker = Program::start(command(NAMEKO, arguments));
    let line = broker.wait_for("TLS at amqps://guest:guest@127.0.0.1:");
    let mut options = ConnectOptions::from_uri(line.strip_prefix("TLS at ").unwrap()).unwrap();
    let tls = options.tls.insert(Tls {
        ca_certs: Some(file("ca.pem").into()),
        ..Tls::default()
    });
    tls.certfile = Some(file("client.pem").into());
    tls.keyfile = Some(file("client.key").into());
    Connection::open(&options).await.unwrap().close().await;
    broker.signal("TERM");
    assert_eq!(broker.wait(), Some(0));
}

#[cfg(feature = "tls")]
#[test]
fn unusable_tls_options_are_errors() {
    let certfile = file("server.pem");
    let with_certificate = [
        "broker",
        "--port",
        "0",
        "--tls-port",
        "0",
        "--certfile",
        &certfile,
    ];
    let ended = run(command(NAMEKO, with_certificate), "");
    assert_eq!(ended.code, Some(1));
    assert!(
        ended
            .stderr
            .starts_with("Error: cannot read a private key from certfile")
            && ended.stderr.contains("server.pem"),
        "{ended:?}"
    );
    for (arguments, named) in [
        (&["broker", "--tls-port", "0"][..], "--certfile"),
        (&["broker", "--certfile", "x"], "--tls-port"),
        (
            &[
                "broker",
                "--tls-port",
                "0",
                "--certfile",
                "x",
                "--fail-if-no-peer-cert",
            ],
            "--cacertfile",
        ),
    ] {
        let ended = run(command(NAMEKO, arguments), "");
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(named), "{ended:?}");
    }
}

#[test]
fn listens_on_several_hosts() {
    let hosts: [&[&str]; 2] = [&["localhost"], &["127.0.0.1", "::1"]];
    for hosts in hosts {
        listens_on_both_loopback_addresses(hosts);
    }
}

fn listens_on_both_loopback_addresses(hosts: &[&str]) {
    let mut arguments = vec!["broker", "--port", "0"];
    arguments.extend(hosts.iter().flat_map(|host| ["--host", *host]));
    let mut broker = Program::start(command(NAMEKO, arguments));
    let ready = broker.wait_for("ready at amqp://guest:guest@127.0.0.1:");
    let (_, port) = ready.rsplit_once(':').unwrap();
    let also = broker.wait_for("also listening on ");
    assert_eq!(also, format!("also listening on [::1]:{port}"));
    TcpStream::connect(also.strip_prefix("also listening on ").unwrap()).unwrap();
    broker.signal("TERM");
    assert_eq!(broker.wait(), Some(0));
}

#[test]
fn a_port_in_use_is_an_error_with_a_hint() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (arguments, option) in [
        (&["broker", "--port", &port][..], "with --port"),
        (
            &["broker", "--port", "0", "--management-port", &port],
            "with --management-port",
        ),
    ] {
        let ended = run(command(NAMEKO, arguments), "");
        assert_eq!(ended.code, Some(1));
        assert!(
            ended.stderr.starts_with(&format!(
                "Error: cannot listen on localhost:{port}: Address already in use"
            )),
            "{ended:?}"
        );
        assert!(ended.stderr.contains(option), "{ended:?}");
    }
}
