use lapin::{BasicProperties, options::*, types::FieldTable};

use super::*;

#[tokio::test]
async fn rejected_messages_are_dead_lettered_with_their_history() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let (queue, dead) = with_dead_letters(&env, &channel, []).await;
        let properties = BasicProperties::default()
            .with_content_type("text/plain".into())
            .with_delivery_mode(2)
            .with_priority(3)
            .with_correlation_id("c".into())
            .with_headers(table([("mine", int(5))]));
        channel.send_with("", &queue, "m", properties.clone()).await;
        reject(&channel, &queue).await;
        let message = wait_for_message(&channel, &dead).await;
        assert_eq!(body(&message), "m");
        assert_eq!(
            (
                env.without_prefix(message.exchange.as_str()),
                env.without_prefix(message.routing_key.as_str())
            ),
            ("dlx".into(), "q".into())
        );
        assert_eq!(message.redelivered, env.since((4, 3)));
        assert_eq!(
            deaths(&env, &message),
            [death(1, "rejected", "q", "", &["q"])]
        );
        assert_eq!(first_death(&env, &message), ["rejected", "q", ""]);
        let headers = message.properties.headers().clone().unwrap();
        assert_eq!(headers.inner().get("mine"), Some(&int(5)));
        assert_eq!(
            message
                .properties
                .clone()
                .with_headers(FieldTable::default()),
            properties.with_headers(FieldTable::default())
        );
    })
    .await;
}

#[tokio::test]
async fn expired_messages_are_dead_lettered_without_expiration() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let (queue, dead) =
            with_dead_letters(&env, &channel, [("x-message-ttl", int(30_000))]).await;
        let expiring = |text: &str| BasicProperties::default().with_expiration(text.into());
        for time in ["20", "0"] {
            channel.send_with("", &queue, "m", expiring(time)).await;
            let message = wait_for_message(&channel, &dead).await;
            assert_eq!(*message.properties.expiration(), None);
            let expected = Death {
                expiration: Some(time.into()),
                ..death(1, "expired", "q", "", &["q"])
            };
            assert_eq!(deaths(&env, &message), [expected]);
            assert_eq!(first_death(&env, &message), ["expired", "q", ""]);
        }
        // Expiry by the queue's TTL records no `original-expiration`.
        let timed = env.queue("timed");
        let arguments = table([
            ("x-message-ttl", int(0)),
            ("x-dead-letter-exchange", text("")),
            ("x-dead-letter-routing-key", text(&dead)),
        ]);
        channel.declare_with(&timed, arguments).await;
        channel.send("", &timed, "m").await;
        let message = wait_for_message(&channel, &dead).await;
        assert_eq!(
            deaths(&env, &message),
            [death(1, "expired", "timed", "", &["timed"])]
        );
        assert_eq!(env.without_prefix(message.routing_key.as_str()), "dead");
    })
    .await;
}

#[tokio::test]
async fn messages_expiring_together_keep_their_order() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let (queue, dead) = with_dead_letters(&env, &channel, [("x-message-ttl", int(100))]).await;
        for body in ["a", "b", "c"] {
            channel.send("", &queue, body).await;
        }
        wait_until("all messages are dead-lettered", || async {
            channel.ready_count(&dead).await == 3
        })
        .await;
        assert_eq!(channel.drain(&dead).await, ["a", "b", "c"]);
    })
    .await;
}

#[tokio::test]
async fn full_queues_dead_letter_the_oldest_or_the_rejected_message() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let (queue, dead) = with_dead_letters(&env, &channel, [("x-max-length", int(1))]).await;
        for body in ["a", "b", "c"] {
            assert!(channel.send("", &queue, body).await.is_ack());
        }
        wait_until("two messages are dead-lettered", || async {
            channel.ready_count(&dead).await == 2
        })
        .await;
        let message = channel.get(&dead).await.unwrap();
        assert_eq!(body(&message), "a");
        assert_eq!(
            deaths(&env, &message),
            [death(1, "maxlen", "q", "", &["q"])]
        );
        assert_eq!(channel.drain(&dead).await, ["b"]);
        assert_eq!(channel.drain(&queue).await, ["c"]);
        let refusing = env.queue("refusing");
        let arguments = table([
            ("x-max-length", int(1)),
            ("x-overflow", text("reject-publish-dlx")),
            ("x-dead-letter-exchange", text("")),
            ("x-dead-letter-routing-key", text(&dead)),
        ]);
        channel.declare_with(&refusing, arguments).await;
        assert!(channel.send("", &refusing, "a").await.is_ack());
        assert!(channel.send("", &refusing, "b").await.is_nack());
        let message = wait_for_message(&channel, &dead).await;
        assert_eq!(body(&message), "b");
        assert_eq!(
            deaths(&env, &message),
            [death(1, "maxlen", "refusing", "", &["refusing"])]
        );
        assert_eq!(channel.drain(&refusing).await, ["a"]);
        // Without a dead-letter exchange, the rejected message is dropped.
        let plain = env.queue("plain");
        channel
            .declare_with(
                &plain,
                table([
                    ("x-max-length", int(1)),
                    ("x-overflow", text("reject-publish-dlx")),
                ]),
            )
            .await;
        assert!(channel.send("", &plain, "a").await.is_ack());
        assert!(channel.send("", &plain, "b").await.is_nack());
        assert_eq!(channel.drain(&plain).await, ["a"]);
    })
    .await;
}

#[tokio::test]
async fn acked_purged_and_deleted_messages_are_not_dead_lettered() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let (queue, dead) = with_dead_letters(&env, &channel, []).await;
        for body in ["acked", "requeued", "purged"] {
            channel.send("", &queue, body).await;
        }
        channel
            .get(&queue)
            .await
            .unwrap()
            .ack(BasicAckOptions::default())
            .await
            .unwrap();
        let again = BasicNackOptions {
            multiple: false,
            requeue: true,
        };
        channel
            .get(&queue)
            .await
            .unwrap()
            .nack(again)
            .await
            .unwrap();
        channel
            .queue_purge(queue.as_str().into(), QueuePurgeOptions::default())
            .await
            .unwrap();
        channel.send("", &queue, "deleted").await;
        channel
            .queue_delete(queue.as_str().into(), QueueDeleteOptions::default())
            .await
            .unwrap();
        assert_eq!(channel.ready_count(&dead).await, 0);
    })
    .await;
}

#[tokio::test]
async fn messages_rejected_together_keep_their_order() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let (queue, dead) = with_dead_letters(&env, &channel, []).await;
        let mut consumer = channel.consumer(&queue, "c").await;
        let mut last = None;
        for body in ["a", "b", "c"] {
            channel.send("", &queue, body).await;
            last = Some(next(&mut consumer).await);
        }
        last.unwrap()
            .nack(BasicNackOptions {
                multiple: true,
                requeue: false,
            })
            .await
            .unwrap();
        wait_until("all messages are dead-lettered", || async {
            channel.ready_count(&dead).await == 3
        })
        .await;
        assert_eq!(channel.drain(&dead).await, ["a", "b", "c"]);
    })
    .await;
}
