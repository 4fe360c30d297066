//! The configuration of services and clients.

use std::io::Write as _;

use nameko::amqp::{Login, Verify};
use nameko::config::{Config, ConfigError};
use serde_json::json;

fn config(text: &str) -> Config {
    Config::from_yaml(text, "config.yaml").expect(text)
}

#[test]
fn a_file_is_parsed() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all("\u{feff}AMQP_URI: amqp://rabbit\nmax_workers: 4\n".as_bytes())
        .expect("written");
    let config = Config::from_file(file.path()).expect("read");
    assert_eq!(config.amqp_uri(), Some("amqp://rabbit"));
    assert_eq!(config.int("max_workers").expect("a number"), Some(4));
    assert_eq!(config.int("absent").expect("nothing wrong"), None);
}

#[test]
fn an_unreadable_file_is_named_in_the_error() {
    let error = Config::from_file("/no/such/config.yaml").expect_err("no file");
    assert!(matches!(error, ConfigError::Read { .. }));
    let text = error.to_string();
    assert!(
        text.contains("/no/such/config.yaml") && text.contains("No such file"),
        "{text}"
    );
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(b"a: \xff").expect("written");
    assert!(
        Config::from_file(file.path())
            .expect_err("no text")
            .to_string()
            .contains("utf-8")
    );
}

#[test]
fn type_errors_have_the_key_the_position_and_the_expected_type() {
    let config = config("max_workers: ten\nAMQP_URI: 5672\nflag: 1\nrate: x\n");
    let message = |error: ConfigError| error.to_string();
    assert_eq!(
        message(config.int("max_workers").expect_err("text")),
        "config.yaml:1:14: max_workers must be a whole number, not the text \"ten\""
    );
    assert_eq!(
        message(config.str("AMQP_URI").expect_err("a number")),
        "config.yaml:2:11: AMQP_URI must be text, not the number 5672"
    );
    assert!(config.bool("flag").is_err() && config.float("rate").is_err());
    let set = Config::new().with("max_workers", 1.5);
    assert_eq!(
        message(set.int("max_workers").expect_err("a fraction")),
        "max_workers must be a whole number, not the number 1.5"
    );
}

#[test]
fn values_are_set_merged_and_defined() {
    let mut base = config("a: 1\nb: 2\n");
    let snapshot = base.clone();
    base.merge(&Config::new().with("b", "x").with("c", json!([1])));
    assert_eq!(
        base.values(),
        json!({"a": 1, "b": "x", "c": [1]})
            .as_object()
            .expect("an object")
    );
    assert_eq!(snapshot, config("a: 1\nb: 2\n"));
    let defined = |text: &str| Config::from_definition(text).expect(text);
    assert_eq!(defined("a=4").get("a"), Some(&json!(4)));
    assert_eq!(defined("a=b=c").get("a"), Some(&json!("b=c")));
    assert_eq!(defined("a=").get("a"), Some(&json!(null)));
    assert_eq!(
        defined("a={b: [x, 'y']}").get("a"),
        Some(&json!({"b": ["x", "y"]}))
    );
    assert_eq!(
        Config::from_definition("a").expect_err("no =").to_string(),
        "`a` does not define anything; write KEY=VALUE"
    );
    assert!(Config::from_definition("=1").is_err());
    assert!(Config::from_definition("a=[1").is_err());
}

#[test]
fn debug_output_redacts_values() {
    assert!(!format!("{:?}", config("AMQP_URI: amqp://me:secret@host")).contains("secret"));
}

#[test]
fn connection_options_come_from_the_known_keys() {
    let default = Config::new().connect_options().expect("defaults");
    assert_eq!(
        (
            default.uris[0].host.as_str(),
            default.uris[0].port,
            default.heartbeat
        ),
        ("localhost", 5672, 60)
    );
    assert!(default.tls.is_none() && default.login == Login::Plain);
    assert_eq!(default.product, "nameko");

    let options = config(
        "AMQP_URI: amqp://a:b@one:1/v;amqp://two\nHEARTBEAT: 5\nLOGIN_METHOD: EXTERNAL\n\
         AMQP_SSL: {ca_certs: ca.pem, certfile: c.pem, keyfile: k.pem, cert_reqs: 0}\n",
    )
    .connect_options()
    .expect("all known");
    assert_eq!(
        (
            options.uris.len(),
            options.uris[0].vhost.as_str(),
            options.heartbeat
        ),
        (2, "v", 5)
    );
    assert_eq!(options.login, Login::External);
    let tls = options.tls.expect("TLS");
    assert_eq!(
        (tls.verify, tls.ca_certs.expect("a file").to_str()),
        (Verify::None, Some("ca.pem"))
    );

    let options = config(
        "AMQP_URI: amqp://h?heartbeat=9&login_method=EXTERNAL&ssl=1&certfile=uri.pem&verify=verify_none\n\
         HEARTBEAT: 5\nLOGIN_METHOD: PLAIN\nAMQP_SSL: {cert_reqs: 2}\n",
    )
    .connect_options()
    .expect("all known");
    assert_eq!((options.heartbeat, options.login), (5, Login::Plain));
    let tls = options.tls.expect("TLS");
    assert_eq!(tls.verify, Verify::Required, "the configuration wins");
    assert_eq!(tls.certfile.expect("of the URI").to_str(), Some("uri.pem"));
    let plain = config("AMQP_URI: amqp://h?ssl=1&heartbeat=9\nAMQP_SSL: false\n")
        .connect_options()
        .expect("all known");
    assert_eq!((plain.tls, plain.heartbeat), (None, 9));

    assert_eq!(
        config("HEARTBEAT:")
            .connect_options()
            .expect("off")
            .heartbeat,
        0
    );
    let tls = |text: &str| config(text).connect_options().expect(text).tls;
    assert_eq!(tls("AMQP_SSL: true").expect("TLS").verify, Verify::Required);
    assert!(tls("AMQP_SSL: false").is_none() && tls("AMQP_SSL:").is_none());
}

#[test]
fn invalid_connection_options_are_errors() {
    let table = [
        (
            "AMQP_URI: http://x",
            "config.yaml:1:11: AMQP_URI is wrong: bad AMQP URI `http://x`",
        ),
        (
            "HEARTBEAT: -1",
            "config.yaml:1:12: HEARTBEAT must be from 0 to 65535 seconds, not -1",
        ),
        (
            "HEARTBEAT: x",
            "config.yaml:1:12: HEARTBEAT must be a whole number",
        ),
        (
            "LOGIN_METHOD: NTLM",
            "config.yaml:1:15: LOGIN_METHOD must be PLAIN, AMQPLAIN or EXTERNAL, not `NTLM`",
        ),
        (
            "AMQP_SSL: 1",
            "config.yaml:1:11: AMQP_SSL must be true, false or a mapping",
        ),
        (
            "AMQP_SSL: {cert_reqs: 7}",
            "config.yaml:1:11: AMQP_SSL has cert_reqs that must be 0 (CERT_NONE)",
        ),
        (
            "AMQP_SSL: {certfile: 1}",
            "config.yaml:1:11: AMQP_SSL has certfile that must be the path of a PEM file",
        ),
        (
            "AMQP_SSL: {cert: x}",
            "config.yaml:1:11: AMQP_SSL has the unknown option `cert`",
        ),
    ];
    for (text, expected) in table {
        let error = config(text).connect_options().expect_err(text).to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}
