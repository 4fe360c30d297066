//! What `run` says and does when a service can't start or dies, and what its log is like.

use std::io::Read as _;

use nameko_broker::Broker;
use serde_json::Value;

use crate::program::{Program, command, run, wait};

pub(crate) const TROUBLES: &str = env!("CARGO_BIN_EXE_troubles");

/// `run` on a broker; web servers take any free port.
pub(crate) fn troubles(broker: &Broker, arguments: &[&str]) -> std::process::Command {
    let mut command = command(TROUBLES, ["run", "--broker", &broker.uri()]);
    command
        .args(["-d", "WEB_SERVER_ADDRESS=127.0.0.1:0"])
        .args(["-d", "stop_timeout=0"])
        .args(arguments);
    command
}

/// Makes a call that may have no answer, as another program would; it is over when dropped.
pub(crate) fn call(broker: &Broker, what: &str) -> Program {
    let uri = broker.uri();
    Program::start(command(TROUBLES, ["call", "--broker", &uri, what]))
}

/// All lines, up to the end of the last process that writes any.
pub(crate) fn rest(program: &mut Program) -> String {
    while let Ok(line) = program
        .lines
        .recv_timeout(std::time::Duration::from_secs(60))
    {
        program.seen.push_str(&line);
        program.seen.push('\n');
    }
    program.seen.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_dies_takes_its_peers_down_and_is_named_last() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let mut services = Program::start(troubles(&broker, &[]));
    services
        .wait_for("front: pid (rpc), fail (rpc), panic (rpc), hang (rpc), block (rpc), get_pid (http GET /pid)");
    services.wait_for("ready at");
    let _call = call(&broker, "back.die");
    assert_eq!(services.wait(), Some(1));
    let said = rest(&mut services);
    assert_eq!(
        said.lines().last(),
        Some("Error: back was killed: disk is gone"),
        "{said}"
    );
    assert!(
        said.contains("the services beside it are stopped"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_that_blocks_a_thread_does_not_keep_the_program() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let mut services = Program::start(troubles(&broker, &[]));
    services.wait_for("ready at");
    let _call = call(&broker, "front.block");
    services.wait_for("blocking");
    services.signal("TERM");
    services.wait_for("stopped");
    assert_eq!(services.wait(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_cannot_start_is_named() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let ended = run(troubles(&broker, &["-d", "disk_is_gone=true"]), "");
    assert_eq!(ended.code, Some(1));
    assert_eq!(
        ended.stderr.lines().last(),
        Some("Error: back cannot start: dependency `_disk`: disk is gone"),
        "{ended:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_a_call_ends_with_its_id() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let mut services = Program::start(troubles(&broker, &[]));
    services.wait_for("ready at");
    assert_eq!(call(&broker, "front.fail").wait(), Some(1));
    services.wait_for(
        " ERROR nameko::worker: error handling worker front.fail: ValueError: bad [front.fail.",
    );
}

/// A machine reads it: every line is an object, whatever happens.
#[tokio::test(flavor = "multi_thread")]
async fn the_json_log_has_one_object_per_line_with_the_fields_of_the_call() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let mut command = troubles(&broker, &[]);
    command.env("NAMEKO_LOG_FORMAT", "json");
    let mut services = Program::start(command);
    services.wait_for("ready at");
    for method in ["fail", "panic"] {
        assert_eq!(call(&broker, &format!("front.{method}")).wait(), Some(1));
    }
    let _call = call(&broker, "back.die");
    assert_eq!(services.wait(), Some(1));

    let said = rest(&mut services);
    let lines: Vec<Value> = said
        .lines()
        .map(|it| serde_json::from_str(it).unwrap_or_else(|error| panic!("{error}: {it}")))
        .collect();
    let with = |text: &str| {
        let with = |line: &&Value| line["message"].as_str().is_some_and(|it| it.contains(text));
        lines
            .iter()
            .find(with)
            .unwrap_or_else(|| panic!("{text}: {said}"))
    };
    let failed = with("ValueError: bad");
    assert_eq!(failed["level"], "ERROR");
    assert_eq!(failed["span"]["name"], "worker");
    assert_eq!(failed["span"]["service"], "front");
    assert_eq!(failed["span"]["method"], "fail");
    assert_eq!(failed["span"]["outcome"], "ValueError");
    let call_id = failed["span"]["call_id"].as_str().unwrap();
    assert!(call_id.starts_with("front.fail."), "{call_id}");
    assert_eq!(failed["span"]["entrypoint"], "rpc");
    assert!(failed["span"]["duration_ms"].is_number(), "{failed}");
    assert_eq!(failed.get("spans"), None, "there is no other: {failed}");
    assert!(with("panicked: out of cheese")["place"].is_string());
    with("front: pid (rpc)");
    assert_eq!(
        lines.last().unwrap()["message"],
        "Error: back was killed: disk is gone"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_configured_by_flag_by_environment_and_by_file_in_that_order() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        file.path(),
        "LOG: error\nLOG_FORMAT: json\ndisk_is_gone: true\n",
    )
    .unwrap();
    let path = file.path().to_str().unwrap();
    let last = |arguments: &[&str], environment: Option<&str>| {
        let mut command = troubles(&broker, &["--config", path]);
        command.args(arguments);
        if let Some(format) = environment {
            command.env("NAMEKO_LOG_FORMAT", format);
        }
        let ended = run(command, "");
        assert_eq!(ended.code, Some(1), "{ended:?}");
        (
            ended.stdout.lines().next().map(str::to_owned),
            ended.stderr.lines().last().unwrap().to_owned(),
        )
    };
    let text = "Error: back cannot start: dependency `_disk`: disk is gone";
    let (stdout, stderr) = last(&[], None);
    assert_eq!(
        stdout, None,
        "all goes to the log, and `connecting` is no error"
    );
    assert!(stderr.starts_with('{') && stderr.contains(text), "{stderr}");
    assert_eq!(last(&[], Some("text")).1, text);
    assert_eq!(last(&["--log-format", "text"], Some("json")).1, text);
    let (_, stderr) = last(&["--log-format", "json"], Some("text"));
    assert!(stderr.starts_with('{'), "{stderr}");

    let wrong = run(troubles(&broker, &["-d", "LOG_FORMAT=xml"]), "");
    assert!(
        wrong
            .stderr
            .starts_with("ConfigurationError: LOG_FORMAT must be text or json"),
        "{wrong:?}"
    );
    let wrong = run(troubles(&broker, &["--log-format", "xml"]), "");
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("write text or json"), "{wrong:?}");
}

#[test]
fn a_terminal_gets_colours_unless_it_wants_none() {
    let (logged, told) = ("\x1b[34mDEBUG", "\x1b[31mError: ");
    for (no_color, coloured) in [(None, true), (Some("1"), false)] {
        let said = on_a_terminal(no_color);
        assert!(said.contains("disk is gone"), "{said:?}");
        for part in [logged, told] {
            assert_eq!(said.contains(part), coloured, "{said:?}");
        }
    }
}

/// What a run that fails prints on a terminal.
fn on_a_terminal(no_color: Option<&str>) -> String {
    let (mut terminal, inside) = pty_process::blocking::open().unwrap();
    // Nobody listens on port 1: one service waits until the other one has failed.
    let mut command = command(TROUBLES, ["run", "--broker", "amqp://127.0.0.1:1"]);
    command
        .args(["-d", "WEB_SERVER_ADDRESS=127.0.0.1:0"])
        .args(["-d", "disk_is_gone=true", "--log", "debug"])
        .env("TERM", "xterm")
        .env_remove("NO_COLOR");
    if let Some(value) = no_color {
        command.env("NO_COLOR", value);
    }
    let mut child = pty_process::blocking::Command::from(command)
        .spawn(inside)
        .unwrap();
    let mut said = Vec::new();
    // Ends with an error when the program, the last one that has the terminal open, ends.
    let _ = terminal.read_to_end(&mut said);
    assert_eq!(wait(&mut child).code(), Some(1));
    String::from_utf8(said).unwrap()
}
