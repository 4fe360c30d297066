use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use futures_util::{Stream, StreamExt};
use lapin::{Connection, ConnectionProperties, Error, Event, options::*, types::FieldTable};
use nameko_broker::{Broker, BrokerError};

use crate::support::*;

#[tokio::test]
async fn stopping_closes_connections_and_frees_the_port() {
    let mut broker = Broker::start("127.0.0.1:0").await.unwrap();
    let addr = broker.addr();
    for _ in 0..3 {
        let env = TestEnv::new(broker.uri());
        let connection = env.connect().await;
        let events = connection.events_listener();
        let channel = confirm_channel(&connection).await;
        // Messages are lost on a restart.
        assert_eq!(channel.declare("q").await, 0);
        channel.send("", "q", "m").await;
        with_timeout(broker.stop()).await;
        assert!(tokio::net::TcpStream::connect(addr).await.is_err());
        let error = connection_error(events).await;
        let shutdown =
            "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'";
        assert_eq!(refusal(&error), (320, shutdown.to_owned()));
        broker = Broker::start(addr).await.unwrap();
    }
    with_timeout(broker.stop()).await;
}

#[tokio::test]
async fn dropping_the_broker_frees_the_port() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let addr = broker.addr();
    let mut client = tokio::net::TcpStream::connect(addr).await.unwrap();
    drop(broker);
    let mut rest = Vec::new();
    let _ = with_timeout(tokio::io::AsyncReadExt::read_to_end(&mut client, &mut rest)).await;
    wait_until("the port is free", || async {
        Broker::start(addr).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_port_in_use_is_a_clear_error() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let error = Broker::start(broker.addr()).await.unwrap_err();
    assert!(matches!(error, BrokerError::Listen { .. }));
    assert!(
        error.to_string().contains("is another one running there?"),
        "{error}"
    );
    broker.stop().await;
}

#[tokio::test]
async fn listens_on_every_address_at_one_port() {
    let loopbacks = [
        SocketAddr::from((Ipv6Addr::LOCALHOST, 0)),
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
    ];
    let broker = Broker::start(&loopbacks[..]).await.unwrap();
    let port = broker.addr().port();
    assert_eq!(
        broker.uri(),
        format!("amqp://guest:guest@127.0.0.1:{port}"),
        "IPv4 comes first"
    );
    for host in ["127.0.0.1", "[::1]"] {
        let env = TestEnv::new(format!("amqp://guest:guest@{host}:{port}"));
        env.connect().await;
    }
    let error = Broker::start(&broker.addrs()[1..]).await.unwrap_err();
    assert!(matches!(error, BrokerError::Listen { .. }));
    broker.stop().await;
}

#[tokio::test]
async fn clients_can_reconnect_and_find_their_queues() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let env = TestEnv::new(broker.uri());
    let connection = env.connect().await;
    let events = connection.events_listener();
    let channel = confirm_channel(&connection).await;
    let queue = env.queue("q");
    channel.declare(&queue).await;
    channel.send("", &queue, "kept").await;
    let held = channel.get(&queue).await.unwrap();
    with_timeout(broker.close_connections()).await;
    assert_eq!(broker.stats().connections, 0);
    let error = connection_error(events).await;
    assert_eq!(refusal(&error).0, 320);
    drop(held);
    let channel = env.connect().await.create_channel().await.unwrap();
    assert_eq!(channel.drain(&queue).await, ["kept"]);
    broker.stop().await;
}

#[tokio::test]
async fn stats_count_connections_channels_and_queues() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let env = TestEnv::new(broker.uri());
    let connection = env.connect().await;
    let channel = confirm_channel(&connection).await;
    channel.declare("q").await;
    channel.send("", "q", "a").await;
    channel.send("", "q", "b").await;
    channel
        .basic_qos(1, BasicQosOptions::default())
        .await
        .unwrap();
    let mut consumer = channel.consumer("q", "c").await;
    next(&mut consumer).await;
    let stats = broker.stats();
    assert_eq!(
        (stats.connections, stats.channels, stats.queues.len()),
        (1, 1, 1)
    );
    let queue = stats.queues[&("/".to_owned(), "q".to_owned())];
    assert_eq!((queue.messages, queue.unacked, queue.consumers), (1, 1, 1));
    connection.close(200, "".into()).await.unwrap();
    wait_until("the connection is closed", || async {
        broker.stats().connections == 0
    })
    .await;
    assert_eq!(broker.stats().channels, 0);
    broker.stop().await;
}

#[tokio::test]
async fn builder_settings_are_applied() {
    let broker = Broker::builder()
        .user("anna", "s/cr:t")
        .user("bob", "b")
        .vhost("one/two")
        .vhost("other")
        .max_message_size(1000)
        .channel_max(2)
        .heartbeat(0)
        .start("127.0.0.1:0")
        .await
        .unwrap();
    let uri = broker.uri();
    assert!(
        uri.starts_with("amqp://anna:s%2Fcr%3At@127.0.0.1:") && uri.ends_with("/one%2Ftwo"),
        "{uri}"
    );
    let env = TestEnv::new(uri);
    let connection = env.connect().await;
    let channel = confirm_channel(&connection).await;
    channel.declare("q").await;
    let big = vec![0; 1001];
    let sent = channel.basic_publish(
        "".into(),
        "q".into(),
        BasicPublishOptions::default(),
        &big,
        Default::default(),
    );
    let error = with_timeout(sent.await.unwrap()).await.unwrap_err();
    assert_eq!(
        refusal(&error),
        (
            406,
            "PRECONDITION_FAILED - message size 1001 is larger than configured max size 1000"
                .to_owned()
        )
    );
    // Virtual hosts are isolated from each other.
    let other = format!("amqp://bob:b@{}/other", broker.addr());
    let other = Connection::connect(&other, ConnectionProperties::default())
        .await
        .unwrap();
    let channel = other.create_channel().await.unwrap();
    let passive = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let error = channel
        .queue_declare("q".into(), passive, FieldTable::default())
        .await
        .unwrap_err();
    assert_eq!(refusal(&error).0, 404);
    broker.stop().await;
}

/// Returns the error that closed a connection.
async fn connection_error(events: impl Stream<Item = Event>) -> Error {
    let mut errors = std::pin::pin!(events.filter_map(|event| async {
        match event {
            Event::Error(error) => Some(error),
            _ => None,
        }
    }));
    with_timeout(errors.next())
        .await
        .expect("the connection got no error")
}
