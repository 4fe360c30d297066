//! WebSocket: requests and events as Nameko's clients and browsers expect them, and misbehaving
//! clients.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{LazyLock, Mutex},
};

use futures_util::{SinkExt, StreamExt};
use nameko::{
    Container,
    prelude::*,
    web::{
        self, WebSocketConnect, WebSocketDisconnect, WebSocketHandshake, WebSocketHub,
        WebSocketHubProvider,
    },
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Notify, broadcast},
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        Message,
        error::{Error as WsError, ProtocolError},
        protocol::frame::coding::CloseCode,
    },
};

use crate::{http_client, support::within};

/// Reports disconnected sockets and their channels.
static GONE: LazyLock<broadcast::Sender<(String, Vec<String>)>> =
    LazyLock::new(|| broadcast::Sender::new(256));

/// Returns the notifications of `test` for the start and the end of `Chat::hang`.
static HANGING: Mutex<Option<HashMap<String, &'static (Notify, Notify)>>> = Mutex::new(None);

fn hanging(test: &str) -> &'static (Notify, Notify) {
    let mut hanging = HANGING.lock().unwrap();
    hanging
        .get_or_insert_default()
        .entry(test.to_owned())
        .or_insert_with(|| Box::leak(Box::default()))
}

#[derive(Dependencies)]
struct Chat {
    #[dependency(WebSocketHubProvider::new())]
    hub: WebSocketHub,
}

#[service("chat")]
impl Chat {
    #[entrypoint(WebSocketConnect::new())]
    async fn connect(
        &self,
        socket_id: String,
        query: HashMap<String, String>,
        headers: HashMap<String, String>,
    ) -> Result<()> {
        if let Some(test) = query.get("hang") {
            let (begun, end) = hanging(test);
            begun.notify_one();
            end.notified().await;
            let room = query.get("at").map_or("", String::as_str);
            self.hub.broadcast(room, "met", &socket_id)?;
        }
        if query.get("token").is_some_and(|token| token != "right") {
            return Err(Error::raise("Unauthorized", "wrong token"));
        }
        if let Some(room) = query.get("room") {
            self.hub.subscribe(&socket_id, room)?;
            self.hub.unicast(&socket_id, "host", &headers["host"])?;
        }
        Ok(())
    }

    #[entrypoint(WebSocketDisconnect::new())]
    async fn disconnect(&self, socket_id: String, channels: Vec<String>) -> Result<()> {
        for channel in &channels {
            if let Some(test) = channel.strip_prefix("hang on ") {
                let (begun, end) = hanging(test);
                begun.notify_one();
                end.notified().await;
            }
            self.hub.broadcast(channel, "left", &socket_id)?;
        }
        // Fails after the end of the test.
        let _ = GONE.send((socket_id, channels));
        Ok(())
    }

    #[websocket_rpc]
    async fn subscribe(&self, socket_id: String, channel: String) -> Result<Vec<String>> {
        self.hub.subscribe(&socket_id, &channel)?;
        Ok(self.hub.get_subscriptions(&socket_id))
    }

    #[websocket_rpc]
    async fn unsubscribe(&self, socket_id: String, channel: String) -> Result<Vec<String>> {
        self.hub.unsubscribe(&socket_id, &channel);
        Ok(self.hub.get_subscriptions(&socket_id))
    }

    #[websocket_rpc]
    async fn subscribe_another(&self, _socket_id: String, other: String) -> Result<()> {
        self.hub.subscribe(&other, "x")
    }

    #[websocket_rpc]
    async fn say(&self, _socket_id: String, channel: String, text: String) -> Result<usize> {
        self.hub.broadcast(&channel, "said", &text)
    }

    #[websocket_rpc]
    async fn send_to(&self, _socket_id: String, target: String, value: Value) -> Result<bool> {
        self.hub.unicast(&target, "direct", &value)
    }

    #[websocket_rpc]
    async fn flood(&self, _socket_id: String, target: String, messages: usize) -> Result<bool> {
        let text = "x".repeat(1_000_000);
        (0..messages).try_fold(true, |all, _| {
            Ok(all & self.hub.unicast(&target, "direct", &text)?)
        })
    }

