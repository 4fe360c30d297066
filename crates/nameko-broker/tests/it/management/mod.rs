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

/// A virtual host of a broker with the API.
pub(super) struct Host {
    pub(super) api: Api,
    pub(super) vhost: String,
    /// AMQP, in the virtual host.
    pub(super) env: TestEnv,
    /// RabbitMQ's figures lag.
    pub(super) live: bool,
}

/// Runs a test on the embedded broker's API, and on that of the broker that `NAMEKO_TEST_AMQP_URI` names, at port 15672.
pub(super) async fn on_each_api<F: Future<Output = ()>>(test: impl Fn(Arc<Host>) -> F) {
    let builder = Broker::builder().management_port(0);
    let broker = builder.start("127.0.0.1:0").await.unwrap();
    println!("on the embedded broker");
    run(
        &broker.management_uri().unwrap(),
        &broker.uri(),
        true,
        &test,
    )
    .await;
    broker.stop().await;
    if let Ok(uri) = std::env::var("NAMEKO_TEST_AMQP_URI") {
        println!("on {uri}");
        let uri = uri.trim_end_matches('/');
        let (start, _) = uri.rsplit_once(':').unwrap();
        let management = format!("{}:15672", start.replacen("amqp:", "http:", 1));
        run(&management, uri, false, &test).await;
    }
}

async fn run<F: Future<Output = ()>>(
    management: &str,
    amqp: &str,
    live: bool,
    test: &impl Fn(Arc<Host>) -> F,
) {
    let api = Api::new(management);
    let vhost = format!("it-{}", Uuid::new_v4().simple());
    assert_eq!(api.put(&format!("vhosts/{vhost}"), "").await.status, 201);
    let env = TestEnv::new(format!("{amqp}/{vhost}"));
    let host = Arc::new(Host {
        api,
        vhost,
        env,
        live,
    });
    test(host.clone()).await;
    // A test may have deleted it.
    host.api.delete(&format!("vhosts/{}", host.vhost)).await;
}

impl Host {
    /// A path with the virtual host in the place of `V`.
    pub(super) fn path(&self, path: &str) -> String {
        path.replacen("/V", &format!("/{}", self.vhost), 1)
    }

    /// Asks; gives the status and what was answered, with this test's names made plain.
    pub(super) async fn request(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let reply = self.api.request(method, &self.path(path), "", body).await;
        let text = reply.json.to_string().replace(&self.vhost, "V");
        (reply.status, serde_json::from_str(&text).unwrap())
    }

    /// Checks the status, and those fields of the answer that are expected.
    pub(super) async fn expect(&self, request: (&str, &str, &str), expected: (u16, Value)) {
        let (status, json) = self.request(request.0, request.1, request.2).await;
        assert_eq!(status, expected.0, "{request:?}: {json}");
        assert!(
            holds(&json, &expected.1),
            "{request:?}: {json} for {}",
            expected.1
        );
    }
}

/// Whether an answer has the fields expected; it may have more. Blanks in texts do not count: RabbitMQ breaks long ones.
pub(super) fn holds(answer: &Value, expected: &Value) -> bool {
    match (answer, expected) {
        (Value::Object(answer), Value::Object(expected)) => expected
            .iter()
            .all(|(key, value)| answer.get(key).is_some_and(|it| holds(it, value))),
        (Value::Array(answer), Value::Array(expected)) => {
            answer.len() == expected.len() && answer.iter().zip(expected).all(|(a, e)| holds(a, e))
        }
        (Value::String(answer), Value::String(expected)) => {
            let bare = |text: &str| text.replace([' ', '\n'], "");
            bare(answer) == bare(expected)
        }
        _ => answer == expected,
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

pub(super) fn reading(count: u8, mode: &str) -> String {
    json!({"count": count, "ackmode": mode, "encoding": "auto"}).to_string()
}
