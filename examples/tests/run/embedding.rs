//! A program with a command line, a runtime and a log of its own.

use nameko_broker::Broker;

use crate::program::{Program, command, run};

const EMBEDDING: &str = env!("CARGO_BIN_EXE_embedding");

#[tokio::test(flavor = "multi_thread")]
async fn serves_until_the_future_of_the_program_completes() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let uri = broker.uri();
    let mut served = Program::start(command(EMBEDDING, ["serve", "--broker", &uri]));
    // Waits until the service has declared its queue.
    let greet = || {
        let arguments = ["--tenant", "shop", "greet", "Ada", "--broker", &uri];
        run(command(EMBEDDING, arguments), "")
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let greeted = loop {
        let ended = greet();
        if ended.code == Some(0) {
            break ended;
        }
        assert!(ended.stderr.contains("Unknown service"), "{ended:?}");
        assert!(std::time::Instant::now() < deadline, "{ended:?}");
    };
    assert_eq!(greeted.stdout, "Hello, Ada of shop!\n");
    // The log of the program.
    let line = served.wait_for("greeting");
    assert!(line.contains("INFO"), "{line}");
    assert_eq!(served.wait(), Some(0));
    served.wait_for("served");
}

#[tokio::test(flavor = "multi_thread")]
async fn its_command_line_contains_the_commands_of_nameko() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let uri = broker.uri();
    let arguments = ["--tenant", "x", "run", "--broker", &uri];
    let mut program = Program::start(command(EMBEDDING, arguments));
    program.wait_for("ready at");
    let call = ["call", "greeter.greet", "Ada", "--context", "tenant=acme"];
    let call = [&call[..], &["--broker", &uri]].concat();
    let ended = run(command(EMBEDDING, call), "");
    assert_eq!(ended.stdout, "'Hello, Ada of acme!'\n", "{ended:?}");
    let script = "n.rpc.greeter.greet('Bob')\n";
    let ended = run(command(EMBEDDING, ["shell", "--broker", &uri]), script);
    assert_eq!(ended.stdout, "'Hello, Bob of nobody!'\n", "{ended:?}");
    program.signal("TERM");
    program.wait_for("stopped");
    assert_eq!(program.wait(), Some(0));

    let ended = run(command(EMBEDDING, ["run", "unknown"]), "");
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("no service is called `unknown`"));
    let help = run(command(EMBEDDING, ["--help"]), "").stdout;
    for text in ["Greets people", "Greet a person", "Run the services"] {
        assert!(help.contains(text), "{help}");
    }
    let help = run(command(EMBEDDING, ["greet", "--help"]), "").stdout;
    assert!(help.starts_with("Greet a person"), "{help}");
}

#[tokio::test(flavor = "multi_thread")]
async fn supervised_processes_get_its_whole_command_line() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let uri = broker.uri();
    let arguments = ["--tenant", "run", "run", "--workers", "2", "--broker", &uri];
    for services in [&[][..], &["--", "greeter"]] {
        let arguments = [&arguments[..], services].concat();
        let mut program = Program::start(command(EMBEDDING, arguments));
        program.wait_for("2 processes; press Ctrl-C to stop");
        program.signal("TERM");
        program.wait_for("stopped");
        assert_eq!(program.wait(), Some(0));
    }
}

#[test]
fn log_options_without_effect_are_reported_once() {
    // Nothing listens on port 1, so that the call fails after the log is set up.
    let call = ["call", "greeter.greet", "--broker", "amqp://127.0.0.1:1"];
    for (options, reported) in [
        (&["--log-format", "json"][..], "--log-format: ignored"),
        (&["--log", "debug"], "--log: ignored"),
        (
            &["--log", "debug", "-d", "LOG_FORMAT=json"],
            "--log and LOG_FORMAT of the configuration: ignored",
        ),
    ] {
        let ended = run(command(EMBEDDING, [&call[..], options].concat()), "");
        let lines: Vec<_> = ended.stderr.lines().collect();
        let ignored = lines.iter().filter(|line| line.contains("ignored"));
        let [line] = ignored.collect::<Vec<_>>()[..] else {
            panic!("{ended:?}");
        };
        assert!(line.contains(reported), "{line}");
        assert!(line.ends_with("since the program installs a log of its own"));
    }
    let mut silent = command(EMBEDDING, call);
    silent.env("RUST_LOG", "warn");
    let ended = run(silent, "");
    assert!(!ended.stderr.contains("ignored"), "{ended:?}");
}
