use lapin::{
    BasicProperties, Channel,
    message::Delivery,
    options::*,
    types::{AMQPValue, FieldTable},
};

use crate::support::*;

const DURABLE: QueueDeclareOptions = QueueDeclareOptions {
    passive: false,
    durable: true,
    exclusive: false,
    auto_delete: false,
    nowait: false,
};

/// Since RabbitMQ 4.3, only `basic.reject` counts as a failed delivery, not `basic.nack`.
const REQUEUE: BasicRejectOptions = BasicRejectOptions { requeue: true };

fn quorum<const N: usize>(more: [(&str, AMQPValue); N]) -> FieldTable {
    let mut arguments = table(more);
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments
}

async fn declare<const N: usize>(
    env: &TestEnv,
    channel: &Channel,
    more: [(&str, AMQPValue); N],
) -> String {
    let queue = env.queue("q");
    with_timeout(channel.queue_declare(queue.as_str().into(), DURABLE, quorum(more)))
        .await
        .unwrap();
    queue
}

/// Returns the header `x-delivery-count`.
fn delivery_count(message: &Delivery) -> Option<i64> {
    match message
        .properties
        .headers()
        .as_ref()?
        .inner()
        .get("x-delivery-count")?
    {
        AMQPValue::LongLongInt(count) => Some(*count),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn redeliveries_carry_a_delivery_count() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let queue = declare(&env, &channel, []).await;
        let mut consumer = channel.consumer(&queue, "c").await;
        let properties = BasicProperties::default()
            .with_headers(table([("mine", int(1))]))
            .with_delivery_mode(2);
        channel.send_with("", &queue, "m", properties.clone()).await;
        for count in [None, Some(1), Some(2), Some(3)] {
            let delivery = next(&mut consumer).await;
            assert_eq!(
                (delivery_count(&delivery), delivery.redelivered),
                (count, count.is_some())
            );
            if count.is_none() {
                assert_eq!(delivery.properties, properties);
            } else {
                assert_eq!(
                    delivery
                        .properties
                        .headers()
                        .as_ref()
                        .unwrap()
                        .inner()
                        .get("mine"),
                    Some(&int(1))
                );
            }
            delivery.reject(REQUEUE).await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn messages_over_the_delivery_limit_are_dropped_or_dead_lettered() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let dead = env.queue("dead");
        channel.declare(&dead).await;
        let queue = declare(
            &env,
            &channel,
            [
                ("x-delivery-limit", int(2)),
                ("x-dead-letter-exchange", text("")),
                ("x-dead-letter-routing-key", text(&dead)),
            ],
        )
        .await;
        let mut consumer = channel.consumer(&queue, "c").await;
        channel.send("", &queue, "m").await;
        for _ in 0..3 {
            next(&mut consumer).await.reject(REQUEUE).await.unwrap();
        }
        wait_until("the message is dead-lettered", || async {
            channel.ready_count(&dead).await == 1
        })
        .await;
        let message = channel.get(&dead).await.unwrap();
        let headers = message.properties.headers().clone().unwrap();
        assert_eq!(
            headers.inner().get("x-first-death-reason"),
            Some(&text("delivery_limit"))
        );
        assert!(!headers.contains_key("x-delivery-count"), "{headers:?}");
        // Closing a channel also counts as returning its messages.
        let dropping = env.queue("dropping");
        with_timeout(channel.queue_declare(
            dropping.as_str().into(),
            DURABLE,
            quorum([("x-delivery-limit", int(0))]),
        ))
        .await
        .unwrap();
        channel.send("", &dropping, "m").await;
        let other = connection.create_channel().await.unwrap();
        let _held = next(&mut other.consumer(&dropping, "d").await).await;
        other.close(200, "".into()).await.unwrap();
        channel.send("", &dropping, "next").await;
        let mut rest = channel.consumer(&dropping, "rest").await;
        assert_eq!(body(&next(&mut rest).await), "next");
    })
    .await;
}

