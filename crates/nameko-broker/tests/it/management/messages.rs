use serde_json::{Value, json};

use super::*;

#[tokio::test]
async fn messages_are_published_and_fetched() {
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
        host.expect(("POST", get, &get_request(5, "ack_requeue_true")), (200, json!([first, second]))).await;
        let again = json!([{"payload": "aMOp", "payload_encoding": "base64", "redelivered": true}]);
        let encoded = r#"{"count": 1, "ackmode": "reject_requeue_true", "encoding": "base64"}"#;
        host.expect(("POST", get, encoded), (200, again)).await;
        let cut = r#"{"count": "1", "ackmode": "ack_requeue_false", "encoding": "auto", "truncate": 1}"#;
        host.expect(("POST", get, cut), (200, json!([{"payload": "h", "payload_bytes": 3}]))).await;
        host.expect(("POST", get, &get_request(1, "reject_requeue_false")), (200, json!([second]))).await;
        host.expect(("POST", get, &get_request(1, "ack_requeue_true")), (200, json!([]))).await;
        host.expect(("POST", get, &get_request(0, "ack_requeue_true")), (200, json!([]))).await;
        let dead = json!([{"payload": "/wA=", "properties": {"headers": {"x-first-death-queue": "q"}}}]);
        host.expect(("POST", "queues/V/dead/get", &get_request(1, "ack_requeue_false")), (200, dead)).await;
    })
    .await;
}

#[tokio::test]
async fn invalid_publish_and_get_requests_are_refused() {
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
        ] {
            host.expect(("POST", to_default, &body), bad(reason)).await;
        }
        let none = host.env.since_4(
            (404, json!({"error": "not_found", "reason": "exchange_not_found"})),
            bad("404 NOT_FOUND - no exchange 'none' in vhost 'V'"),
        );
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
        let reason = host.env.since_4("queue_not_found", "NOT_FOUND - no queue 'none' in vhost 'V'");
        let none = (404, json!({"error": "not_found", "reason": reason}));
        host.expect(("POST", "queues/V/none/get", &get_request(1, "ack_requeue_true")), none).await;
    })
    .await;
}

#[tokio::test]
async fn published_messages_reach_consumers_at_once() {
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