    #[websocket_rpc]
    async fn echo(&self, _socket_id: String, value: Value) -> Result<Value> {
        Ok(value)
    }

    #[websocket_rpc]
    async fn hang(&self, _socket_id: String, test: String) -> Result<String> {
        let (begun, end) = hanging(&test);
        begun.notify_one();
        end.notified().await;
        Ok(test)
    }

    #[websocket_rpc]
    async fn fail(&self, _socket_id: String) -> Result<()> {
        Err(Error::raise("NotFound", "no such thing"))
    }

    #[websocket_rpc]
    async fn panic(&self, _socket_id: String) -> Result<()> {
        panic!("out of cheese")
    }

    #[websocket_rpc]
    async fn unserializable(&self, _socket_id: String) -> Result<HashMap<(u8, u8), u8>> {
        Ok([((1, 2), 3)].into())
    }
}

/// The service under test.
struct Server {
    container: Container,
    addr: SocketAddr,
}

async fn serve(config: Config) -> Server {
    let config = config.with("WEB_SERVER_ADDRESS", "127.0.0.1:0");
    let container = Container::new::<Chat>(config).unwrap();
    within("the start", container.start()).await.unwrap();
    let addr = web::address(&container).unwrap();
    Server { container, addr }
}

impl Server {
    async fn connect(&self) -> Client {
        self.connect_to("/ws").await
    }

    async fn connect_to(&self, path: &str) -> Client {
        let tcp = TcpStream::connect(self.addr).await.unwrap();
        let url = format!("ws://{}{path}", self.addr);
        let (stream, _) = client_async(url, tcp).await.unwrap();
        let mut client = Client {
            stream,
            id: String::new(),
        };
        let greeting = client.next().await;
        assert_eq!(
            (&greeting["type"], &greeting["event"]),
            (&json!("event"), &json!("connected"))
        );
        client.id = greeting["data"]["socket_id"].as_str().unwrap().to_owned();
        client
    }
}

/// A client like `nameko.testing.websocket`.
struct Client {
    stream: WebSocketStream<TcpStream>,
    id: String,
}

impl Client {
    /// Returns the next message except pings.
    async fn receive(&mut self) -> Message {
        loop {
            let message = within("a message", self.stream.next())
                .await
                .unwrap()
                .unwrap();
            if !matches!(message, Message::Ping(_) | Message::Pong(_)) {
                return message;
            }
        }
    }

    async fn next(&mut self) -> Value {
        let message = self.receive().await;
        serde_json::from_str(message.to_text().unwrap()).unwrap()
    }

    async fn send(&mut self, text: impl Into<String>) {
        let text: String = text.into();
        self.stream.send(Message::text(text)).await.unwrap();
    }

    /// Sends a request and waits for its reply.
    async fn call(&mut self, method: &str, data: Value) -> Value {
        self.send(json!({"method": method, "data": data, "correlation_id": "c"}).to_string())
            .await;
        let reply = self.next().await;
        assert_eq!(
            (&reply["type"], &reply["correlation_id"]),
            (&json!("result"), &json!("c"))
        );
        reply
    }

    /// Waits for the close frame; returns its code and reason.
    async fn closed(&mut self) -> (CloseCode, String) {
        loop {
            if let Message::Close(frame) = self.receive().await {
                let frame = frame.unwrap();
                return (frame.code, frame.reason.to_string());
            }
        }
    }
}

#[tokio::test]
async fn a_reply_has_the_correlation_id_of_its_request() {
    let server = serve(Config::default()).await;
    let mut client = server.connect().await;
    assert!(uuid::Uuid::try_parse(&client.id).is_ok());
    let reply = client
        .call("echo", json!({"value": {"a": [1, "é", null]}}))
        .await;
    assert_eq!(
        reply,
        json!({"type": "result", "success": true, "data": {"a": [1, "é", null]}, "correlation_id": "c"})
    );
    // The id may have any value, or be missing.
    for id in ["{\"n\": [1]}", "null"] {
        client
            .send(format!(
                "{{\"method\": \"echo\", \"data\": {{\"value\": 1}}, \"correlation_id\": {id}}}"
            ))
            .await;
        let message = client.receive().await;
        assert_eq!(
            message.to_text().unwrap(),
            format!(
                "{{\"type\": \"result\", \"success\": true, \"data\": 1, \"correlation_id\": {id}}}"
            )
        );
    }
    server.container.stop().await;
}

