//! `run --workers`: supervised processes of one program, from the operator's view.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use nameko::{Cluster, Config};
use nameko_broker::Broker;

use crate::failures::{TROUBLES, call, rest, troubles};
use crate::program::{Program, command, run};

/// Calls the service until `count` processes have answered, and returns their ids.
async fn pids(broker: &Broker, count: usize) -> BTreeSet<u32> {
    let config = Config::new().with("AMQP_URI", broker.uri());
    let cluster = Cluster::connect(&config).await.unwrap();
    let front = cluster.service("front");
    let mut pids = BTreeSet::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    // The broker delivers round robin.
    while pids.len() < count {
        assert!(Instant::now() < deadline, "only {pids:?} answer");
        pids.insert(front.call::<u32>("pid", ()).await.unwrap());
    }
    cluster.stop().await;
    pids
}

fn is_running(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    status.is_ok_and(|status| !status.contains("State:\tZ"))
}

fn kill(pid: u32) {
    let killed = Command::new("kill")
        .args(["-KILL", &pid.to_string()])
        .status();
    assert!(killed.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_process_serves_and_a_dead_one_is_restarted() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let mut parent = Program::start(troubles(&broker, &["--workers", "3"]));
    parent.wait_for("ready at amqp://guest:********@");
    assert!(
        parent.seen.contains("3 processes; press Ctrl-C to stop"),
        "{}",
        parent.seen
    );
    let first = pids(&broker, 3).await;

    kill(*first.first().unwrap());
    let died = parent.wait_for("was killed by signal 9; restarting in ");
    let number = died
        .split("process ")
        .nth(1)
        .unwrap()
        .chars()
        .next()
        .unwrap();
    parent.wait_for(&format!("process {number} is ready"));
    let then = pids(&broker, 3).await;
    assert_eq!(first.intersection(&then).count(), 2, "{first:?}, {then:?}");

    // A process that exits because a service died is restarted too, and its log lines carry its
    // number. Its two services have a port each, and one of them serves the path.
    let listening = format!("[{number}] ");
    let lines = parent
        .seen
        .lines()
        .filter(|line| line.starts_with(&listening));
    let addresses = lines.filter_map(|line| line.split_once("listening on http://"));
    for (_, address) in addresses.collect::<Vec<_>>().into_iter().rev().take(2) {
        get(address.parse().unwrap(), "/die");
    }
    parent.wait_for(&format!("[{number}] Error: back was killed: disk is gone"));
    parent.wait_for(&format!(
        "process {number} exited with code 1; restarting in "
    ));
    parent.wait_for(&format!("process {number} is ready"));
    let then = pids(&broker, 3).await;

    parent.signal("TERM");
    parent.wait_for("stopped");
    assert_eq!(parent.wait(), Some(0));
    for pid in then {
        assert!(!is_running(pid), "{pid}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_kills_all_processes() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let mut parent = Program::start(troubles(
        &broker,
        &["--workers", "2", "-d", "stop_timeout=60"],
    ));
    parent.wait_for("ready at");
    let all = pids(&broker, 2).await;
    let _hanging = call(&broker, "front.hang");
    parent.wait_for("hanging");
    parent.signal("INT");
    parent.wait_for("shutting down (press Ctrl-C again to force)");
    parent.signal("TERM");
    assert_eq!(parent.wait(), Some(143));
    for pid in all {
        assert!(!is_running(pid), "{pid}");
    }
}

/// systemd signals every process of a unit.
#[tokio::test(flavor = "multi_thread")]
async fn a_signal_to_every_process_counts_once() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let mut command = troubles(&broker, &["--workers", "2", "-d", "stop_timeout=60"]);
    command.args(["--log-format", "json"]);
    let mut parent = Program::start(command);
    parent.wait_for("2 processes");
    let all = pids(&broker, 2).await;
    parent.signal("TERM");
    for pid in all {
        // It may have exited already.
        let _ = Command::new("kill")
            .args(["-TERM", &pid.to_string()])
            .status();
    }
    assert_eq!(parent.wait(), Some(0), "{}", rest(&mut parent));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_process_outlives_a_killed_supervisor() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let mut parent = Program::start(troubles(&broker, &["--workers", "2"]));
    parent.wait_for("ready at");
    pids(&broker, 2).await;
    parent.signal("KILL");
    let output = rest(&mut parent);
    for number in [1, 2] {
        let reports_it = |line: &str| {
            line.starts_with(&format!("[{number}] "))
                && line.contains("the supervisor process died: stopping")
        };
        assert!(output.lines().any(reports_it), "{number}: {output}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn run_exits_with_the_code_of_processes_that_cannot_start() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let ended = run(
        troubles(&broker, &["--workers", "2", "-d", "disk_is_gone=true"]),
        "",
    );
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for number in [1, 2] {
        let line = format!("[{number}] Error: back cannot start: dependency `_disk`: disk is gone");
        assert!(ended.stderr.contains(&line), "{ended:?}");
    }
    assert_eq!(
        ended.stderr.lines().last(),
        Some("Error: no process could start; the last one exited with code 1"),
        "{ended:?}"
    );

    // The supervisor itself reports an invalid configuration, once.
    let ended = run(
        troubles(&broker, &["--workers", "2", "-d", "max_workers=many"]),
        "",
    );
    assert_eq!(
        (ended.code, ended.stderr.lines().count()),
        (Some(1), 1),
        "{ended:?}"
    );
    let ended = run(troubles(&broker, &["--workers", "0"]), "");
    assert_eq!(ended.code, Some(2), "{ended:?}");
}

#[test]
fn a_signal_ends_the_wait_for_a_broker() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("amqp://{}", listener.local_addr().unwrap());
    drop(listener);
    let mut parent = Program::start(command(
        TROUBLES,
        ["run", "--workers", "2", "--broker", &uri],
    ));
    parent.wait_for("cannot connect");
    parent.signal("TERM");
    assert_eq!(parent.wait(), Some(0));
}

/// The kernel distributes the connections.
#[tokio::test(flavor = "multi_thread")]
async fn processes_share_the_http_port() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut parent = Program::start(troubles(
        &broker,
        &[
            "--workers",
            "2",
            "-d",
            &format!("WEB_SERVER_ADDRESS={address}"),
        ],
    ));
    parent.wait_for("ready at");
    let mut pids = BTreeSet::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    while pids.len() < 2 {
        assert!(Instant::now() < deadline, "only {pids:?} answer");
        let pid = get(address, "/pid");
        assert!(pid.parse::<u32>().is_ok(), "{pid}");
        pids.insert(pid);
    }
    parent.signal("TERM");
    assert_eq!(parent.wait(), Some(0));
}

/// Returns the last line of the response to a GET request, or nothing if the server died.
fn get(address: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let mut response = String::new();
    let _ = TcpStream::connect(address).and_then(|mut stream| {
        stream.write_all(request.as_bytes())?;
        stream.read_to_string(&mut response)
    });
    response.lines().last().unwrap_or_default().to_owned()
}
