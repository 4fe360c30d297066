use std::time::{Duration, Instant};

use lapin::{BasicProperties, options::*};

use crate::support::*;

#[tokio::test]
async fn messages_expire_by_queue_ttl_or_expiration() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let [timed, plain] = [env.queue("timed"), env.queue("plain")];
        let arguments = table([("x-message-ttl", int(100))]);
        let options = QueueDeclareOptions::default();
        channel
            .queue_declare(timed.as_str().into(), options, arguments)
            .await
            .unwrap();
        channel.declare(&plain).await;
        let expiring = || BasicProperties::default().with_expiration("100".into());
        for (queue, properties) in [(&timed, BasicProperties::default()), (&plain, expiring())] {
            let begun = Instant::now();
            channel.send_with("", queue, "m", properties).await;
            wait_until("the message expires", || async {
                channel.ready_count(queue).await == 0
            })
            .await;
            let took = begun.elapsed();
            assert!(took >= Duration::from_millis(99), "{took:?}");
        }
        // The message behind it stays.
        channel.send_with("", &plain, "m", expiring()).await;
        channel.send("", &plain, "stays").await;
        wait_until("the message expires", || async {
            channel.ready_count(&plain).await == 1
        })
        .await;
        assert_eq!(channel.drain(&plain).await, ["stays"]);
        // A message that is not at the head does not expire.
        channel.send("", &plain, "stays").await;
        channel.send_with("", &plain, "m", expiring()).await;
        wait_for_expiration(&env, &channel, "100").await;
        assert_eq!(channel.drain(&plain).await, ["stays"]);
    })
    .await;
}

#[tokio::test]
async fn the_shorter_ttl_applies() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        for (of_queue, of_message) in [(60_000, "50"), (50, "60000")] {
            let queue = env.queue(of_message);
            channel
                .declare_with(&queue, table([("x-message-ttl", int(of_queue))]))
                .await;
            let expiring = BasicProperties::default().with_expiration(of_message.into());
            channel.send_with("", &queue, "m", expiring).await;
            wait_until("the message expires", || async {
                channel.ready_count(&queue).await == 0
            })
            .await;
        }
    })
    .await;
}

#[tokio::test]
async fn immediately_expiring_messages_reach_waiting_consumers_only() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let queue = env.queue("q");
        channel.declare(&queue).await;
        let at_once = || BasicProperties::default().with_expiration("0".into());
        channel
            .send_with("", &queue, "nobody waits", at_once())
            .await;
        assert_eq!(channel.ready_count(&queue).await, 0);
        let mut consumer = channel.consumer(&queue, "c").await;
        channel
            .send_with("", &queue, "somebody waits", at_once())
            .await;
        assert_eq!(body(&next(&mut consumer).await), "somebody waits");
    })
    .await;
}

#[tokio::test]
async fn delivered_messages_expire_only_after_a_requeue() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let queue = env.queue("q");
        channel.declare(&queue).await;
        let mut consumer = channel.consumer(&queue, "c").await;
        let expiring = BasicProperties::default().with_expiration("50".into());
        channel.send_with("", &queue, "m", expiring).await;
        let delivery = next(&mut consumer).await;
        channel
            .basic_cancel("c".into(), BasicCancelOptions::default())
            .await
            .unwrap();
        wait_for_expiration(&env, &channel, "50").await;
        let nack = BasicNackOptions {
            multiple: false,
            requeue: true,
        };
        delivery.nack(nack).await.unwrap();
        wait_until("the message expires", || async {
            channel.ready_count(&queue).await == 0
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn unused_queues_expire_and_consumed_ones_do_not() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let queue = env.queue("q");
        let arguments = table([("x-expires", int(2000))]);
        let options = QueueDeclareOptions::default();
        channel
            .queue_declare(queue.as_str().into(), options, arguments.clone())
            .await
            .unwrap();
        let _user = channel.consumer(&queue, "c").await;
        // A queue without a consumer, declared later with the same lifetime.
        let unused = env.queue("unused");
        channel.declare_with(&unused, arguments.clone()).await;
        wait_until("the unused queue expires", || async {
            channel
                .send("", &unused, "m")
                .await
                .take_message()
                .is_some()
        })
        .await;
        assert_eq!(channel.ready_count(&queue).await, 0);
        let left = Instant::now();
        channel
            .basic_cancel("c".into(), BasicCancelOptions::default())
            .await
            .unwrap();
        wait_until("the queue expires", || async {
            channel.send("", &queue, "m").await.take_message().is_some()
        })
        .await;
        let took = left.elapsed();
        assert!(took >= Duration::from_millis(1999), "{took:?}");
        // Repeated declarations keep the queue alive beyond its expiry time.
        let declare = || async {
            channel
                .queue_declare(queue.as_str().into(), options, arguments.clone())
                .await
                .unwrap()
                .message_count()
        };
        assert_eq!(declare().await, 0);
        channel.send("", &queue, "m").await;
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(2500) {
            assert_eq!(declare().await, 1);
        }
    })
    .await;
}

#[tokio::test]
async fn passive_declarations_keep_a_queue_alive() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let queue = env.queue("q");
        channel
            .queue_declare(
                queue.as_str().into(),
                QueueDeclareOptions::default(),
                table([("x-expires", int(2000))]),
            )
            .await
            .unwrap();
        // Repeated passive declarations keep the queue alive beyond its expiry time.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(2500) {
            assert_eq!(channel.ready_count(&queue).await, 0);
        }
    })
    .await;
}