#[tokio::test]
async fn errors_have_namekos_format() {
    let server = serve(Config::default()).await;
    let mut client = server.connect().await;
    for (method, data, exc_type, value) in [
        ("nothing", json!({}), "MethodNotFound", "nothing"),
        (
            "echo",
            json!({}),
            "IncorrectSignature",
            "echo() missing 1 required positional argument: 'value'",
        ),
        (
            "echo",
            json!({"value": 1, "more": 2}),
            "IncorrectSignature",
            "echo() got an unexpected keyword argument 'more'",
        ),
        (
            "echo",
            json!([1]),
            "IncorrectSignature",
            "`data` must be a mapping, not a list",
        ),
        (
            "echo",
            json!({"socket_id": "x", "value": 1}),
            "IncorrectSignature",
            "echo() got an unexpected keyword argument 'socket_id'",
        ),
        ("fail", json!({}), "NotFound", "no such thing"),
        ("panic", json!({}), "Panic", "out of cheese"),
        (
            "subscribe_another",
            json!({"other": "gone"}),
            "ConnectionNotFound",
            "gone",
        ),
    ] {
        let reply = client.call(method, data).await;
        assert_eq!(reply["success"], json!(false));
        assert_eq!(
            (
                reply["error"]["exc_type"].as_str(),
                reply["error"]["value"].as_str()
            ),
            (Some(exc_type), Some(value))
        );
    }
    let reply = client.call("unserializable", json!({})).await;
    assert_eq!(reply["error"]["exc_type"], "UnserializableValueError");
    server.container.stop().await;
}

#[tokio::test]
async fn a_malformed_request_is_answered_and_the_socket_stays_open() {
    let server = serve(Config::default()).await;
    let mut client = server.connect().await;
    for message in [
        Message::text("nonsense"),
        Message::text(""),
        Message::text("[]"),
        Message::text("{\"data\": {}, \"correlation_id\": 7}"),
        Message::binary(vec![0xff, 0xfe]),
    ] {
        client.stream.send(message).await.unwrap();
        let reply = client.next().await;
        assert_eq!(reply["error"]["exc_type"], "MalformedRequest");
        assert_eq!(reply["error"]["value"], "Invalid JSON data");
        assert_eq!(reply["correlation_id"], Value::Null);
    }
    // A request may be a binary message.
    let request = r#"{"method": "echo", "data": {"value": 1}}"#;
    client.stream.send(Message::binary(request)).await.unwrap();
    assert_eq!(client.next().await["data"], 1);
    // Deeply nested text does not close the socket.
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    for request in [
        format!("{{\"method\": \"echo\", \"data\": {{\"value\": 1}}, \"correlation_id\": {deep}}}"),
        format!("{{\"method\": \"echo\", \"data\": {{\"value\": {deep}}}}}"),
        format!("{{\"method\": {deep}}}"),
        deep.clone(),
    ] {
        client.send(request).await;
        let message = client.receive().await;
        assert!(
            message
                .to_text()
                .unwrap()
                .starts_with("{\"type\": \"result\", ")
        );
    }
    server.container.stop().await;
}

#[tokio::test]
async fn events_are_sent_to_subscribers() {
    let server = serve(Config::default()).await;
    let (mut one, mut two) = (server.connect().await, server.connect().await);
    let reply = one.call("subscribe", json!({"channel": "b"})).await;
    assert_eq!(reply["data"], json!(["b"]));
    let reply = one.call("subscribe", json!({"channel": "a"})).await;
    assert_eq!(reply["data"], json!(["a", "b"]));

    let reply = two.call("say", json!({"channel": "a", "text": "hi"})).await;
    assert_eq!(reply["data"], 1);
    assert_eq!(
        one.next().await,
        json!({"type": "event", "event": "said", "data": "hi"})
    );

    let reply = one.call("unsubscribe", json!({"channel": "a"})).await;
    assert_eq!(reply["data"], json!(["b"]));
    let reply = two.call("say", json!({"channel": "a", "text": "hi"})).await;
    assert_eq!(reply["data"], 0);

    let reply = two
        .call("send_to", json!({"target": one.id, "value": [1]}))
        .await;
    assert_eq!(reply["data"], true);
    assert_eq!(
        one.next().await,
        json!({"type": "event", "event": "direct", "data": [1]})
    );
    let reply = two
        .call("send_to", json!({"target": "nobody", "value": 1}))
        .await;
    assert_eq!(reply["data"], false);
    server.container.stop().await;
}

