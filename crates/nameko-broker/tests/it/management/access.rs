use futures_util::StreamExt;
use lapin::Event;
use serde_json::{Value, json};

use super::*;

#[tokio::test]
async fn requests_are_authenticated_and_methods_checked() {
    on_each_api(|host| async move {
        let none = host.api.as_user(None).get("overview").await;
        assert_eq!((none.status, &none.json), (401, &Value::Null));
        let wrong = host.api.as_user(Some("guest:wrong")).get("overview").await;
        let reason = host.env.since_4("Not_Authorized", "Login failed");
        let expected = json!({"error": "not_authorized", "reason": reason});
        assert_eq!((wrong.status, &wrong.json), (401, &expected));
        let challenge = "www-authenticate: basic realm=\"rabbitmq management\"";
        assert!(none.head.contains(challenge), "{}", none.head);
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
async fn connections_are_listed_and_closed_with_a_reason() {
    on_each_api(|host| async move {
        let connection = host.env.connect().await;
        let channel = connection.create_channel().await.unwrap();
        channel.declare("q").await;
        let mut events = connection.events_listener();
        let mut found = Value::Null;
        // RabbitMQ lists a connection with a delay, and its state even later.
        wait_until("the connection is listed", || async {
            !host.request("GET", "vhosts/V/connections", "").await.1[0]["state"].is_null()
        })
        .await;
        found.clone_from(&host.request("GET", "vhosts/V/connections", "").await.1[0]);
        let expected = json!({
            "vhost": "V", "user": "guest", "protocol": "AMQP 0-9-1", "type": "network", "ssl": false, "state": "running",
            "auth_mechanism": "PLAIN", "channel_max": 2047, "frame_max": 131_072, "node": found["node"],
        });
        assert!(contains(&found, &expected), "{found}");
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
                    None => panic!("the connection ended without an error"),
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
