use futures_util::StreamExt;
use lapin::Event;
use serde_json::{Value, json};

use super::*;

#[tokio::test]
async fn virtual_hosts_are_created_and_deleted() {
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
            .map(|vhost| &vhost["name"])
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
        let expected = host.env.since_4(nowhere, refused());
        let get = get_request(1, "ack_requeue_true");
        host.expect(("POST", "queues/V/q/get", &get), expected.clone())
            .await;
        let publish = "exchanges/V/amq.default/publish";
        host.expect(("POST", publish, &message("q", "a")), expected)
            .await;
    })
    .await;
}

#[tokio::test]
async fn deleting_a_virtual_host_cancels_its_consumers_and_closes_its_connections() {
    on_each_api(|host| async move {
        let connection = host.env.connect().await;
        let channel = connection.create_channel().await.unwrap();
        channel.declare("q").await;
        let mut consumer = channel.consumer("q", "tag").await;
        let mut events = connection.events_listener();
        host.expect(("DELETE", "vhosts/V", ""), empty(204)).await;
        // The stream ends after a cancel, without an error. RabbitMQ may reset the connection
        // first.
        let ended = with_timeout(consumer.next()).await;
        assert!(ended.is_none() || !host.live, "{ended:?}");
        let error = with_timeout(async {
            loop {
                match events.next().await {
                    Some(Event::Error(error)) => return error,
                    Some(_) => {}
                    None => panic!("the connection ended without an error"),
                }
            }
        })
        .await;
        // RabbitMQ reports that the virtual host is down or deleted.
        if host.live || matches!(error.kind(), lapin::ErrorKind::ProtocolError(_)) {
            let (code, text) = refusal(&error);
            let text = text
                .replace(&host.vhost, "V")
                .replace("is down", "is deleted");
            assert_eq!(
                (code, &*text),
                (320, "CONNECTION_FORCED - vhost 'V' is deleted")
            );
        }
        // A new virtual host of the same name is empty.
        host.expect(("PUT", "vhosts/V", ""), empty(201)).await;
        let connection = host.env.connect().await;
        let channel = connection.create_channel().await.unwrap();
        assert_eq!(channel.declare("q").await, 0);
        connection.close(200, "".into()).await.unwrap();
    })
    .await;
}
