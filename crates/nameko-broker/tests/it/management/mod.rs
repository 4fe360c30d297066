mod access;
mod embedded;
mod exchanges;
mod http;
mod messages;
mod queues;
mod vhosts;

use std::sync::Arc;

use nameko_broker::Broker;
use serde_json::{Value, json};
use uuid::Uuid;

use self::http::Api;
use crate::support::*;

/// A virtual host of a broker with the management API.
pub(super) struct Host {
    pub(super) api: Api,
    pub(super) vhost: String,
    /// For AMQP connections to the virtual host.
    pub(super) env: TestEnv,
    /// Whether numbers are current; RabbitMQ's lag.
    pub(super) live: bool,
}

/// Runs a test on the embedded broker's API and, if `NAMEKO_TEST_AMQP_URI` is set, on that
/// RabbitMQ's, whose port is 10000 above the one of AMQP.
pub(super) async fn on_each_api<F: Future<Output = ()>>(test: impl Fn(Arc<Host>) -> F) {
    let builder = Broker::builder().management_port(0);
    let broker = builder.start("127.0.0.1:0").await.unwrap();
    println!("on the embedded broker");
    run(
        &broker.management_uri().unwrap(),
        &broker.uri(),
        None,
        &test,
    )
    .await;
    broker.stop().await;
    if let Ok(uri) = std::env::var("NAMEKO_TEST_AMQP_URI") {
        println!("on {uri}");
        let uri = uri.trim_end_matches('/');
        let (start, port) = uri.rsplit_once(':').unwrap();
        let port = 10_000 + port.parse::<u16>().unwrap();
        let management = format!("{}:{port}", start.replacen("amqp:", "http:", 1));
        run(&management, uri, Some(server_version(uri).await), &test).await;
    }
}

async fn run<F: Future<Output = ()>>(
    management: &str,
    amqp: &str,
    rabbitmq: Option<Version>,
    test: &impl Fn(Arc<Host>) -> F,
) {
    let api = Api::new(management);
    let vhost = format!("it-{}", Uuid::new_v4().simple());
    assert_eq!(api.put(&format!("vhosts/{vhost}"), "").await.status, 201);
    let mut env = TestEnv::new(format!("{amqp}/{vhost}"));
    if let Some(version) = rabbitmq {
        env = env.with_version(version);
    }
    let host = Arc::new(Host {
        api,
        vhost,
        env,
        live: rabbitmq.is_none(),
    });
    test(host.clone()).await;
    // The test may have deleted it.
    host.api.delete(&format!("vhosts/{}", host.vhost)).await;
}

impl Host {
    /// Replaces `V` in a path by the virtual host.
    pub(super) fn path(&self, path: &str) -> String {
        path.replacen("/V", &format!("/{}", self.vhost), 1)
    }

    /// Sends a request and returns status and body, with the virtual host's name replaced by `V`.
    pub(super) async fn request(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let reply = self.api.request(method, &self.path(path), "", body).await;
        let text = reply.json.to_string().replace(&self.vhost, "V");
        (reply.status, serde_json::from_str(&text).unwrap())
    }

    /// Sends a request and checks the status and the expected fields of the body.
    pub(super) async fn expect(&self, request: (&str, &str, &str), expected: (u16, Value)) {
        let (status, json) = self.request(request.0, request.1, request.2).await;
        assert_eq!(status, expected.0, "{request:?}: {json}");
        assert!(
            contains(&json, &expected.1),
            "{request:?}: {json} for {}",
            expected.1
        );
    }
}

/// Returns whether a body contains the expected fields. Ignores whitespace in texts, since RabbitMQ
/// wraps long ones.
pub(super) fn contains(actual: &Value, expected: &Value) -> bool {
    match (actual, expected) {
        (Value::Object(actual), Value::Object(expected)) => expected
            .iter()
            .all(|(key, value)| actual.get(key).is_some_and(|field| contains(field, value))),
        (Value::Array(actual), Value::Array(expected)) => {
            actual.len() == expected.len()
                && actual.iter().zip(expected).all(|(a, e)| contains(a, e))
        }
        (Value::String(actual), Value::String(expected)) => {
            let compact = |text: &str| text.replace([' ', '\n'], "");
            compact(actual) == compact(expected)
        }
        _ => actual == expected,
    }
}

pub(super) fn not_found() -> (u16, Value) {
    (
        404,
        json!({"error": "Object Not Found", "reason": "Not Found"}),
    )
}

pub(super) fn bad(reason: impl Into<Value>) -> (u16, Value) {
    (
        400,
        json!({"error": "bad_request", "reason": reason.into()}),
    )
}

pub(super) fn empty(status: u16) -> (u16, Value) {
    (status, Value::Null)
}

pub(super) fn refused() -> (u16, Value) {
    (
        401,
        json!({"error": "not_authorised", "reason": "Access refused."}),
    )
}

pub(super) fn message(key: &str, payload: &str) -> String {
    json!({"routing_key": key, "payload": payload, "payload_encoding": "string", "properties": {}})
        .to_string()
}

pub(super) fn get_request(count: u8, mode: &str) -> String {
    json!({"count": count, "ackmode": mode, "encoding": "auto"}).to_string()
}
