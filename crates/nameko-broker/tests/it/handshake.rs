use amq_protocol::{
    frame::AMQPFrame,
    protocol::{AMQPClass, channel},
};
use lapin::{Connection, ConnectionProperties};

use crate::{
    peer::{Peer, encoded},
    support::*,
};

/// Returns the code and text with which a connection is refused.
async fn connect_error(uri: &str) -> (u16, String) {
    let error = with_timeout(Connection::connect(uri, ConnectionProperties::default()))
        .await
        .unwrap_err();
    refusal(&error)
}

#[tokio::test]
async fn wrong_credentials_or_virtual_hosts_are_refused_with_a_reason() {
    on_each_broker(|env| async move {
        let refused = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker logfile.";
        for wrong in ["guest:wrong@", "nobody:guest@"] {
            let uri = env.uri.replace("guest:guest@", wrong);
            assert_eq!(connect_error(&uri).await, (403, refused.to_owned()));
        }
        let uri = format!("{}/no-such-vhost", env.uri);
        assert_eq!(connect_error(&uri).await, (530, "NOT_ALLOWED - vhost no-such-vhost not found".to_owned()));
    })
    .await;
}

#[tokio::test]
async fn plain_and_amqplain_can_log_in() {
    on_each_broker(|env| async move {
        for mechanism in ["plain", "amqplain"] {
            let uri = format!("{}?auth_mechanism={mechanism}", env.uri);
            let connection =
                with_timeout(Connection::connect(&uri, ConnectionProperties::default()))
                    .await
                    .unwrap();
            connection.create_channel().await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn clients_may_negotiate_lower_limits() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let agreed = connection.configuration();
        assert_eq!(
            (agreed.frame_max(), agreed.channel_max(), agreed.heartbeat()),
            (131_072, 2047, 60)
        );
        let uri = format!("{}?frame_max=8192&channel_max=3&heartbeat=7", env.uri);
        let connection = with_timeout(Connection::connect(&uri, ConnectionProperties::default()))
            .await
            .unwrap();
        let agreed = connection.configuration();
        assert_eq!(
            (agreed.frame_max(), agreed.channel_max(), agreed.heartbeat()),
            (8192, 3, 7)
        );
        // Bodies are split according to the smaller frame size.
        let channel = confirm_channel(&connection).await;
        let queue = env.queue("q");
        channel.declare(&queue).await;
        let body = "x".repeat(100_000);
        channel.send("", &queue, &body).await;
        assert_eq!(channel.drain(&queue).await, [body]);
    })
    .await;
}

#[tokio::test]
async fn idle_connections_are_kept_alive_by_heartbeats() {
    on_each_broker(|env| async move {
        let mut peer = Peer::open(env.addr(), 2).await;
        // Brokers send a heartbeat once or twice per interval. Replying to six of them takes at
        // least three intervals, one more than a silent peer is given.
        for _ in 0..6 {
            assert_eq!(peer.frame().await, Some(AMQPFrame::Heartbeat));
            peer.write(&encoded(&AMQPFrame::Heartbeat)).await;
        }
        let open = channel::AMQPMethod::Open(channel::Open {});
        peer.method(1, AMQPClass::Channel(open)).await;
        loop {
            match peer.frame().await.expect("the connection was closed") {
                AMQPFrame::Heartbeat => {}
                AMQPFrame::Method(1, AMQPClass::Channel(channel::AMQPMethod::OpenOk(_))) => break,
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
}
