//! The command `nameko broker`.

use std::net::{TcpListener, TcpStream};

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
