//! The example programs: output and behaviour of `run`, up to its shutdown by a signal.
#![allow(clippy::unwrap_used, reason = "test helpers")]

#[path = "../../crates/nameko-sqlx/tests/it/postgresql.rs"]
mod postgresql;
#[path = "../../crates/nameko/tests/it/program.rs"]
mod program;
// A program with a `main` of its own.
#[path = "run/embedding.rs"]
mod embedding;
// Failing services and processes.
#[path = "run/failures.rs"]
mod failures;
// Supervised processes, `run --workers`.
#[path = "run/processes.rs"]
mod processes;
// The reference application, which needs PostgreSQL.
#[path = "run/shop.rs"]
mod shop;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
};

use nameko_broker::Broker;

use program::{Program, command, run};

const HELLO: &str = env!("CARGO_BIN_EXE_hello");
const CHAIN: &str = env!("CARGO_BIN_EXE_chain");
const EVENTS: &str = env!("CARGO_BIN_EXE_events");
const MESSAGING: &str = env!("CARGO_BIN_EXE_messaging");
const ORDERS: &str = env!("CARGO_BIN_EXE_orders");
const CHAT: &str = env!("CARGO_BIN_EXE_chat");
const TIMERS: &str = env!("CARGO_BIN_EXE_timers");

#[tokio::test(flavor = "multi_thread")]
async fn a_service_prints_its_methods_answers_calls_and_stops_on_a_signal() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    for signal in ["INT", "TERM"] {
        let mut hello = Program::start(command(HELLO, ["run", "--broker", &broker.uri()]));
        hello.wait_for("hello_service: hello (rpc)");
        hello.wait_for(&format!("ready at amqp://guest:********@{}", broker.addr()));
        let ended = run(
            command(
                HELLO,
                [
                    "call",
                    "--broker",
                    &broker.uri(),
                    "hello_service.hello",
                    "name='zq'",
                ],
            ),
            "",
        );
        assert_eq!(
            (ended.code, ended.stdout.as_str()),
            (Some(0), "'Hello, zq!'\n"),
            "{ended:?}"
        );
        hello.signal(signal);
        hello.wait_for("stopped");
        assert_eq!(hello.wait(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_call_each_other_and_run_selects_them_by_name() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let start = |name: &str| {
        let mut program = Program::start(command(CHAIN, ["run", name, "--broker", &broker.uri()]));
        program.wait_for("ready at");
        program
    };
    let services = (start("service_x"), start("service_y"));
    let script = "n.rpc.service_x.remote_method('hello')\n";
    let ended = run(command(CHAIN, ["shell", "--broker", &broker.uri()]), script);
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(0), "'hello-x-y'\n"),
        "{ended:?}"
    );
    drop(services);
}

#[tokio::test(flavor = "multi_thread")]
async fn run_waits_for_an_unreachable_broker() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut hello = Program::start(command(
        HELLO,
        ["run", "--broker", &format!("amqp://{address}")],
    ));
    hello.wait_for(&format!("cannot connect to {address}"));
    let _broker = Broker::start(address).await.unwrap();
    hello.wait_for("ready at");
    hello.signal("TERM");
    assert_eq!(hello.wait(), Some(0));
}

#[test]
fn a_signal_ends_the_wait_for_a_broker() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut hello = Program::start(command(
        HELLO,
        ["run", "--broker", &format!("amqp://{address}")],
    ));
    hello.wait_for("cannot connect");
    hello.signal("INT");
    assert_eq!(hello.wait(), Some(0));
}

#[test]
fn version_prints_the_name_and_version_of_the_program() {
    for arguments in [&["--version"][..], &["run", "--version"]] {
        let output = run(command(HELLO, arguments), "").stdout;
        let (name, version) = output.split_once(' ').unwrap();
        assert!(name.starts_with("hello"), "{output}");
        let ours = env!("CARGO_PKG_VERSION");
        assert_eq!(version.trim_end(), format!("{ours} (nameko {ours})"));
    }
}

