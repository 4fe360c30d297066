use nameko_broker::Broker;
use serde_json::json;

use super::{
    http::{Api, send_raw},
    message,
};
use crate::support::*;

#[tokio::test]
async fn requeue_field_of_rabbitmq_before_3_7_is_accepted() {
    let broker = with_api().await;
    let api = Api::new(&broker.management_uri().unwrap());
    api.put("queues/%2F/q", "{}").await;
    api.post("exchanges/%2F/amq.default/publish", message("q", "a"))
        .await;
    for (requeue, redelivered) in [(true, false), (true, true), (false, true)] {
        let read = api
            .post(
                "queues/%2F/q/get",
                json!({"count": 1, "encoding": "auto", "requeue": requeue}),
            )
            .await;
        assert_eq!(read.json[0]["redelivered"], redelivered, "{read:?}");
    }
    assert_eq!(api.get("queues/%2F/q").await.json["messages"], 0);
    let read = api
        .post("queues/%2F/q/get", json!({"count": 1, "encoding": "auto"}))
        .await;
    assert_eq!(
        (read.status, &read.json["reason"]),
        (400, &json!("[{key_missing,ackmode}]"))
    );
    broker.stop().await;
}

#[tokio::test]
async fn restricted_permissions_are_refused() {
    let broker = with_api().await;
    let api = Api::new(&broker.management_uri().unwrap());
    let less = json!({"configure": "^$", "write": ".*", "read": ".*"});
    let reply = api.put("permissions/%2F/guest", less).await;
    let reason = reply.json["reason"].as_str().unwrap();
    assert!(
        reply.status == 400 && reason.contains("use RabbitMQ for permissions"),
        "{reply:?}"
    );
    broker.stop().await;
}

#[tokio::test]
async fn virtual_hosts_added_from_rust_work_and_are_deleted_with_their_contents() {
    let broker = with_api().await;
    assert!(broker.add_vhost("a") && !broker.add_vhost("a"));
    let api = Api::new(&broker.management_uri().unwrap());
    // Expiry also works in virtual hosts added later.
    let short = json!({"arguments": {"x-message-ttl": 1, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "late"}});
    api.put("queues/a/q", short).await;
    api.put("queues/a/late", "{}").await;
    api.post("exchanges/a/amq.default/publish", message("q", "a"))
        .await;
    wait_until("the message expires", || async {
        api.get("queues/a/late").await.json["messages"] == 1
    })
    .await;
    assert!(broker.delete_vhost("a") && !broker.delete_vhost("a"));
    assert_eq!(api.get("queues/a/late").await.status, 404);
    with_timeout(broker.stop()).await;
}

#[tokio::test]
async fn garbage_requests_affect_only_their_own_connection() {
    let broker = with_api().await;
    let api = Api::new(&broker.management_uri().unwrap());
    let login = "Authorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n";
    let long = format!(
        "GET /api/overview HTTP/1.1\r\nX: {}\r\n\r\n",
        "x".repeat(1_000_000)
    );
    let large = format!(
        "PUT /api/queues/%2F/q HTTP/1.0\r\n{login}Content-Length: 30000000\r\n\r\n{}",
        "x".repeat(21_000_000)
    );
    for (garbage, status) in [
        ("\0\0\0\0\r\n\r\n", "400"),
        ("AMQP\0\0\u{9}\u{1}\r\n\r\n", "400"),
        (&*long, "431"),
        (&*large, "400"),
        (
            &format!(
                "PUT /api/queues/%2F/q HTTP/1.0\r\n{login}Content-Length: 2\r\n\r\n\u{1}\u{2}"
            ),
            "400",
        ),
        (
            &format!(
                "PUT /api/queues/%2F/q HTTP/1.0\r\n{login}Content-Length: 600\r\n\r\n{}",
                "[".repeat(600)
            ),
            "400",
        ),
        (
            &format!("GET /api/queues/%2F/%ff HTTP/1.0\r\n{login}\r\n"),
            "400",
        ),
        (&format!("GET /elsewhere HTTP/1.0\r\n{login}\r\n"), "404"),
    ] {
        let answer = with_timeout(send_raw(api.addr(), garbage.as_bytes())).await;
        let start = garbage.get(..60).unwrap_or(garbage);
        // If the connection is closed while the client sends, the response may be lost.
        assert!(
            answer.is_empty() || answer.split(' ').nth(1) == Some(status),
            "{start:?}: {answer:?}"
        );
        assert_eq!(api.get("overview").await.status, 200, "{start:?}");
    }
    // An idle connection does not prevent the broker from stopping.
    let _silent = tokio::net::TcpStream::connect(api.addr()).await.unwrap();
    with_timeout(broker.stop()).await;
    assert!(tokio::net::TcpStream::connect(api.addr()).await.is_err());
}

#[tokio::test]
async fn a_management_port_in_use_is_a_clear_error() {
    let broker = with_api().await;
    let port = broker.management_addr().unwrap().port();
    let again = Broker::builder()
        .management_port(port)
        .start("127.0.0.1:0")
        .await;
    let error = again.unwrap_err().to_string();
    assert!(
        error.contains(&format!("can't listen on port {port}")),
        "{error}"
    );
    broker.stop().await;
    let without = Broker::start("127.0.0.1:0").await.unwrap();
    assert_eq!(without.management_uri(), None);
    without.stop().await;
}

async fn with_api() -> Broker {
    let builder = Broker::builder().management_port(0);
    builder.start("127.0.0.1:0").await.unwrap()
}