#[tokio::test]
async fn requests_of_one_socket_are_handled_in_sequence() {
    let server = serve(Config::default()).await;
    let (mut one, mut two) = (server.connect().await, server.connect().await);
    let (begun, end) = hanging("in turn");
    one.send(r#"{"method": "hang", "data": {"test": "in turn"}, "correlation_id": 1}"#)
        .await;
    one.send(r#"{"method": "echo", "data": {"value": 2}, "correlation_id": 2}"#)
        .await;
    within("the request", begun.notified()).await;
    // Other sockets are not blocked.
    assert_eq!(two.call("echo", json!({"value": 3})).await["data"], 3);
    end.notify_one();
    assert_eq!(one.next().await["correlation_id"], 1);
    assert_eq!(one.next().await["correlation_id"], 2);
    server.container.stop().await;
}

#[tokio::test]
async fn the_connect_hook_runs_and_may_refuse_the_socket() {
    let server = serve(Config::default()).await;
    let mut guest = server.connect_to("/ws?room=lobby&token=right").await;
    let host = server.addr.to_string();
    assert_eq!(
        guest.next().await,
        json!({"type": "event", "event": "host", "data": host})
    );
    assert_eq!(
        server
            .connect()
            .await
            .call("say", json!({"channel": "lobby", "text": "hi"}))
            .await["data"],
        1
    );

    let mut stranger = server.connect_to("/ws?token=wrong").await;
    assert_eq!(
        stranger.closed().await,
        (CloseCode::Policy, "wrong token".to_owned())
    );
    server.container.stop().await;
}

#[tokio::test]
async fn a_disconnected_socket_is_unsubscribed_and_the_others_are_notified() {
    let server = serve(Config::default()).await;
    let mut gone = GONE.subscribe();
    let mut stays = server.connect().await;
    stays.call("subscribe", json!({"channel": "room"})).await;
    for politely in [true, false] {
        let mut leaves = server.connect().await;
        leaves.call("subscribe", json!({"channel": "room"})).await;
        let id = leaves.id.clone();
        if politely {
            leaves.stream.close(None).await.unwrap();
        } else {
            drop(leaves);
        }
        let left = stays.next().await;
        assert_eq!(
            (&left["event"], &left["data"]),
            (&json!("left"), &json!(id))
        );
        loop {
            let (other, channels) = within("the hook", gone.recv()).await.unwrap();
            if other == id {
                assert_eq!(channels, ["room"]);
                break;
            }
        }
        let reply = stays
            .call("send_to", json!({"target": id, "value": 1}))
            .await;
        assert_eq!(reply["data"], false);
    }
    server.container.stop().await;
}

#[tokio::test]
async fn the_connection_closes_before_the_disconnect_hook_ends() {
    let server = serve(Config::default()).await;
    let mut client = server.connect().await;
    let (begun, end) = hanging("goodbye");
    let channel = json!({"channel": "hang on goodbye"});
    client.call("subscribe", channel).await;
    client.stream.close(None).await.unwrap();
    within("the hook", begun.notified()).await;
    let mut rest = Vec::new();
    let tcp = client.stream.get_mut();
    within("the end", tcp.read_to_end(&mut rest)).await.unwrap();
    end.notify_one();
    server.container.stop().await;
}

/// Otherwise the connect hook could register a socket after its disconnect hook.
#[tokio::test]
async fn the_disconnect_hook_runs_after_the_connect_hook() {
    let server = serve(Config::default()).await;
    let mut gone = GONE.subscribe();
    let mut watcher = server.connect().await;
    watcher.call("subscribe", json!({"channel": "door"})).await;
    let (begun, end) = hanging("met");
    let guest = server.connect_to("/ws?hang=met&at=door").await;
    within("the hook", begun.notified()).await;
    let id = guest.id.clone();
    drop(guest);
    let vanished = async {
        while watcher
            .call("send_to", json!({"target": id, "value": 1}))
            .await["data"]
            == true
        {}
    };
    within("the guest's end", vanished).await;
    // Round trips, during which the other hook would run.
    for _ in 0..20 {
        watcher.call("echo", json!({"value": 1})).await;
    }
    while let Ok((other, _)) = gone.try_recv() {
        assert_ne!(other, id, "gone before it was met");
    }
    end.notify_one();
    assert_eq!(watcher.next().await["data"], json!(id));
    while within("the hook", gone.recv()).await.unwrap().0 != id {}
    server.container.stop().await;
}

/// The worker still runs to its end, as in Nameko.
#[tokio::test]
async fn a_socket_may_disconnect_during_its_request() {
    let server = serve(Config::default()).await;
    let mut client = server.connect().await;
    let (begun, end) = hanging("vanished");
    client
        .send(r#"{"method": "hang", "data": {"test": "vanished"}}"#)
        .await;
    within("the request", begun.notified()).await;
    drop(client);
    end.notify_one();
    let mut other = server.connect().await;
    assert_eq!(other.call("echo", json!({"value": 1})).await["data"], 1);
    within("the stop", server.container.stop()).await;
}

/// A page that sends a message while closing does not wait for the reply.
#[tokio::test]
async fn pending_requests_are_handled_before_the_disconnect_hook() {
    let server = serve(Config::default()).await;
    let mut watcher = server.connect().await;
    for (test, politely) in [("leave politely", true), ("vanish", false)] {
        watcher.call("subscribe", json!({"channel": test})).await;
        let mut leaves = server.connect().await;
        leaves.call("subscribe", json!({"channel": test})).await;
        let (begun, end) = hanging(test);
        leaves
            .send(json!({"method": "hang", "data": {"test": test}}).to_string())
            .await;
        within("the request", begun.notified()).await;
        for n in 0..10 {
            let data = json!({"channel": test, "text": n.to_string()});
            leaves
                .send(json!({"method": "say", "data": data}).to_string())
                .await;
        }
        let id = leaves.id.clone();
        if politely {
            leaves.stream.close(None).await.unwrap();
        }
        // The messages are read before the close.
        leaves.stream.get_mut().shutdown().await.unwrap();
        end.notify_one();
        for n in 0..10 {
            let event = watcher.next().await;
            assert_eq!(
                (&event["event"], &event["data"]),
                (&json!("said"), &json!(n.to_string()))
            );
        }
        let left = watcher.next().await;
        assert_eq!(
            (&left["event"], &left["data"]),
            (&json!("left"), &json!(id))
        );
    }
    server.container.stop().await;
}

#[tokio::test]
async fn a_refused_socket_has_no_disconnect_hook() {
    let server = serve(Config::default()).await;
    let mut gone = GONE.subscribe();
    let mut watcher = server.connect().await;
    watcher.call("subscribe", json!({"channel": "gate"})).await;
    let (begun, end) = hanging("refused");
    let mut stranger = server
        .connect_to("/ws?hang=refused&at=gate&token=wrong")
        .await;
    within("the hook", begun.notified()).await;
    let data = json!({"channel": "gate", "text": "let me in"});
    stranger
        .send(json!({"method": "say", "data": data}).to_string())
        .await;
    let id = stranger.id.clone();
    drop(stranger);
    let vanished = async {
        while watcher
            .call("send_to", json!({"target": id, "value": 1}))
            .await["data"]
            == true
        {}
    };
    within("the stranger's end", vanished).await;
    end.notify_one();
    assert_eq!(watcher.next().await["event"], "met");
    while within("the hook", gone.recv()).await.unwrap().0 != id {}
    // The reply arrives without an event before it.
    assert_eq!(watcher.call("echo", json!({"value": 1})).await["data"], 1);
    drop(watcher);
    server.container.stop().await;
}

#[tokio::test]
async fn an_oversized_message_closes_the_socket() {
    let server = serve(Config::default().with("WEBSOCKET_MAX_MESSAGE", 1000)).await;
    let mut client = server.connect().await;
    let text = "x".repeat(900);
    assert_eq!(
        client.call("echo", json!({"value": text})).await["data"],
        text
    );
    // The server stops reading, so the close frame may arrive before everything is sent.
    let _ = client.stream.send(Message::text("x".repeat(100_000))).await;
    assert_eq!(client.closed().await.0, CloseCode::Size);

    // The connection is not reset while most of the message is in transit.
    let mut client = server.connect().await;
    let long = Message::text("x".repeat(10_000_000));
    within("all to be sent", client.stream.send(long))
        .await
        .unwrap();
    assert_eq!(client.closed().await.0, CloseCode::Size);
    server.container.stop().await;
}

#[tokio::test]
async fn a_protocol_violation_closes_the_socket() {
    let server = serve(Config::default()).await;
    for frame in [
        // Invalid UTF-8, with a zero mask.
        &[0x81, 0x82, 0, 0, 0, 0, 0xff, 0xff][..],
        // No mask.
        &[0x81, 0x01, b'x'],
        // A reserved opcode.
        &[0x83, 0x80, 0, 0, 0, 0],
        // An invalid length.
        &[
            0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0,
        ],
    ] {
        let mut client = server.connect().await;
        let tcp = client.stream.get_mut();
        tcp.write_all(frame).await.unwrap();
        let (code, _) = client.closed().await;
        assert!(
            [CloseCode::Invalid, CloseCode::Protocol, CloseCode::Size].contains(&code),
            "{code:?}"
        );
    }
    server.container.stop().await;
}

#[tokio::test]
async fn a_slow_reader_is_closed_and_the_others_are_served() {
    let server = serve(Config::default().with("WEBSOCKET_MAX_QUEUE", 100_000)).await;
    let mut gone = GONE.subscribe();
    let (mut deaf, mut talker) = (server.connect().await, server.connect().await);
    deaf.call("subscribe", json!({"channel": "news"})).await;
    let text = "x".repeat(90_000);
    // The socket buffers hold more than the queue.
    let until_closed = async {
        while talker
            .call("say", json!({"channel": "news", "text": text}))
            .await["data"]
            == 1
        {}
    };
    within("the end of the deaf socket", until_closed).await;
    loop {
        let (id, _) = within("the hook", gone.recv()).await.unwrap();
        if id == deaf.id {
            break;
        }
    }
    server.container.stop().await;
}

/// Backpressure slows down a client that sends requests faster than they are handled.
#[tokio::test]
async fn a_flood_of_requests_is_answered_in_order() {
    let server = serve(Config::default()).await;
    let client = server.connect().await;
    let (mut sink, mut stream) = client.stream.split();
    let flood = tokio::spawn(async move {
        for n in 0..2000 {
            let request =
                json!({"method": "echo", "data": {"value": "x".repeat(2000)}, "correlation_id": n});
            sink.send(Message::text(request.to_string())).await.unwrap();
        }
        sink
    });
    for n in 0..2000 {
        let message = within("a reply", stream.next()).await.unwrap().unwrap();
        let reply: Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
        assert_eq!(
            (&reply["success"], &reply["correlation_id"]),
            (&json!(true), &json!(n))
        );
    }
    drop(flood.await.unwrap());
    server.container.stop().await;
}

#[tokio::test]
async fn pings_are_answered_and_a_silent_peer_is_disconnected() {
    let server = serve(Config::default().with("WEBSOCKET_PING_INTERVAL", 0.1)).await;
    let mut gone = GONE.subscribe();
    let mut client = server.connect().await;
    client
        .stream
        .send(Message::Ping("are you there".into()))
        .await
        .unwrap();
    loop {
        match within("the pong", client.stream.next())
            .await
            .unwrap()
            .unwrap()
        {
            Message::Pong(data) => break assert_eq!(&data[..], b"are you there"),
            other => assert!(other.is_ping(), "{other:?}"),
        }
    }
    // From here on the client neither reads nor responds.
    loop {
        let (id, _) = within("the hook", gone.recv()).await.unwrap();
        if id == client.id {
            break;
        }
    }
    server.container.stop().await;
}

#[tokio::test]
async fn stop_finishes_the_request_and_sends_a_close_frame() {
    let server = serve(Config::default()).await;
    let (mut idle, mut busy) = (server.connect().await, server.connect().await);
    let (begun, end) = hanging("stop");
    busy.send(r#"{"method": "hang", "data": {"test": "stop"}, "correlation_id": 1}"#)
        .await;
    within("the request", begun.notified()).await;
    let stop = tokio::spawn({
        let container = server.container.clone();
        async move { container.stop().await }
    });
    assert_eq!(
        idle.closed().await,
        (CloseCode::Away, "the service is stopping".to_owned())
    );
    assert!(!stop.is_finished());
    end.notify_one();
    assert_eq!(busy.next().await["data"], "stop");
    assert_eq!(busy.closed().await.0, CloseCode::Away);
    drop((idle, busy));
    within("the stop", stop).await.unwrap();
}

/// Exceeds the socket buffers, so that most of it waits in the service.
#[tokio::test]
async fn stop_flushes_pending_messages_and_closes_a_peer_that_is_still_sending() {
    let config = Config::default().with("WEBSOCKET_MAX_QUEUE", 50_000_000);
    let server = serve(config).await;
    let (client, mut talker) = (server.connect().await, server.connect().await);
    let (begun, end) = hanging("stop and send");
    let (mut sink, mut stream) = client.stream.split();
    let hang = json!({"method": "hang", "data": {"test": "stop and send"}});
    sink.send(Message::text(hang.to_string())).await.unwrap();
    within("the request", begun.notified()).await;
    let flood = json!({"target": client.id, "messages": 10});
    assert_eq!(talker.call("flood", flood).await["data"], true);
    // Exceeds the inbox.
    let talking = tokio::spawn(async move {
        let request = json!({"method": "echo", "data": {"value": "x".repeat(500_000)}}).to_string();
        for _ in 0..8 {
            // Sending after the close frame fails; a reset connection would be another error.
            match sink.send(Message::text(request.clone())).await {
                Err(WsError::Protocol(ProtocolError::SendAfterClosing)) => break,
                sent => sent.unwrap(),
            }
        }
        sink
    });
    let stop = tokio::spawn({
        let container = server.container.clone();
        async move { container.stop().await }
    });
    assert_eq!(talker.closed().await.0, CloseCode::Away);
    end.notify_one();
    let mut types = Vec::new();
    loop {
        match within("a message", stream.next()).await.unwrap().unwrap() {
            Message::Text(text) => types.push(text.contains("\"direct\"")),
            Message::Close(frame) => break assert_eq!(frame.unwrap().code, CloseCode::Away),
            _ => {}
        }
    }
    // Events first, then the reply.
    assert_eq!(types, [vec![true; 10], vec![false]].concat());
    drop((
        within("all to be sent", talking).await.unwrap(),
        stream,
        talker,
    ));
    within("the stop", stop).await.unwrap();
}

#[tokio::test]
async fn an_invalid_handshake_is_refused() {
    let server = serve(Config::default()).await;
    let upgrade = "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n";
    for (headers, status) in [
        (String::new(), "400"),
        (format!("{upgrade}Sec-WebSocket-Key: x\r\n"), "426"),
        (
            format!("{upgrade}Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: x\r\n"),
            "426",
        ),
        (format!("{upgrade}Sec-WebSocket-Version: 13\r\n"), "400"),
        (
            format!("{upgrade}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n"),
            "101",
        ),
    ] {
        let mut tcp = TcpStream::connect(server.addr).await.unwrap();
        let request = format!("GET /ws HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        within("the answer", tcp.read_exact(&mut answer))
            .await
            .unwrap();
        assert_eq!(&answer[9..], status.as_bytes(), "{headers}");
    }
    // Valid except for the request line or a body.
    let headers =
        format!("{upgrade}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\nHost: x\r\n");
    for (line, more) in [
        ("HEAD /ws HTTP/1.1", ""),
        ("GET /ws HTTP/1.0", ""),
        ("GET /ws HTTP/1.1", "Content-Length: 3\r\n"),
    ] {
        let mut client = http_client::Client::connect(server.addr).await;
        client.send(format!("{line}\r\n{headers}{more}\r\n")).await;
        assert_eq!(client.head().await.status, 400, "{line} {more}");
    }
    server.container.stop().await;
}

#[derive(Dependencies)]
struct Club {
    #[dependency(ContextData::new("member"))]
    member: Option<String>,
}

#[service("club")]
impl Club {
    #[entrypoint(WebSocketHandshake::new())]
    async fn admit(
        &self,
        query: HashMap<String, String>,
        headers: HashMap<String, String>,
    ) -> Result<HashMap<String, String>> {
        let token = headers.get("authorization").map(String::as_str);
        match token.or(query.get("token").map(String::as_str)) {
            Some("Bearer right" | "right") => Ok([("member".into(), "ada".into())].into()),
            Some("broken") => Err(Error::raise("ValueError", "no database")),
            Some(_) => Err(web::Error::forbidden("not a member").into()),
            None => Err(web::Error::unauthorized("Bearer", "a token is required").into()),
        }
    }

    #[entrypoint(WebSocketConnect::new())]
    async fn enter(&self, _socket_id: String) -> Result<()> {
        match self.member.as_deref() {
            Some("ada") => Ok(()),
            other => Err(Error::raise("ValueError", format!("{other:?} entered"))),
        }
    }

    #[websocket_rpc]
    async fn who_am_i(&self, _socket_id: String) -> Result<Option<String>> {
        Ok(self.member.clone())
    }
}

#[tokio::test]
async fn a_client_is_authenticated_in_the_handshake() {
    let (container, addr) = http_client::serve::<Club>(Config::default()).await;
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: x\r\n";
    for (path, header, status, body) in [
        ("/ws", "", 401, "Error: Unauthorized: a token is required\n"),
        (
            "/ws?token=wrong",
            "",
            403,
            "Error: Forbidden: not a member\n",
        ),
        (
            "/ws?token=broken",
            "",
            500,
            "Error: ValueError: no database\n",
        ),
        ("/ws?token=right", "", 101, ""),
        ("/ws", "Authorization: Bearer right\r\n", 101, ""),
    ] {
        let mut client = http_client::Client::connect(addr).await;
        client
            .send(format!(
                "GET {path} HTTP/1.1\r\nHost: x\r\n{header}{upgrade}\r\n"
            ))
            .await;
        let answer = client.answer().await;
        assert_eq!(answer.short(), (status, body), "{path} {header}");
        if status == 401 {
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
    }
    let server = Server { container, addr };
    let mut client = server.connect_to("/ws?token=right").await;
    let reply = client.call("who_am_i", json!({})).await;
    assert_eq!(reply["data"], "ada", "{reply}");
    server.container.stop().await;
}

#[tokio::test]
async fn handshakes_from_unlisted_origins_are_refused() {
    let origins = json!(["self", "https://shop.example"]);
    let server = serve(Config::default().with("WEBSOCKET_ORIGINS", origins)).await;
    let own = format!("Origin: http://{}\r\n", server.addr);
    for (origin, status) in [
        ("", 101),
        (own.as_str(), 101),
        ("Origin: https://shop.example\r\n", 101),
        ("Origin: https://evil.example\r\n", 403),
        ("Origin: null\r\n", 403),
    ] {
        let mut client = http_client::Client::connect(server.addr).await;
        let head = format!("GET /ws HTTP/1.1\r\nHost: {}\r\n{origin}", server.addr);
        let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n";
        client
            .send(format!("{head}{upgrade}Sec-WebSocket-Key: x\r\n\r\n"))
            .await;
        assert_eq!(client.head().await.status, status, "{origin}");
    }
    server.container.stop().await;

    let wrong = Config::default().with("WEBSOCKET_ORIGINS", "shop.example");
    let container = Container::new::<Chat>(wrong).unwrap();
    let error = container.start().await.unwrap_err().to_string();
    assert!(
        error.contains("WEBSOCKET_ORIGINS lists \"shop.example\", which is not an origin"),
        "{error}"
    );
}

#[test]
fn a_method_without_a_socket_id_is_an_error_at_construction() {
    #[derive(Dependencies)]
    struct Wrong;

    #[service("wrong")]
    impl Wrong {
        #[entrypoint(web::WebSocketConnect::new())]
        async fn met(&self, socket_id: String, cookies: String) -> Result<String> {
            Ok(socket_id + &cookies)
        }
    }

    let error = Container::new::<Wrong>(Config::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "wrong cannot start: entrypoint `websocket connect` of the method `met`: no value for the argument \
         `cookies`; available are: headers, query"
    );
}
