use std::sync::Arc;

use futures_util::StreamExt;
use lapin::{Event, options::*, types::FieldTable};
use nameko_broker::Broker;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{http::Api, support::*};

/// A virtual host of a broker with the API.
struct Host {
    api: Api,
    vhost: String,
    /// AMQP, in the virtual host.
    env: TestEnv,
    /// RabbitMQ's figures lag.
    live: bool,
}

/// Runs a test on the embedded broker's API, and on that of the broker that `NAMEKO_TEST_AMQP_URI` names, at port 15672.
async fn on_each_api<F: Future<Output = ()>>(test: impl Fn(Arc<Host>) -> F) {
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
    fn path(&self, path: &str) -> String {
        path.replacen("/V", &format!("/{}", self.vhost), 1)
    }

    /// Asks; gives the status and what was answered, with this test's names made plain.
    async fn request(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let reply = self.api.request(method, &self.path(path), "", body).await;
        let text = reply.json.to_string().replace(&self.vhost, "V");
        (reply.status, serde_json::from_str(&text).unwrap())
    }

    /// Checks the status, and those fields of the answer that are expected.
    async fn expect(&self, request: (&str, &str, &str), expected: (u16, Value)) {
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
fn holds(answer: &Value, expected: &Value) -> bool {
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

fn not_found() -> (u16, Value) {
    (
        404,
        json!({"error": "Object Not Found", "reason": "Not Found"}),
    )
}

fn bad(reason: impl Into<Value>) -> (u16, Value) {
    (
        400,
        json!({"error": "bad_request", "reason": reason.into()}),
    )
}

fn empty(status: u16) -> (u16, Value) {
    (status, Value::Null)
}

fn refused() -> (u16, Value) {
    (
        401,
        json!({"error": "not_authorised", "reason": "Access refused."}),
    )
}

#[tokio::test]
async fn who_asks_is_checked() {
    on_each_api(|host| async move {
        let none = host.api.as_user(None).get("overview").await;
        assert_eq!((none.status, &none.json), (401, &Value::Null));
        let wrong = host.api.as_user(Some("guest:wrong")).get("overview").await;
        let told = json!({"error": "not_authorized", "reason": "Login failed"});
        assert_eq!((wrong.status, &wrong.json), (401, &told));
        for reply in [none, wrong] {
            let challenge = "www-authenticate: basic realm=\"rabbitmq management\"";
            assert!(reply.head.contains(challenge), "{}", reply.head);
        }
        host.expect(
            ("GET", "whoami", ""),
            (200, json!({"name": "guest", "tags": ["administrator"]})),
        )
        .await;
        host.expect(("GET", "users/guest", ""), (200, json!({"name": "guest"})))
            .await;
        host.expect(("GET", "users/nobody", ""), not_found()).await;
        for (method, path, allowed) in [
            ("OPTIONS", "overview", "head, get, options"),
            ("POST", "overview", "head, get, options"),
            ("POST", "queues/V/q", "head, get, put, delete, options"),
            ("GET", "queues/V/q/get", "post, options"),
        ] {
            let reply = host.api.request(method, &host.path(path), "", "").await;
            let status = if method == "OPTIONS" { 200 } else { 405 };
            assert_eq!(reply.status, status, "{method} {path}");
            assert!(
                reply.head.contains(&format!("allow: {allowed}")),
                "{}",
                reply.head
            );
        }
        host.expect(("GET", "nothing", ""), not_found()).await;
        let overview = host.request("GET", "overview", "").await.1;
        for field in [
            "management_version",
            "rabbitmq_version",
            "node",
            "cluster_name",
            "object_totals",
            "exchange_types",
        ] {
            assert!(overview.get(field).is_some(), "{field} in {overview}");
        }
    })
    .await;
}

#[tokio::test]
async fn virtual_hosts_come_and_go() {
    on_each_api(|host| async move {
        host.expect(
            ("GET", "vhosts/V", ""),
            (200, json!({"name": "V", "tracing": false, "tags": []})),
        )
        .await;
        host.expect(("PUT", "vhosts/V", "{}"), empty(204)).await;
        host.expect(("PUT", "vhosts/V", "no"), bad("not_json"))
            .await;
        let all = host.request("GET", "vhosts", "").await.1;
        let names: Vec<&Value> = all
            .as_array()
            .unwrap()
            .iter()
            .map(|it| &it["name"])
            .collect();
        assert!(
            names.contains(&&json!("/")) && names.contains(&&json!("V")),
            "{names:?}"
        );
        let everything =
            json!({"user": "guest", "vhost": "V", "configure": ".*", "write": ".*", "read": ".*"});
        let permissions = r#"{"configure": ".*", "read": ".*", "write": ".*"}"#;
        host.expect(("PUT", "permissions/V/guest", permissions), empty(204))
            .await;
        host.expect(
            ("GET", "permissions/V/guest", ""),
            (200, everything.clone()),
        )
        .await;
        host.expect(
            ("GET", "vhosts/V/permissions", ""),
            (200, json!([everything])),
        )
        .await;
        host.expect(
            ("PUT", "permissions/V/nobody", permissions),
            bad("vhost_or_user_not_found"),
        )
        .await;
        host.expect(
            ("PUT", "permissions/nowhere/guest", permissions),
            bad("vhost_or_user_not_found"),
        )
        .await;
        let missing = bad("[{key_missing,write},{key_missing,read}]");
        host.expect(
            ("PUT", "permissions/V/guest", r#"{"configure": ".*"}"#),
            missing,
        )
        .await;
        host.expect(("GET", "permissions/V/nobody", ""), not_found())
            .await;
        host.expect(("DELETE", "vhosts/V", ""), empty(204)).await;
        host.expect(("DELETE", "vhosts/V", ""), not_found()).await;
        host.expect(("GET", "vhosts/V", ""), not_found()).await;
        for path in [
            "queues/V",
            "queues/V/q",
            "exchanges/V",
            "exchanges/V/x",
            "bindings/V",
            "consumers/V",
            "vhosts/V/connections",
            "vhosts/V/permissions",
        ] {
            host.expect(("GET", path, ""), not_found()).await;
        }
        let nowhere = (
            404,
            json!({"error": "not_found", "reason": "vhost_not_found"}),
        );
        for (method, path) in [
            ("PUT", "queues/V/q"),
            ("PUT", "exchanges/V/x"),
            ("POST", "bindings/V/e/x/q/q"),
        ] {
            host.expect((method, path, "{}"), nowhere.clone()).await;
        }
        host.expect(
            (
                "POST",
                "queues/V/q/get",
                r#"{"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}"#,
            ),
            refused(),
        )
        .await;
    })
    .await;
}

#[tokio::test]
async fn queues_are_declared_and_deleted() {
    on_each_api(|host| async move {
        let declared = r#"{"durable": true, "arguments": {"x-expires": 60000, "x-dead-letter-exchange": "d"}}"#;
        host.expect(("PUT", "queues/V/q", declared), empty(201)).await;
        host.expect(("PUT", "queues/V/q", declared), empty(204)).await;
        let other = bad("inequivalent arg 'x-expires' for queue 'q' in vhost 'V': received none but current is the value '60000' of type 'long'");
        host.expect(("PUT", "queues/V/q", r#"{"durable": true}"#), other).await;
        host.expect(("PUT", "queues/V/a%20b%2Fc", ""), empty(201)).await;
        host.expect(("PUT", "queues/V/t", r#"{"auto_delete": "true"}"#), empty(201)).await;
        let q = json!({
            "name": "q", "vhost": "V", "type": "classic", "durable": true, "auto_delete": false, "exclusive": false,
            "arguments": {"x-expires": 60000, "x-dead-letter-exchange": "d"},
        });
        host.expect(("GET", "queues/V/q", ""), (200, q.clone())).await;
        let names = json!([{"name": "a b/c", "durable": false}, q, {"name": "t", "auto_delete": true}]);
        host.expect(("GET", "queues/V", ""), (200, names)).await;
        for (body, reason) in [
            (r#"{"durable": 3}"#, json!(["not_boolean", 3])),
            ("[]", json!("not_json")),
            (r#"{"arguments": {"x-expires": "a"}}"#, json!("invalid arg 'x-expires' for queue 'w' in vhost 'V': \"expected integer, got longstr\"")),
            (r#"{"arguments": {"n": null}}"#, json!("null_not_allowed")),
        ] {
            host.expect(("PUT", "queues/V/w", body), bad(reason)).await;
        }
        host.expect(("PUT", "queues/V/amq.q", "{}"), refused()).await;
        let long = "q".repeat(300);
        host.expect(("PUT", &format!("queues/V/{long}"), "{}"), bad("queue should be less than 255 bytes, actually was 300\n")).await;
        for (path, expected) in [
            ("queues/V/q/contents", empty(204)),
            ("queues/V/q?if-unused=true", empty(204)),
            ("queues/V/q/contents", not_found()),
            ("queues/V/q", not_found()),
            ("queues/V/a%20b%2Fc/", empty(204)),
        ] {
            host.expect(("DELETE", path, ""), expected).await;
        }
        host.expect(("GET", "queues/V/q", ""), not_found()).await;
    })
    .await;
}

#[tokio::test]
async fn queues_in_use_are_told_of_and_kept() {
    on_each_api(|host| async move {
        let connection = host.env.connect().await;
        let channel = connection.create_channel().await.unwrap();
        channel.declare("q").await;
        let exclusive = QueueDeclareOptions {
            exclusive: true,
            ..QueueDeclareOptions::default()
        };
        let declared = channel.queue_declare("mine".into(), exclusive, FieldTable::default());
        declared.await.unwrap();
        let mut consumer = channel.consumer("q", "tag").await;
        let channel = confirm_channel(&connection).await;
        for body in ["one", "two"] {
            channel.send("", "q", body).await;
        }
        next(&mut consumer).await;
        next(&mut consumer).await;
        let in_use = bad("queue 'q' in vhost 'V' in use");
        host.expect(("DELETE", "queues/V/q?if-unused=true", ""), in_use).await;
        let locked = "cannot obtain exclusive access to locked queue 'mine' in vhost 'V'. It could be originally declared on \
                      another connection or the exclusive property value does not match that of the original declaration.";
        host.expect(("DELETE", "queues/V/mine", ""), bad(locked)).await;
        if !host.live {
            return;
        }
        let q = json!({
            "messages": 2, "messages_ready": 0, "messages_unacknowledged": 2, "message_bytes": 6, "consumers": 1,
            "consumer_details": [{"consumer_tag": "tag", "ack_required": true, "exclusive": false, "queue": {"name": "q"}}],
        });
        host.expect(("GET", "queues/V/q", ""), (200, q)).await;
        let name = host.request("GET", "vhosts/V/connections", "").await.1[0]["name"].clone();
        let mine = json!({"exclusive": true, "owner_pid_details": {"name": name}});
        host.expect(("GET", "queues/V/mine", ""), (200, mine)).await;
        let consumers = json!([{"consumer_tag": "tag", "channel_details": {"connection_name": name, "number": 1}}]);
        host.expect(("GET", "consumers/V", ""), (200, consumers)).await;
        let channels = json!([{"number": 1, "consumer_count": 1, "messages_unacknowledged": 2, "vhost": "V"}, {"number": 2}]);
        host.expect(("GET", "channels", ""), (200, channels)).await;
        let totals = json!({"object_totals": {"connections": 1, "channels": 2, "consumers": 1, "queues": 2}, "queue_totals": {"messages": 2}});
        host.expect(("GET", "overview", ""), (200, totals)).await;
    })
    .await;
}

#[tokio::test]
async fn exchanges_are_declared_and_deleted() {
    on_each_api(|host| async move {
        let standard: Vec<Value> = ["", "amq.direct", "amq.fanout", "amq.headers", "amq.match", "amq.rabbitmq.trace", "amq.topic"]
            .iter()
            .map(|name| json!({"name": name, "vhost": "V", "durable": true, "arguments": {}}))
            .collect();
        host.expect(("GET", "exchanges/V", ""), (200, standard.into())).await;
        let declared = r#"{"type": "topic", "durable": false, "arguments": {"alternate-exchange": "amq.fanout"}}"#;
        host.expect(("PUT", "exchanges/V/x", declared), empty(201)).await;
        host.expect(("PUT", "exchanges/V/x", declared), empty(204)).await;
        host.expect(("PUT", "exchanges/V/y", "{}"), empty(201)).await;
        let x = json!({
            "name": "x", "vhost": "V", "type": "topic", "durable": false, "auto_delete": false, "internal": false,
            "arguments": {"alternate-exchange": "amq.fanout"},
        });
        host.expect(("GET", "exchanges/V/x", ""), (200, x)).await;
        host.expect(("GET", "exchanges/V/y", ""), (200, json!({"type": "direct", "durable": false}))).await;
        host.expect(("GET", "exchanges/V/amq.default", ""), (200, json!({"name": "", "type": "direct"}))).await;
        host.expect(("PUT", "exchanges/V/y", r#"{"type": "odd"}"#), bad("unknown exchange type 'odd'")).await;
        let other = bad("inequivalent arg 'type' for exchange 'y' in vhost 'V': received 'fanout' but current is 'direct'");
        host.expect(("PUT", "exchanges/V/y", r#"{"type": "fanout"}"#), other).await;
        host.expect(("PUT", "exchanges/V/amq.x", "{}"), refused()).await;
        host.expect(("DELETE", "exchanges/V/x", ""), empty(204)).await;
        host.expect(("DELETE", "exchanges/V/x", ""), not_found()).await;
        host.expect(("GET", "exchanges/V/x", ""), not_found()).await;
        host.expect(("DELETE", "exchanges/V/amq.topic", ""), refused()).await;
    })
    .await;
}

#[tokio::test]
async fn bindings_are_made_and_deleted() {
    on_each_api(|host| async move {
        host.expect(("PUT", "exchanges/V/x", r#"{"type": "topic"}"#), empty(201)).await;
        host.expect(("PUT", "queues/V/q", "{}"), empty(201)).await;
        for (path, key, place) in [
            ("bindings/V/e/x/q/q", "a.b", "q/a.b"),
            ("bindings/V/e/x/q/q", "", "q/~"),
            ("bindings/V/e/x/q/q", "a ~", "q/a%2b%257e"),
            ("bindings/V/e/x/e/amq.topic", "z", "amq.topic/z"),
        ] {
            let reply = host.api.post(&host.path(path), json!({"routing_key": key})).await;
            assert_eq!(reply.status, 201, "{key}");
            let location = format!("location: {place}\r\n");
            assert!(format!("{}\r\n", reply.head).contains(&location), "{}", reply.head);
        }
        host.expect(("POST", "bindings/V/e/x/q/q", r#"{"routing_key": "a.c", "arguments": {"x": 1}}"#), empty(201)).await;
        let to_queue = |key: &str, name: &str| json!({"source": "x", "vhost": "V", "destination": "q", "destination_type": "queue", "routing_key": key, "arguments": {}, "properties_key": name});
        let with_arguments = json!({"source": "x", "destination": "q", "routing_key": "a.c", "arguments": {"x": 1}});
        let implicit = json!({"source": "", "vhost": "V", "destination": "q", "destination_type": "queue", "routing_key": "q", "properties_key": "q"});
        let to_exchange = json!({"source": "x", "destination": "amq.topic", "destination_type": "exchange", "routing_key": "z"});
        let own = [to_queue("", "~"), to_queue("a ~", "a+%7E"), to_queue("a.b", "a.b"), with_arguments];
        let with = |first: &[&Value]| Value::from(first.iter().copied().chain(&own).cloned().collect::<Vec<_>>());
        host.expect(("GET", "queues/V/q/bindings", ""), (200, with(&[&implicit]))).await;
        host.expect(("GET", "bindings/V/e/x/q/q", ""), (200, with(&[]))).await;
        host.expect(("GET", "bindings/V", ""), (200, with(&[&implicit, &to_exchange]))).await;
        host.expect(("GET", "exchanges/V/x/bindings/source", ""), (200, with(&[&to_exchange]))).await;
        host.expect(("GET", "exchanges/V/amq.topic/bindings/destination", ""), (200, json!([to_exchange]))).await;
        host.expect(("GET", "exchanges/V/amq.default/bindings/source", ""), (200, json!([implicit]))).await;
        host.expect(("GET", "bindings/V/e/x/q/none", ""), (200, json!([]))).await;
        host.expect(("GET", "bindings/V/e/x/q/q/a.b", ""), (200, own[2].clone())).await;
        host.expect(("DELETE", "bindings/V/e/x/q/q/a%2B%257E", ""), empty(204)).await;
        host.expect(("DELETE", "bindings/V/e/x/q/q/a.b", ""), empty(204)).await;
        host.expect(("DELETE", "bindings/V/e/x/q/q/a.b", ""), not_found()).await;
        host.expect(("GET", "bindings/V/e/x/q/q/a.b", ""), not_found()).await;
        let key = host.request("GET", "bindings/V/e/x/q/q", "").await.1[1]["properties_key"].clone();
        host.expect(("DELETE", &format!("bindings/V/e/x/q/q/{}", key.as_str().unwrap()), ""), empty(204)).await;
        let none = |text: &str| (404, json!({"error": "not_found", "reason": text}));
        host.expect(("POST", "bindings/V/e/none/q/q", "{}"), none("no exchange 'none' in vhost 'V'")).await;
        host.expect(("POST", "bindings/V/e/x/q/none", "{}"), none("no queue 'none' in vhost 'V'")).await;
    })
    .await;
}

pub(crate) fn message(key: &str, payload: &str) -> String {
    json!({"routing_key": key, "payload": payload, "payload_encoding": "string", "properties": {}})
        .to_string()
}

fn reading(count: u8, mode: &str) -> String {
    json!({"count": count, "ackmode": mode, "encoding": "auto"}).to_string()
}

#[tokio::test]
async fn messages_are_published_and_read() {
    on_each_api(|host| async move {
        host.expect(("PUT", "queues/V/dead", "{}"), empty(201)).await;
        let declared = r#"{"arguments": {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}}"#;
        host.expect(("PUT", "queues/V/q", declared), empty(201)).await;
        let to_default = "exchanges/V/amq.default/publish";
        let properties = json!({
            "content_type": "text/plain", "content_encoding": "utf-8", "headers": {"a": 1, "b": "x", "l": [1, true], "d": {"f": 1.5}},
            "delivery_mode": 2, "priority": 3, "correlation_id": "c", "reply_to": "r", "expiration": "60000",
            "message_id": "m", "timestamp": 123_456, "type": "t", "user_id": "guest", "app_id": "app", "cluster_id": "cl",
        });
        let whole = json!({"routing_key": "q", "payload": "hé", "payload_encoding": "string", "properties": properties});
        let bytes = json!({"routing_key": "q", "payload": "/wA=", "payload_encoding": "base64", "properties": {}});
        host.expect(("POST", to_default, &whole.to_string()), (200, json!({"routed": true}))).await;
        host.expect(("POST", to_default, &bytes.to_string()), (200, json!({"routed": true}))).await;
        host.expect(("POST", to_default, &message("nowhere", "")), (200, json!({"routed": false}))).await;
        let get = "queues/V/q/get";
        let first = json!({
            "payload": "hé", "payload_encoding": "string", "payload_bytes": 3, "properties": properties, "redelivered": false,
            "exchange": "", "routing_key": "q", "message_count": 1,
        });
        let second = json!({"payload": "/wA=", "payload_encoding": "base64", "payload_bytes": 2, "properties": [], "message_count": 0});
        host.expect(("POST", get, &reading(5, "ack_requeue_true")), (200, json!([first, second]))).await;
        let again = json!([{"payload": "aMOp", "payload_encoding": "base64", "redelivered": true}]);
        let encoded = r#"{"count": 1, "ackmode": "reject_requeue_true", "encoding": "base64"}"#;
        host.expect(("POST", get, encoded), (200, again)).await;
        let cut = r#"{"count": "1", "ackmode": "ack_requeue_false", "encoding": "auto", "truncate": 1}"#;
        host.expect(("POST", get, cut), (200, json!([{"payload": "h", "payload_bytes": 3}]))).await;
        host.expect(("POST", get, &reading(1, "reject_requeue_false")), (200, json!([second]))).await;
        host.expect(("POST", get, &reading(1, "ack_requeue_true")), (200, json!([]))).await;
        host.expect(("POST", get, &reading(0, "ack_requeue_true")), (200, json!([]))).await;
        let dead = json!([{"payload": "/wA=", "properties": {"headers": {"x-first-death-queue": "q"}}}]);
        host.expect(("POST", "queues/V/dead/get", &reading(1, "ack_requeue_false")), (200, dead)).await;
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_published_or_read_is_refused() {
    on_each_api(|host| async move {
        host.expect(("PUT", "queues/V/q", "{}"), empty(201)).await;
        let to_default = "exchanges/V/amq.default/publish";
        let with = |properties: Value| json!({"routing_key": "q", "payload": "a", "payload_encoding": "string", "properties": properties}).to_string();
        for (body, reason) in [
            (r#"{"routing_key": "q"}"#.to_owned(), json!("[{key_missing,properties},{key_missing,payload},{key_missing,payload_encoding}]")),
            (json!({"routing_key": "q", "payload": "!!", "payload_encoding": "base64", "properties": {}}).to_string(), json!(["not_base64", "!!"])),
            (json!({"routing_key": "q", "payload": "a", "payload_encoding": "rot13", "properties": {}}).to_string(), json!(["unsupported_encoding", "rot13"])),
            (json!({"routing_key": "q", "payload": {}, "payload_encoding": "string", "properties": {}}).to_string(), json!("payload_not_string")),
            (with(json!({"priority": "5"})), json!(["not_int", "priority"])),
            (with(json!({"headers": {"n": null}})), json!("null_not_allowed")),
            (with(json!({"user_id": "bob"})), json!("406 PRECONDITION_FAILED - user_id property set to 'bob' but authenticated user was 'guest'")),
            (with(json!({"expiration": "bob"})), json!("406 PRECONDITION_FAILED - invalid expiration 'bob': no_integer")),
            (with(json!({"delivery_mode": 7})), json!("406 PRECONDITION_FAILED - invalid message: {delivery_mode_unknown,7}")),
        ] {
            host.expect(("POST", to_default, &body), bad(reason)).await;
        }
        let none = bad("404 NOT_FOUND - no exchange 'none' in vhost 'V'");
        host.expect(("POST", "exchanges/V/none/publish", &message("q", "a")), none).await;
        let internal = bad("403 ACCESS_REFUSED - cannot publish to internal exchange 'amq.rabbitmq.trace' in vhost 'V'");
        host.expect(("POST", "exchanges/V/amq.rabbitmq.trace/publish", &message("q", "a")), internal).await;
        let get = "queues/V/q/get";
        for (body, reason) in [
            (r#"{"encoding": "auto", "ackmode": "ack_requeue_true"}"#, json!("[{key_missing,count}]")),
            (r#"{"count": "x", "encoding": "auto", "ackmode": "ack_requeue_true"}"#, json!(["not_integer", "x"])),
            (r#"{"count": 1, "encoding": "rot13", "ackmode": "ack_requeue_true"}"#, json!("Unsupported encoding. Please use auto or base64.")),
        ] {
            host.expect(("POST", get, body), bad(reason)).await;
        }
        let none = (404, json!({"error": "not_found", "reason": "NOT_FOUND - no queue 'none' in vhost 'V'"}));
        host.expect(("POST", "queues/V/none/get", &reading(1, "ack_requeue_true")), none).await;
    })
    .await;
}

#[tokio::test]
async fn a_closed_connection_is_told_why_and_gone() {
    on_each_api(|host| async move {
        let connection = host.env.connect().await;
        let channel = connection.create_channel().await.unwrap();
        channel.declare("q").await;
        let mut events = connection.events_listener();
        let mut found = Value::Null;
        // RabbitMQ lists a connection some time after it came, and tells its state later still.
        wait_until("the connection is listed", || async {
            !host.request("GET", "vhosts/V/connections", "").await.1[0]["state"].is_null()
        })
        .await;
        found.clone_from(&host.request("GET", "vhosts/V/connections", "").await.1[0]);
        let expected = json!({
            "vhost": "V", "user": "guest", "protocol": "AMQP 0-9-1", "type": "network", "ssl": false, "state": "running",
            "auth_mechanism": "PLAIN", "channel_max": 2047, "frame_max": 131_072, "node": found["node"],
        });
        assert!(holds(&found, &expected), "{found}");
        let name = found["name"].as_str().unwrap();
        assert_eq!(name, format!("127.0.0.1:{} -> 127.0.0.1:{}", found["peer_port"], found["port"]));
        let path = format!("connections/{}", name.replace(' ', "%20").replace('>', "%3E"));
        host.expect(("GET", &path, ""), (200, json!({"name": name, "peer_host": "127.0.0.1"}))).await;
        let reply = host.api.request("DELETE", &path, "X-Reason: made room\r\n", "").await;
        assert_eq!((reply.status, reply.json), (204, Value::Null));
        let error = with_timeout(async {
            loop {
                match events.next().await {
                    Some(Event::Error(error)) => return error,
                    Some(_) => {}
                    None => panic!("the connection ended without a word"),
                }
            }
        })
        .await;
        assert_eq!(refusal(&error), (320, "CONNECTION_FORCED - made room".to_owned()));
        wait_until("the connection is no longer listed", || async {
            host.request("DELETE", &path, "").await == not_found()
        })
        .await;
        if host.live {
            host.expect(("GET", "connections", ""), (200, json!([]))).await;
        }
        host.expect(("DELETE", "connections/none", ""), not_found()).await;
    })
    .await;
}

#[tokio::test]
async fn a_deleted_virtual_host_cancels_its_consumers_and_closes_its_connections() {
    on_each_api(|host| async move {
        let connection = host.env.connect().await;
        let channel = connection.create_channel().await.unwrap();
        channel.declare("q").await;
        let mut consumer = channel.consumer("q", "tag").await;
        let mut events = connection.events_listener();
        host.expect(("DELETE", "vhosts/V", ""), empty(204)).await;
        // Ended by the cancel, not by an error.
        let ended = with_timeout(consumer.next()).await;
        assert!(ended.is_none(), "{ended:?}");
        let error = with_timeout(async {
            loop {
                match events.next().await {
                    Some(Event::Error(error)) => return error,
                    Some(_) => {}
                    None => panic!("the connection ended without a word"),
                }
            }
        })
        .await;
        // RabbitMQ says that it is down or that it is deleted, and may reset the connection before that is read.
        if host.live || matches!(error.kind(), lapin::ErrorKind::ProtocolError(_)) {
            let (code, text) = refusal(&error);
            let told = text
                .replace(&host.vhost, "V")
                .replace("is down", "is deleted");
            assert_eq!(
                (code, &*told),
                (320, "CONNECTION_FORCED - vhost 'V' is deleted")
            );
        }
        // One of the same name is another.
        host.expect(("PUT", "vhosts/V", ""), empty(201)).await;
        let connection = host.env.connect().await;
        let channel = connection.create_channel().await.unwrap();
        assert_eq!(channel.declare("q").await, 0);
        connection.close(200, "".into()).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn consumers_get_what_is_published_at_once() {
    on_each_api(|host| async move {
        let connection = host.env.connect().await;
        let channel = connection.create_channel().await.unwrap();
        channel.declare("q").await;
        let mut consumer = channel.consumer("q", "tag").await;
        host.expect(
            (
                "POST",
                "exchanges/V/amq.default/publish",
                &message("q", "hello"),
            ),
            (200, json!({"routed": true})),
        )
        .await;
        let delivery = next(&mut consumer).await;
        assert_eq!(body(&delivery), "hello");
        connection.close(200, "".into()).await.unwrap();
    })
    .await;
}