#[tokio::test]
async fn returned_messages_go_to_the_head_with_a_delivery_limit_and_else_to_the_tail() {
    on_each_broker(|env| async move {
        let head = ["b", "a", "c", "d"];
        // Since RabbitMQ 4.3, messages always return to the head.
        let tail = match env.since((4, 3)) {
            true => head,
            false => ["d", "b", "a", "c"],
        };
        // Since RabbitMQ 4, there is a limit by default, and -1 is unlimited.
        let unlimited = env.since_4(Some(-1), None);
        for (name, limit, order) in [
            ("limited", Some(5), head),
            ("default", None, env.since_4(head, tail)),
            ("unlimited", unlimited, tail),
        ] {
            let connection = env.connect().await;
            let channel = confirm_channel(&connection).await;
            let queue = env.queue(name);
            let arguments = limit.map_or(quorum([]), |limit| {
                quorum([("x-delivery-limit", int(limit))])
            });
            with_timeout(channel.queue_declare(queue.as_str().into(), DURABLE, arguments))
                .await
                .unwrap();
            for body in ["a", "b", "c", "d"] {
                channel.send("", &queue, body).await;
            }
            let reader = connection.create_channel().await.unwrap();
            reader
                .basic_qos(3, BasicQosOptions::default())
                .await
                .unwrap();
            let mut consumer = reader.consumer(&queue, "c").await;
            let held = [
                next(&mut consumer).await,
                next(&mut consumer).await,
                next(&mut consumer).await,
            ];
            reader
                .basic_cancel("c".into(), BasicCancelOptions::default())
                .await
                .unwrap();
            for index in [1, 0, 2] {
                held[index].reject(REQUEUE).await.unwrap();
            }
            wait_until("the messages are requeued", || async {
                channel.ready_count(&queue).await == 4
            })
            .await;
            let mut consumer = channel.consumer(&queue, "again").await;
            for expected in order {
                assert_eq!(body(&next(&mut consumer).await), expected);
            }
            // Messages requeued together keep their delivery order.
            with_timeout(channel.basic_recover(BasicRecoverOptions { requeue: true }))
                .await
                .unwrap();
            for expected in order {
                let delivery = next(&mut consumer).await;
                assert_eq!(
                    (body(&delivery), delivery.redelivered),
                    (expected.to_owned(), true)
                );
            }
            // On channel close, messages always return to the head.
            channel.send("", &queue, "e").await;
            connection.close(200, "".into()).await.unwrap();
            let connection = env.connect().await;
            let channel = connection.create_channel().await.unwrap();
            wait_until("the messages are requeued", || async {
                channel.ready_count(&queue).await == 5
            })
            .await;
            let mut consumer = channel.consumer(&queue, "last").await;
            for expected in order.into_iter().chain(["e"]) {
                assert_eq!(body(&next(&mut consumer).await), expected);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn the_default_delivery_limit_is_that_of_the_version() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let queue = declare(&env, &channel, []).await;
        let mut consumer = channel.consumer(&queue, "c").await;
        channel.send("", &queue, "m").await;
        for _ in 0..=20 {
            next(&mut consumer).await.reject(REQUEUE).await.unwrap();
        }
        channel.send("", &queue, "next").await;
        let expected = env.since_4("next", "m");
        assert_eq!(body(&next(&mut consumer).await), expected);
    })
    .await;
}

#[tokio::test]
async fn quorum_queues_support_limits_ttl_and_dead_letters() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let dead = env.queue("dead");
        channel.declare(&dead).await;
        let queue = declare(
            &env,
            &channel,
            [
                ("x-max-length", int(1)),
                ("x-message-ttl", int(60_000)),
                ("x-dead-letter-exchange", text("")),
                ("x-dead-letter-routing-key", text(&dead)),
                ("x-dead-letter-strategy", text("at-most-once")),
            ],
        )
        .await;
        let reason = async |expected: &str, expected_body: &str| {
            wait_until("the message is dead-lettered", || async {
                channel.ready_count(&dead).await == 1
            })
            .await;
            let message = channel.get(&dead).await.unwrap();
            let headers = message.properties.headers().clone().unwrap();
            assert_eq!(
                headers.inner().get("x-first-death-reason"),
                Some(&text(expected))
            );
            assert_eq!(body(&message), expected_body);
        };
        for body in ["a", "b"] {
            assert!(channel.send("", &queue, body).await.is_ack());
        }
        reason("maxlen", "a").await;
        let mut consumer = channel.consumer(&queue, "c").await;
        next(&mut consumer)
            .await
            .reject(BasicRejectOptions { requeue: false })
            .await
            .unwrap();
        reason("rejected", "b").await;
        channel
            .basic_cancel("c".into(), BasicCancelOptions::default())
            .await
            .unwrap();
        channel
            .send_with(
                "",
                &queue,
                "c",
                BasicProperties::default().with_expiration("10".into()),
            )
            .await;
        reason("expired", "c").await;
    })
    .await;
}

#[tokio::test]
async fn quorum_queues_support_a_single_active_consumer() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let publisher = confirm_channel(&connection).await;
        let queue = declare(
            &env,
            &publisher,
            [("x-single-active-consumer", AMQPValue::Boolean(true))],
        )
        .await;
        let channel = connection.create_channel().await.unwrap();
        let mut one = channel.consumer(&queue, "one").await;
        let mut two = channel.consumer(&queue, "two").await;
        for body in ["a", "b"] {
            publisher.send("", &queue, body).await;
        }
        for expected in ["a", "b"] {
            let delivery = next(&mut one).await;
            assert_eq!(body(&delivery), expected);
            delivery.ack(BasicAckOptions::default()).await.unwrap();
        }
        channel
            .basic_cancel("one".into(), BasicCancelOptions::default())
            .await
            .unwrap();
        publisher.send("", &queue, "c").await;
        assert_eq!(body(&next(&mut two).await), "c");
    })
    .await;
}

