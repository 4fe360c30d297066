use lapin::{BasicProperties, Channel, Consumer, options::*, types::FieldTable};

use crate::support::*;

/// Publishes messages with bodies such as `3b`: leading digits are the priority.
async fn send_all(channel: &Channel, queue: &str, bodies: &[&str]) {
    for body in bodies {
        let properties = BasicProperties::default();
        let digits: String = body.chars().take_while(char::is_ascii_digit).collect();
        let properties = match digits.parse() {
            Ok(priority) => properties.with_priority(priority),
            Err(_) => properties,
        };
        assert!(
            channel
                .send_with("", queue, body, properties)
                .await
                .is_ack()
        );
    }
}

async fn take(consumer: &mut Consumer, count: usize) -> Vec<String> {
    let mut bodies = Vec::new();
    for _ in 0..count {
        let delivery = next(consumer).await;
        bodies.push(body(&delivery));
        delivery.ack(BasicAckOptions::default()).await.unwrap();
    }
    bodies
}

#[tokio::test]
async fn messages_are_ordered_by_priority_then_arrival() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let queue = env.queue("q");
        channel
            .declare_with(&queue, table([("x-max-priority", int(5))]))
            .await;
        send_all(
            &channel,
            &queue,
            &["a", "1a", "5a", "0b", "9a", "1b", "255a", "3a", "c"],
        )
        .await;
        // Priorities are capped to the maximum; no priority is the lowest.
        let expected = ["5a", "9a", "255a", "3a", "1a", "1b", "a", "0b", "c"];
        assert_eq!(channel.drain(&queue).await, expected);
        send_all(&channel, &queue, &["1a", "5a", "b"]).await;
        channel
            .basic_qos(1, BasicQosOptions::default())
            .await
            .unwrap();
        let mut consumer = channel.consumer(&queue, "c").await;
        assert_eq!(take(&mut consumer, 3).await, ["5a", "1a", "b"]);
    })
    .await;
}

#[tokio::test]
async fn queues_without_max_priority_ignore_priorities() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let [plain, zero] = [env.queue("plain"), env.queue("zero")];
        channel.declare(&plain).await;
        channel
            .declare_with(&zero, table([("x-max-priority", int(0))]))
            .await;
        for queue in [&plain, &zero] {
            send_all(&channel, queue, &["1a", "5a", "b"]).await;
            assert_eq!(channel.drain(queue).await, ["1a", "5a", "b"]);
        }
    })
    .await;
}

#[tokio::test]
async fn requeued_messages_keep_their_position_within_their_priority() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let queue = env.queue("q");
        channel
            .declare_with(&queue, table([("x-max-priority", int(10))]))
            .await;
        send_all(&channel, &queue, &["1a", "1b", "5a", "5b"]).await;
        let mut held = Vec::new();
        for expected in ["5a", "5b", "1a"] {
            let message = channel.get(&queue).await.unwrap();
            assert_eq!(body(&message), expected);
            held.push(message);
        }
        send_all(&channel, &queue, &["5c", "7a"]).await;
        let requeue = BasicNackOptions {
            multiple: false,
            requeue: true,
        };
        for index in [1, 2, 0] {
            held[index].nack(requeue).await.unwrap();
        }
        wait_until("the messages are requeued", || async {
            channel.ready_count(&queue).await == 6
        })
        .await;
        assert_eq!(
            channel.drain(&queue).await,
            ["7a", "5a", "5b", "5c", "1a", "1b"]
        );
    })
    .await;
}

#[tokio::test]
async fn full_priority_queues_drop_from_the_head() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let [queue, dead] = [env.queue("q"), env.queue("dead")];
        channel.declare(&dead).await;
        let arguments = table([
            ("x-max-priority", int(5)),
            ("x-max-length", int(2)),
            ("x-dead-letter-exchange", text("")),
            ("x-dead-letter-routing-key", text(&dead)),
        ]);
        channel.declare_with(&queue, arguments).await;
        send_all(&channel, &queue, &["1a", "5a", "3a", "b"]).await;
        assert_eq!(channel.drain(&queue).await, ["1a", "b"]);
        wait_until("two messages are dead-lettered", || async {
            channel.ready_count(&dead).await == 2
        })
        .await;
        assert_eq!(channel.drain(&dead).await, ["5a", "3a"]);
    })
    .await;
}

#[tokio::test]
async fn low_priority_messages_expire_only_at_the_head() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let queue = env.queue("q");
        channel
            .declare_with(&queue, table([("x-max-priority", int(5))]))
            .await;
        let expiring = BasicProperties::default().with_expiration("20".into());
        channel.send_with("", &queue, "low", expiring.clone()).await;
        wait_until("the message expires", || async {
            channel.ready_count(&queue).await == 0
        })
        .await;
        send_all(&channel, &queue, &["5a"]).await;
        channel.send_with("", &queue, "low", expiring).await;
        wait_for_expiration(&env, &channel, "20").await;
        assert_eq!(channel.ready_count(&queue).await, 2);
        assert_eq!(channel.drain(&queue).await, ["5a"]);
    })
    .await;
}

async fn consumer_with(
    channel: &Channel,
    queue: &str,
    tag: &str,
    arguments: FieldTable,
) -> Consumer {
    let consumer = channel.basic_consume(
        queue.into(),
        tag.into(),
        BasicConsumeOptions::default(),
        arguments,
    );
    with_timeout(consumer).await.unwrap()
}

#[tokio::test]
async fn consumers_of_higher_priority_are_served_until_busy() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let publisher = confirm_channel(&connection).await;
        let queue = env.queue("q");
        publisher.declare(&queue).await;
        let mut consumers = Vec::new();
        let mut channels = Vec::new();
        for (tag, priority) in [
            ("low", Some(-1)),
            ("plain", None),
            ("high-one", Some(10)),
            ("high-two", Some(10)),
        ] {
            let channel = connection.create_channel().await.unwrap();
            channel
                .basic_qos(2, BasicQosOptions::default())
                .await
                .unwrap();
            let arguments =
                priority.map_or_else(FieldTable::default, |n| table([("x-priority", int(n))]));
            consumers.push(consumer_with(&channel, &queue, tag, arguments).await);
            channels.push(channel);
        }
        let bodies = ["a", "b", "c", "d", "e", "f", "g"];
        for body in bodies {
            publisher.send("", &queue, body).await;
        }
        let [low, plain, one, two] = &mut consumers[..] else {
            unreachable!()
        };
        // Consumers of equal priority take turns; when they are busy, the others are served.
        let mut held = Vec::new();
        for (consumer, expected) in [
            (&mut *one, ["a", "c"]),
            (two, ["b", "d"]),
            (plain, ["e", "f"]),
        ] {
            for expected in expected {
                let delivery = next(consumer).await;
                assert_eq!(body(&delivery), expected);
                held.push(delivery);
            }
        }
        assert_eq!(body(&next(low).await), "g");
        // The next message goes to the highest priority with capacity.
        held[0].ack(BasicAckOptions::default()).await.unwrap();
        channels[2]
            .basic_qos(2, BasicQosOptions::default())
            .await
            .unwrap();
        publisher.send("", &queue, "h").await;
        assert_eq!(body(&next(one).await), "h");
    })
    .await;
}
