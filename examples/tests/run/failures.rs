//! The output, exit codes and logs of `run` when services fail.

use std::io::Read as _;

use nameko::{Cluster, Config};
use nameko_broker::Broker;
use serde_json::Value;

use crate::program::{Program, command, run, wait};

pub(crate) const TROUBLES: &str = env!("CARGO_BIN_EXE_troubles");

/// Returns the command `run` on a broker, with web servers on free ports.
pub(crate) fn troubles(broker: &Broker, arguments: &[&str]) -> std::process::Command {
    let mut command = command(TROUBLES, ["run", "--broker", &broker.uri()]);
    command
        .args(["-d", "WEB_SERVER_ADDRESS=127.0.0.1:0"])
        .args(["-d", "stop_timeout=0"])
        .args(arguments);
    command
}

/// Calls a method from another process. Dropping the program ends a call without a reply.
pub(crate) fn call(broker: &Broker, method: &str) -> Program {
    let uri = broker.uri();
    Program::start(command(TROUBLES, ["call", "--broker", &uri, method]))
}

/// Returns all output, until the last process that writes any has ended.
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
async fn a_dying_service_stops_the_others_and_is_named_in_the_last_line() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let mut services = Program::start(troubles(&broker, &[]));
    services
        .wait_for("front: pid (rpc), fail (rpc), panic (rpc), hang (rpc), block (rpc), park (rpc), park_io_thread (rpc), get_pid (http GET /pid)");
    services.wait_for("ready at");
    let _call = call(&broker, "back.die");
    assert_eq!(services.wait(), Some(1));
    let output = rest(&mut services);
    assert_eq!(
        output.lines().last(),
        Some("Error: back was killed: disk is gone"),
        "{output}"
    );
    assert!(output.contains("stopping the other services"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_that_blocks_a_thread_does_not_prevent_the_exit() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let mut services = Program::start(troubles(&broker, &[]));
    services.wait_for("ready at");
    let _call = call(&broker, "front.block");
    services.wait_for("blocking");
    services.signal("TERM");
    services.wait_for("stopped");
    assert_eq!(services.wait(), Some(0));
}

/// Starts the services on one thread, and a call that blocks it.
async fn parked(broker: &Broker, arguments: &[&str]) -> (Program, Program) {
    let mut command = troubles(broker, arguments);
    command.env("TOKIO_WORKER_THREADS", "1");
    let mut services = Program::start(command);
    services.wait_for("ready at");
    let call = call(broker, "front.park");
    services.wait_for("parking");
    services.wait_for("front.park has blocked a thread of the runtime");
    (services, call)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_that_blocks_all_threads_is_named_and_signals_still_work() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let (mut services, _call) = parked(&broker, &["-d", "stop_timeout=1"]).await;
    services.signal("TERM");
    services.wait_for("methods still block all threads");
    assert_eq!(services.wait(), Some(0));

    // Another broker, since the first one delivers the request again.
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let (mut services, _call) = parked(&broker, &["-d", "stop_timeout=200"]).await;
    services.signal("TERM");
    services.wait_for("shutting down");
    services.signal("TERM");
    assert_eq!(services.wait(), Some(143));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_io_thread_does_not_prevent_a_graceful_stop() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let mut services = Program::start(troubles(&broker, &["-d", "stop_timeout=1"]));
    services.wait_for("ready at");
    let config = Config::new().with("AMQP_URI", broker.uri());
    let cluster = Cluster::connect(&config).await.unwrap();
    let calling = tokio::spawn(async move {
        let front = cluster.service("front");
        while front.call::<()>("park_io_thread", ()).await.is_ok() {}
    });
    services.wait_for("parking the I/O thread");
    services.signal("TERM");
    services.wait_for("stop_timeout");
    services.wait_for("stopped");
    assert_eq!(services.wait(), Some(0));
    calling.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_with_blocked_threads_does_not_outlive_its_supervisor() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let (mut parent, _call) = parked(&broker, &["--workers", "1"]).await;
    parent.signal("KILL");
    let output = rest(&mut parent);
    assert!(
        output.contains("the supervisor process died: stopping"),
        "{output}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_cannot_start_is_named_in_the_last_line() {
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
async fn log_lines_of_a_call_end_with_its_id() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let mut services = Program::start(troubles(&broker, &[]));
    services.wait_for("ready at");
    assert_eq!(call(&broker, "front.fail").wait(), Some(1));
    services.wait_for(
        " ERROR nameko::worker: error handling worker front.fail: ValueError: bad [front.fail.",
    );
}

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

    let output = rest(&mut services);
    let lines: Vec<Value> = output
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let with = |text: &str| {
        let with = |line: &&Value| {
            let message = line["message"].as_str();
            message.is_some_and(|message| message.contains(text))
        };
        lines
            .iter()
            .find(with)
            .unwrap_or_else(|| panic!("{text}: {output}"))
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
    assert_eq!(failed.get("spans"), None, "no enclosing spans: {failed}");
    assert!(with("panicked: out of cheese")["place"].is_string());
    with("front: pid (rpc)");
    assert_eq!(
        lines.last().unwrap()["message"],
        "Error: back was killed: disk is gone"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn log_options_override_the_environment_which_overrides_the_file() {
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
        "the output goes to the log, and LOG filters its progress lines"
    );
    assert!(stderr.starts_with('{') && stderr.contains(text), "{stderr}");
    assert_eq!(last(&[], Some("text")).1, text);
    assert_eq!(last(&["--log-format", "text"], Some("json")).1, text);
    let (_, stderr) = last(&["--log-format", "json"], Some("text"));
    assert!(stderr.starts_with('{'), "{stderr}");

    let failed = run(troubles(&broker, &["-d", "LOG_FORMAT=xml"]), "");
    assert!(
        failed
            .stderr
            .starts_with("ConfigurationError: LOG_FORMAT must be text or json"),
        "{failed:?}"
    );
    let failed = run(troubles(&broker, &["--log-format", "xml"]), "");
    assert_eq!(failed.code, Some(2));
    assert!(
        failed.stderr.contains("expected text or json"),
        "{failed:?}"
    );
}

#[test]
fn a_terminal_gets_colours_unless_no_color_is_set() {
    let (log, error) = ("\x1b[34mDEBUG", "\x1b[31mError: ");
    for (no_color, coloured) in [(None, true), (Some("1"), false)] {
        let output = on_a_terminal(no_color);
        assert!(output.contains("disk is gone"), "{output:?}");
        for part in [log, error] {
            assert_eq!(output.contains(part), coloured, "{output:?}");
        }
    }
}

/// Returns the terminal output of a failing `run`.
fn on_a_terminal(no_color: Option<&str>) -> String {
    let (mut terminal, inside) = pty_process::blocking::open().unwrap();
    // Nothing listens on port 1, so one service waits until the other has failed.
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
    let mut output = Vec::new();
    // Returns an error when the program exits, which has the terminal open.
    let _ = terminal.read_to_end(&mut output);
    assert_eq!(wait(&mut child).code(), Some(1));
    String::from_utf8(output).unwrap()
}
