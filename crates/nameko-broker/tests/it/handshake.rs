use lapin::{Connection, ConnectionProperties, options::*};

use crate::support::*;

/// What a connection with this URI is refused with.
async fn connect_error(uri: &str) -> (u16, String) {
    let error = with_timeout(Connection::connect(uri, ConnectionProperties::default()))
        .await
        .unwrap_err();
    refusal(&error)
}

#[tokio::test]
async fn a_wrong_password_user_or_vhost_is_refused_with_a_reason() {
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
async fn both_mechanisms_log_in() {
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
async fn what_was_agreed_on_is_what_the_broker_offers_or_less() {
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
        // A body is cut to the smaller frames too.
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
async fn a_quiet_connection_lives_on_heartbeats() {
    on_each_broker(|env| async move {
        let uri = format!("{}?heartbeat=2", env.uri);
        let connection = with_timeout(Connection::connect(&uri, ConnectionProperties::default()))
            .await
            .unwrap();
        let channel = connection.create_channel().await.unwrap();
        // Time itself is what is tested: three intervals, one more than a silent peer is given.
        tokio::time::sleep(std::time::Duration::from_secs(6)).await;
        channel
            .basic_qos(1, BasicQosOptions::default())
            .await
            .unwrap();
    })
    .await;
}
