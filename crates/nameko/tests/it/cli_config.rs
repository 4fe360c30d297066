//! The command `show-config`, and the sources of the configuration.

use std::io::Write as _;

use crate::NAMEKO;
use crate::program::{command, run};

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn show_config_prints_the_configuration_of_a_service() {
    // Upstream's own example.
    let file = file("\n        FOO: ${FOO:foobar}\n        BAR: ${BAR}\n    ");
    let mut command = command(NAMEKO, ["show-config", "--config"]);
    command
        .arg(file.path())
        .env("BAR", "[1,2,3]")
        .env_remove("FOO");
    let ended = run(command, "");
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(0), "BAR:\n- 1\n- 2\n- 3\nFOO: foobar\n"),
        "{ended:?}"
    );
}

#[test]
fn flags_override_the_file_and_the_file_overrides_the_environment() {
    let file = file("AMQP_URI: amqp://file\nmax_workers: 4\n");
    let uri = |arguments: &[&str], with_file: bool| {
        let mut command = command(NAMEKO, ["show-config"]);
        command
            .args(arguments)
            .env("AMQP_URI", "amqp://environment");
        if with_file {
            command.arg("--config").arg(file.path());
        }
        run(command, "").stdout
    };
    assert_eq!(uri(&[], false), "AMQP_URI: amqp://environment\n");
    assert_eq!(uri(&[], true), "AMQP_URI: amqp://file\nmax_workers: 4\n");
    assert_eq!(
        uri(&["--broker", "amqp://flag"], true),
        "AMQP_URI: amqp://flag\nmax_workers: 4\n"
    );
    let defined = uri(
        &[
            "--broker",
            "amqp://flag",
            "-d",
            "AMQP_URI=amqp://defined",
            "-d",
            "max_workers=5",
        ],
        true,
    );
    assert_eq!(defined, "AMQP_URI: amqp://defined\nmax_workers: 5\n");
}

/// A script may pass an empty variable.
#[test]
fn empty_values_are_ignored() {
    let shown = |text: &str, environment: &str| {
        let file = file(text);
        let mut command = command(NAMEKO, ["show-config", "--broker", "", "--config"]);
        command.arg(file.path()).env("AMQP_URI", environment);
        run(command, "").stdout
    };
    let from_environment = "AMQP_URI: amqp://environment\n";
    assert_eq!(shown("AMQP_URI:", "amqp://environment"), from_environment);
    assert_eq!(
        shown("AMQP_URI: ''", "amqp://environment"),
        from_environment
    );
    assert_eq!(
        shown("AMQP_URI: amqp://file", "amqp://environment"),
        "AMQP_URI: amqp://file\n"
    );
    assert_eq!(shown("a: 1", ""), "a: 1\n");
}

#[test]
fn configuration_errors_have_a_position() {
    let table = [
        ("a: [1", "2:1: this is not YAML"),
        (
            "AMQP_URI: 5672",
            "1:11: AMQP_URI must be text, not the number 5672",
        ),
    ];
    for (text, expected) in table {
        let file = file(text);
        let mut command = command(NAMEKO, ["call", "x.y", "--config"]);
        command.arg(file.path());
        let ended = run(command, "");
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let path = file.path().display();
        assert!(
            ended
                .stderr
                .starts_with(&format!("ConfigurationError: {path}:{expected}")),
            "{ended:?}"
        );
    }
    let ended = run(
        command(NAMEKO, ["show-config", "--config", "/no/such/file"]),
        "",
    );
    assert!(
        ended
            .stderr
            .contains("can't read the configuration file /no/such/file"),
        "{ended:?}"
    );
    let ended = run(command(NAMEKO, ["show-config", "-d", "nothing"]), "");
    assert!(ended.stderr.contains("write KEY=VALUE"), "{ended:?}");
}

#[test]
fn layers_are_merged_and_later_ones_win() {
    let base = file("smtp: {host: localhost, port: 25}\nhosts: [a, b]\n");
    let production = file("smtp: {host: mail.example.com}\nhosts: [c]\n");
    let mut command = command(NAMEKO, ["show-config"]);
    for layer in [&base, &production] {
        command.arg("--config").arg(layer.path());
    }
    command.args(["-d", "smtp.tls.verify=false", "-d", "a\\.b=1"]);
    let ended = run(command, "");
    let expected = "\
a.b: 1
hosts:
- c
smtp:
  host: mail.example.com
  port: 25
  tls:
    verify: false
";
    assert_eq!(
        (ended.stdout.as_str(), ended.stderr.as_str()),
        (expected, "")
    );
}

#[test]
fn an_unknown_key_is_reported_with_the_nearest_known_one() {
    let file = file("max_worker: 7\nsmtp: {}\n");
    let path = file.path().display().to_string();
    let expected = format!(
        "{path}:1:13: the unknown key `max_worker` has no effect; did you mean `max_workers`?"
    );
    let ended = run(command(NAMEKO, ["show-config", "--config", &path]), "");
    assert_eq!(ended.stdout, "max_worker: 7\nsmtp: {}\n");
    assert_eq!(ended.stderr, format!("warning: {expected}\n"));
    let call = [
        "call",
        "x.y",
        "--config",
        &path,
        "--broker",
        "amqp://127.0.0.1:1",
    ];
    let ended = run(command(NAMEKO, call), "");
    assert_eq!(ended.stderr.matches(&expected).count(), 1, "{ended:?}");
}
