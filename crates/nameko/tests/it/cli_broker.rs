//! `nameko broker`: a broker to try things out.

use std::net::{TcpListener, TcpStream};

use nameko::amqp::{ConnectOptions, Connection};

use crate::NAMEKO;
use crate::program::{Program, command, run};

#[tokio::test]
async fn it_says_where_it_listens_and_what_it_is_for_and_stops_on_signals() {
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
fn it_says_where_its_management_api_is_if_it_is_to_have_one() {
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
fn a_port_that_is_taken_is_told() {
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
                "Error: cannot listen on 127.0.0.1:{port}: Address already in use"
            )),
            "{ended:?}"
        );
        assert!(ended.stderr.contains(option), "{ended:?}");
    }
}
