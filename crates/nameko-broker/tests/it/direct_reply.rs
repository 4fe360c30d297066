use lapin::{BasicProperties, Channel, Consumer, options::*, types::FieldTable};

use crate::support::*;

/// The pseudo-queue of direct replies.
const REPLY_TO: &str = "amq.rabbitmq.reply-to";

const NO_ACK: BasicConsumeOptions = BasicConsumeOptions {
    no_local: false,
    no_ack: true,
    exclusive: false,
    nowait: false,
};

async fn replies(channel: &Channel, tag: &str) -> Consumer {
    let consumer =
        channel.basic_consume(REPLY_TO.into(), tag.into(), NO_ACK, FieldTable::default());
    with_timeout(consumer).await.unwrap()
}

fn request_properties() -> BasicProperties {
    BasicProperties::default()
        .with_reply_to(REPLY_TO.into())
        .with_correlation_id("c".into())
}

#[tokio::test]
async fn replies_go_straight_to_the_requesting_channel() {
    on_each_broker(|env| async move {
        let [client, server] = [env.connect().await, env.connect().await];
        let requester = confirm_channel(&client).await;
        let responder = confirm_channel(&server).await;
        let queue = env.queue("q");
        requester.declare(&queue).await;
        let mut received = replies(&requester, "r").await;
        for n in ["1", "2"] {
            requester
                .send_with("", &queue, "question", request_properties())
                .await;
            let request = responder.get(&queue).await.unwrap();
            let address = request.properties.reply_to().clone().unwrap();
            assert!(
                address.as_str().starts_with("amq.rabbitmq.reply-to."),
                "{address}"
            );
            assert_eq!(
                request.properties.clone().with_reply_to(REPLY_TO.into()),
                request_properties()
            );
            // A passive declaration reports whether the address has a consumer.
            assert_eq!(responder.ready_count(address.as_str()).await, 0);
            let properties = BasicProperties::default().with_correlation_id(n.into());
            let sent = responder
                .send_with("", address.as_str(), "answer", properties.clone())
                .await;
            // The address is not a queue, so the message counts as unroutable. It is one since
            // RabbitMQ 4.3.
            assert!(sent.is_ack());
            assert_eq!(sent.take_message().is_none(), env.since((4, 3)));
            let reply = next(&mut received).await;
            assert_eq!(
                (body(&reply), &reply.properties),
                ("answer".to_owned(), &properties)
            );
            assert_eq!(
                (
                    reply.exchange.as_str(),
                    reply.routing_key.as_str(),
                    reply.redelivered
                ),
                ("", address.as_str(), false)
            );
        }
    })
    .await;
}

#[tokio::test]
async fn addresses_end_with_the_consumer_or_channel() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let responder = confirm_channel(&connection).await;
        let queue = env.queue("q");
        responder.declare(&queue).await;
        for cancel in [true, false] {
            let requester = confirm_channel(&connection).await;
            let _came = replies(&requester, "r").await;
            requester
                .send_with("", &queue, "question", request_properties())
                .await;
            let address = responder
                .get(&queue)
                .await
                .unwrap()
                .properties
                .reply_to()
                .clone()
                .unwrap();
            if cancel {
                requester
                    .basic_cancel("r".into(), BasicCancelOptions::default())
                    .await
                    .unwrap();
                // A new consumer can be added.
                let _again = replies(&requester, "r").await;
            } else {
                requester.close(200, "".into()).await.unwrap();
            }
            responder.send("", address.as_str(), "lost").await;
            let observer = connection.create_channel().await.unwrap();
            let passive = QueueDeclareOptions {
                passive: true,
                ..QueueDeclareOptions::default()
            };
            let gone = with_timeout(observer.queue_declare(
                address.clone(),
                passive,
                FieldTable::default(),
            ))
            .await;
            let (code, text) = refusal(&gone.unwrap_err());
            assert_eq!(
                (code, text),
                (
                    404,
                    format!("NOT_FOUND - no queue '{address}' in vhost '/'")
                )
            );
        }
    })
    .await;
}

#[tokio::test]
async fn invalid_direct_reply_requests_are_refused() {
    on_each_broker(|env| async move {
        let failed = |error: lapin::Error| refusal(&error);
        let fresh = async || {
            let connection = env.connect().await;
            let channel = confirm_channel(&connection).await;
            (connection, channel)
        };
        let (_one, channel) = fresh().await;
        let acking = channel.basic_consume(
            REPLY_TO.into(),
            "r".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let error = failed(with_timeout(acking).await.unwrap_err());
        assert_eq!(
            error,
            (
                406,
                "PRECONDITION_FAILED - reply consumer cannot acknowledge".to_owned()
            )
        );
        let (_two, channel) = fresh().await;
        let _first = replies(&channel, "r").await;
        let second =
            channel.basic_consume(REPLY_TO.into(), "s".into(), NO_ACK, FieldTable::default());
        let error = failed(with_timeout(second).await.unwrap_err());
        assert_eq!(
            error,
            (
                406,
                "PRECONDITION_FAILED - reply consumer already set".to_owned()
            )
        );
        let (_three, channel) = fresh().await;
        let sent = channel.basic_publish(
            "".into(),
            "it-key".into(),
            BasicPublishOptions::default(),
            b"m",
            request_properties(),
        );
        let error = failed(
            with_timeout(with_timeout(sent).await.unwrap())
                .await
                .unwrap_err(),
        );
        assert_eq!(
            error,
            (
                406,
                "PRECONDITION_FAILED - fast reply consumer does not exist".to_owned()
            )
        );
        // The pseudo-queue itself always exists.
        let (_four, channel) = fresh().await;
        assert_eq!(channel.ready_count(REPLY_TO).await, 0);
    })
    .await;
}