#[test]
fn run_rejects_unknown_services_and_invalid_configuration() {
    let ended = run(command(HELLO, ["run", "helo_service"]), "");
    assert_eq!(ended.code, Some(2), "the command line is wrong");
    assert!(
        ended
            .stderr
            .contains("no service is called `helo_service`; there are: hello_service"),
        "{ended:?}"
    );
    let ended = run(command(HELLO, ["run", "-d", "max_workers=many"]), "");
    assert!(
        ended.stderr.starts_with(
            "ConfigurationError: max_workers must be a whole number, not the text \"many\""
        ),
        "{ended:?}"
    );
    let ended = run(command(HELLO, ["run", "--broker", "http://rabbit"]), "");
    assert!(ended.stderr.contains("AMQP_URI is wrong"), "{ended:?}");
    assert_eq!(ended.stdout, "", "no service was started");
    let ended = run(command(HELLO, ["run", "-d", "HEARTBEAT=often"]), "");
    assert!(
        ended.stderr.contains("HEARTBEAT must be a whole number"),
        "{ended:?}"
    );
    assert_eq!(ended.stdout, "", "no service was started");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_warehouse_and_every_cache_handle_an_event_of_the_shop() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let start = |services: &[&str]| {
        let uri = broker.uri();
        let arguments = [&["run", "--broker", &uri], services].concat();
        let mut program = Program::start(command(EVENTS, arguments));
        program.wait_for("ready at");
        program
    };
    let mut shop = start(&["shop", "warehouse"]);
    let mut caches = [start(&["cache"]), start(&["cache"])];
    let uri = broker.uri();
    let paid = ["call", "--broker", &uri, "shop.pay", "order=17"];
    let ended = run(command(EVENTS, paid), "");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    shop.wait_for("packed order 17");
    for cache in &mut caches {
        cache.wait_for("forgot order 17");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_are_resized_and_a_broken_one_is_dead_lettered() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let mut messaging = Program::start(command(MESSAGING, ["run", "--broker", &broker.uri()]));
    messaging.wait_for("ready at");
    for (picture, outcome) in [
        ("cat.jpg", "resized cat.jpg"),
        ("broken.jpg", "could not resize broken.jpg"),
    ] {
        let picture = format!("picture='{picture}'");
        let uri = broker.uri();
        let call = ["call", "--broker", &uri, "studio.resize", &picture];
        let ended = run(command(MESSAGING, call), "");
        assert_eq!(ended.code, Some(0), "{ended:?}");
        messaging.wait_for(outcome);
    }
}

/// Sends a request and returns the whole response.
fn http(address: &str, request: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    write!(
        stream,
        "{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Waits until the program is ready, before which requests are answered with 503. Returns the
/// address of its web server.
fn web_address(program: &mut Program) -> String {
    let line = program.wait_for("listening on http://");
    program.wait_for("ready at");
    line.rsplit("http://").next().unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_served_over_http() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let mut orders = Program::start(command(
        ORDERS,
        [
            "run",
            "--broker",
            &broker.uri(),
            "-d",
            "WEB_SERVER_ADDRESS=127.0.0.1:0",
        ],
    ));
    let address = &web_address(&mut orders);
    let made = http(address, "POST /orders", r#"{"item": "nut", "count": 3}"#);
    assert!(made.starts_with("HTTP/1.1 201"), "{made}");
    assert!(made.contains("location: /orders/1\r\n"), "{made}");
    for (request, status, body) in [
        ("GET /orders/1", 200, r#"{"item":"nut","count":3}"#),
        ("GET /orders?item=bolt", 200, "{}"),
        ("GET /orders/2", 404, "Error: NotFound: no order 2\n"),
        ("GET /orders.csv", 200, "1,nut,3\n"),
        ("DELETE /orders/1", 204, ""),
        ("GET /orders", 200, "{}"),
    ] {
        let answer = http(address, request, "");
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
        let sent = answer.split_once("\r\n\r\n").unwrap().1;
        assert!(
            sent == body || sent.contains(&format!("\r\n{body}\r\n")),
            "{answer}"
        );
    }
    orders.signal("TERM");
    assert_eq!(orders.wait(), Some(0));
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn the_chat_serves_its_page() {
    let mut chat = Program::start(command(
        CHAT,
        ["run", "-d", "WEB_SERVER_ADDRESS=127.0.0.1:0"],
    ));
    let address = &web_address(&mut chat);
    let page = http(address, "GET /", "");
    assert!(page.contains("/ws?room="), "{page}");
    chat.signal("TERM");
    assert_eq!(chat.wait(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn timers_run_and_are_listed_at_the_start() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let mut timers = Program::start(command(TIMERS, ["run", "--broker", &broker.uri()]));
    timers.wait_for("report (cron */10 * * * * * Europe/London, once in the fleet)");
    timers.wait_for("is alive");
    timers.signal("TERM");
    assert_eq!(timers.wait(), Some(0));
}