#[tokio::test]
async fn invalid_quorum_queue_declarations_are_refused() {
    on_each_broker(|env| async move {
        let queue = env.queue("q");
        let exclusive = QueueDeclareOptions { exclusive: true, ..DURABLE };
        let auto_delete = QueueDeclareOptions { auto_delete: true, ..DURABLE };
        let transient = QueueDeclareOptions { durable: false, ..DURABLE };
        for (name, options, arguments, code, expected) in [
            (&*queue, transient, quorum([]), 406, "PRECONDITION_FAILED - invalid property 'non-durable' for queue 'q' in vhost '/'"),
            (&*queue, exclusive, quorum([]), 406, "PRECONDITION_FAILED - invalid property 'exclusive-owner' for queue 'q' in vhost '/'"),
            (&*queue, auto_delete, quorum([]), 406, "PRECONDITION_FAILED - invalid property 'auto-delete' for queue 'q' in vhost '/'"),
            ("", DURABLE, quorum([]), 406, "PRECONDITION_FAILED - Cannot declare a server-named queue for type rabbit_quorum_queue"),
            (&*queue, DURABLE, quorum([("x-max-priority", int(5))]), 406, "PRECONDITION_FAILED - invalid arg 'x-max-priority' for queue 'q' in vhost '/' of queue type rabbit_quorum_queue"),
            (&*queue, DURABLE, quorum([("x-queue-mode", text("lazy"))]), 406, "PRECONDITION_FAILED - invalid arg 'x-queue-mode' for queue 'q' in vhost '/' of queue type rabbit_quorum_queue"),
            (&*queue, DURABLE, quorum([("x-max-age", text("1D"))]), 406, "PRECONDITION_FAILED - invalid arg 'x-max-age' for queue 'q' in vhost '/' of queue type rabbit_quorum_queue"),
            (&*queue, DURABLE, table([("x-delivery-limit", int(5))]), 406, "PRECONDITION_FAILED - invalid arg 'x-delivery-limit' for queue 'q' in vhost '/' of queue type rabbit_classic_queue"),
            (&*queue, DURABLE, table([("x-dead-letter-strategy", text("at-least-once"))]), 406, "PRECONDITION_FAILED - invalid arg 'x-dead-letter-strategy' for queue 'q' in vhost '/' of queue type rabbit_classic_queue"),
            (&*queue, DURABLE, quorum([("x-dead-letter-strategy", text("sometimes"))]), 406, "PRECONDITION_FAILED - invalid arg 'x-dead-letter-strategy' for queue 'q' in vhost '/': invalid_dlx_strategy"),
            (&*queue, DURABLE, quorum([("x-quorum-initial-group-size", int(0))]), 406, "PRECONDITION_FAILED - invalid arg 'x-quorum-initial-group-size' for queue 'q' in vhost '/': {value_zero,0}"),
        ] {
            let connection = env.connect().await;
            let channel = connection.create_channel().await.unwrap();
            let declared = with_timeout(channel.queue_declare(name.into(), options, arguments)).await;
            let (actual, text) = refusal(&declared.unwrap_err());
            assert_eq!((actual, env.without_prefix(&text)), (code, expected.to_owned()));
        }
    })
    .await;
}

#[tokio::test]
async fn unsupported_quorum_queue_operations_are_refused() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let queue = declare(&env, &channel, []).await;
        for (options, flag) in [
            (QueueDeleteOptions { if_unused: true, ..QueueDeleteOptions::default() }, "if-unused"),
            (QueueDeleteOptions { if_empty: true, ..QueueDeleteOptions::default() }, "if-empty"),
        ] {
            let connection = env.connect().await;
            let channel = connection.create_channel().await.unwrap();
            let (code, text) = refusal(&with_timeout(channel.queue_delete(queue.as_str().into(), options)).await.unwrap_err());
            let expected = format!(
                "NOT_IMPLEMENTED - cannot delete queue 'q' in vhost '/'. queue.delete operations with {flag} flag set are not supported by quorum queues"
            );
            assert_eq!((code, env.without_prefix(&text)), (540, expected));
        }
        // Since RabbitMQ 4.3, all queues ignore the global prefetch.
        if !env.since((4, 3)) {
            let limited = env.connect().await;
            let channel = limited.create_channel().await.unwrap();
            channel.basic_qos(1, BasicQosOptions { global: true }).await.unwrap();
            let consumed = channel.basic_consume(queue.as_str().into(), "c".into(), BasicConsumeOptions::default(), FieldTable::default());
            let (code, text) = refusal(&with_timeout(consumed).await.unwrap_err());
            assert_eq!((code, env.without_prefix(&text)), (540, "NOT_IMPLEMENTED - queue 'q' in vhost '/' does not support global qos".to_owned()));
        }
        // Unlike classic queues, quorum queues ignore `exclusive`.
        let exclusive = BasicConsumeOptions { exclusive: true, ..BasicConsumeOptions::default() };
        let other = env.connect().await;
        let channel = other.create_channel().await.unwrap();
        for tag in ["one", "two"] {
            with_timeout(channel.basic_consume(queue.as_str().into(), tag.into(), exclusive, FieldTable::default())).await.unwrap();
        }
    })
    .await;
}
