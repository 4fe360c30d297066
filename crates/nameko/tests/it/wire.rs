//! The wire format: messages match Nameko's bytes, and no message of a peer kills a service.

use nameko::{
    Cluster,
    amqp::{Properties, Queue, Table, Value},
    services,
};
use serde_json::{Value as Json, json};

use crate::{
    peer::{Peer, json_of},
    services::{ServiceY, Troubles},
    support,
};

#[tokio::test]
async fn a_reply_has_namekos_bytes() {
    let broker = support::broker().await;
    let runner = support::run(&services![ServiceY], &broker).await;
    let mut peer = Peer::new(&broker).await;

    let body = br#"{"args": ["\u00e9"], "kwargs": {}}"#;
    let reply = peer
        .ask("service_y.append_id", "application/json", body)
        .await;
    assert_eq!(&reply.body[..], br#"{"result": "\u00e9-y", "error": null}"#);
    assert_eq!(reply.routing_key, "peer");
    let properties = &reply.properties;
    assert_eq!(properties.content_type.as_deref(), Some("application/json"));
    assert_eq!(properties.content_encoding.as_deref(), Some("utf-8"));
    assert_eq!(properties.correlation_id.as_deref(), Some("the-id"));
    assert_eq!(
        (properties.delivery_mode, properties.priority),
        (Some(2), Some(0))
    );
    assert!(properties.headers.is_empty());

    let body = br#"{"args": [], "kwargs": {}}"#;
    let error = json_of(
        &peer
            .ask("service_y.append_id", "application/json", body)
            .await,
    );
    assert_eq!(
        error,
        json!({"result": null, "error": {
            "exc_type": "IncorrectSignature",
            "exc_path": "nameko.exceptions.IncorrectSignature",
            "exc_args": ["append_id() missing 1 required positional argument: 'value'"],
            "value": "append_id() missing 1 required positional argument: 'value'",
        }})
    );
    runner.stop().await;
}

#[tokio::test]
async fn a_request_has_namekos_bytes() {
    let broker = support::broker().await;
    let mut requests = Peer::new(&broker).await;
    // The peer acts as a service: its queue is bound to the service's routing key.
    requests
        .channel
        .queue_bind("peer", "nameko-rpc", "stand_in.*", &Table::new())
        .await
        .unwrap();
    let data = [("language".to_owned(), Value::from("en"))];
    let cluster = Cluster::connect_with(&broker.config(), data.into_iter().collect())
        .await
        .unwrap();
    let stand_in = cluster.service("stand_in");
    let call =
        tokio::spawn(async move { stand_in.call::<Json>("hello", json!({"name": "é"})).await });

    let request = support::within("a request", requests.replies.recv())
        .await
        .unwrap();
    assert_eq!(
        &request.body[..],
        br#"{"args": [], "kwargs": {"name": "\u00e9"}}"#
    );
    assert_eq!(
        (&*request.exchange, request.routing_key.as_str()),
        ("nameko-rpc", "stand_in.hello")
    );
    let properties = &request.properties;
    assert_eq!(properties.content_type.as_deref(), Some("application/json"));
    assert_eq!(properties.content_encoding.as_deref(), Some("utf-8"));
    assert_eq!(
        (properties.delivery_mode, properties.priority),
        (Some(2), Some(0))
    );
    assert_eq!(
        properties.headers.get("nameko.language"),
        Some(&Value::from("en"))
    );
    let stack = properties
        .headers
        .get("nameko.call_id_stack")
        .unwrap()
        .as_list()
        .unwrap();
    assert!(
        stack[0]
            .as_str()
            .unwrap()
            .starts_with("standalone_rpc_proxy.call.")
    );
    assert_eq!(stack.len(), 1);

    let reply_to = properties.reply_to.clone().unwrap().into_owned();
    let answer = Properties {
        content_type: Some("application/json".into()),
        correlation_id: properties.correlation_id.clone(),
        ..Properties::default()
    };
    // Unknown keys are ignored; a falsy error counts as success.
    let body = br#"{"result": {"a": [1, 2.5]}, "error": {}, "traceback": "x"}"#;
    requests.send(&reply_to, answer, body).await;
    let result = support::within("the call's end", call)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(result, json!({"a": [1, 2.5]}));
    cluster.stop().await;
}

#[tokio::test]
async fn malformed_requests_are_answered_and_the_service_survives() {
    let broker = support::broker().await;
    let runner = support::run(&services![Troubles], &broker).await;
    let mut peer = Peer::new(&broker).await;

    const JSON: &str = "application/json";
    for (content_type, body, exc_type, value) in [
        (
            JSON,
            "{\"args\": []}",
            "MalformedRequest",
            "Message missing `args` or `kwargs`",
        ),
        (
            JSON,
            "{\"kwargs\": {}}",
            "MalformedRequest",
            "Message missing `args` or `kwargs`",
        ),
        (
            JSON,
            "[]",
            "MalformedRequest",
            "not an object with `args` and `kwargs`: it is a list",
        ),
        (
            JSON,
            "\"text\"",
            "MalformedRequest",
            "not an object with `args` and `kwargs`: it is text",
        ),
        (
            JSON,
            "null",
            "MalformedRequest",
            "not an object with `args` and `kwargs`: it is null",
        ),
        (JSON, "7", "MalformedRequest", "it is a number"),
        (JSON, "", "MalformedRequest", "empty"),
        (
            JSON,
            "{\"args\": [",
            "MalformedRequest",
            "request is not valid JSON",
        ),
        (
            JSON,
            "{\"args\": null, \"kwargs\": {}}",
            "IncorrectSignature",
            "`args`",
        ),
        (
            JSON,
            "{\"args\": [], \"kwargs\": []}",
            "IncorrectSignature",
            "`kwargs`",
        ),
        (
            "application/x-python-serialize",
            "\u{80}",
            "MalformedRequest",
            "content type",
        ),
    ] {
        let reply = json_of(
            &peer
                .ask("troubles.echo", content_type, body.as_bytes())
                .await,
        );
        assert_eq!(reply["result"], Json::Null, "{body}");
        assert_eq!(reply["error"]["exc_type"], exc_type, "{body}");
        let text = reply["error"]["value"].as_str().unwrap();
        assert!(text.contains(value), "{body}: {text}");
    }

    let unknown = json_of(&peer.ask("troubles.nothing", JSON, b"{}").await);
    assert_eq!(unknown["error"]["exc_type"], "MethodNotFound");
    assert_eq!(unknown["error"]["exc_args"], json!(["nothing"]));

    // As in Python, a string is iterated like a list.
    let echo = json_of(
        &peer
            .ask("troubles.echo", JSON, br#"{"args": "z", "kwargs": {}}"#)
            .await,
    );
    assert_eq!(echo["result"], "z");

    // Without `reply_to`, content type or body: acknowledged and ignored.
    peer.send("troubles.echo", Properties::default(), b"\xff")
        .await;
    let body = br#"{"args": [1], "kwargs": {}}"#;
    peer.send("troubles.echo", Properties::default(), body)
        .await;
    let echo = json_of(&peer.ask("troubles.echo", JSON, body).await);
    assert_eq!(echo["result"], 1);
    runner.stop().await;
    let left = peer
        .channel
        .queue_declare(&Queue::new("rpc-troubles"))
        .await
        .unwrap();
    assert_eq!(left.messages, 0);
}

#[tokio::test]
async fn a_reply_to_a_deleted_queue_is_dropped() {
    let broker = support::broker().await;
    let runner = support::run(&services![Troubles], &broker).await;
    let mut peer = Peer::new(&broker).await;
    let properties = Properties {
        content_type: Some("application/json".into()),
        reply_to: Some("nobody-there".into()),
        ..Properties::default()
    };
    let body = br#"{"args": [1], "kwargs": {}}"#;
    peer.send("troubles.echo", properties, body).await;
    let echo = json_of(&peer.ask("troubles.echo", "application/json", body).await);
    assert_eq!(echo["result"], 1);
    runner.stop().await;
    let left = peer
        .channel
        .queue_declare(&Queue::new("rpc-troubles"))
        .await
        .unwrap();
    assert_eq!(left.messages, 0);
}
