use serde_json::{Value, json};

use super::*;

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
async fn bindings_are_created_and_deleted() {
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
