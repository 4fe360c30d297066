use lapin::{options::*, types::FieldTable};
use serde_json::json;

use super::*;

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
        let listed = host.request("GET", "queues/V/q", "").await.1;
        // Arguments that were not given: since RabbitMQ 4, the type of the queue.
        let arguments = listed["arguments"].as_object().unwrap().keys();
        let added: Vec<&String> = arguments.filter(|key| q["arguments"].get(key).is_none()).collect();
        assert_eq!(added, host.env.since_4(vec!["x-queue-type"], vec![]));
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
async fn queues_in_use_are_described_and_not_deleted() {
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
