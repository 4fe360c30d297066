use std::time::{Duration, Instant};

use lapin::{BasicProperties, options::*};

use crate::support::*;

#[tokio::test]
async fn messages_expire_by_the_queues_time_or_their_own() {
    on_each(|bed| async move {
        let connection = bed.connect().await;
        let channel = confirming(&connection).await;
        let [timed, plain] = [bed.queue("timed"), bed.queue("plain")];
        let arguments = table([("x-message-ttl", int(100))]);
        let options = QueueDeclareOptions::default();
        channel
            .queue_declare(timed.as_str().into(), options, arguments)
            .await
            .unwrap();
        channel.declare(&plain).await;
        let expiring = || BasicProperties::default().with_expiration("100".into());
        channel.send("", &timed, "m").await;
        channel.send_with("", &plain, "m", expiring()).await;
        channel.send("", &plain, "stays").await;
        assert_eq!(channel.ready(&plain).await, 2);
        for (queue, left) in [(&timed, 0), (&plain, 1)] {
            eventually("expired", || async { channel.ready(queue).await == left }).await;
        }
        assert_eq!(channel.drain(&plain).await, ["stays"]);
        // Behind one that stays a message waits for its turn to expire.
        channel.send("", &plain, "stays").await;
        channel.send_with("", &plain, "m", expiring()).await;
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert_eq!(channel.drain(&plain).await, ["stays"]);
    })
    .await;
}

#[tokio::test]
async fn a_message_that_expires_at_once_is_delivered_only_where_somebody_waits() {
    on_each(|bed| async move {
        let connection = bed.connect().await;
        let channel = confirming(&connection).await;
        let queue = bed.queue("q");
        channel.declare(&queue).await;
        let at_once = || BasicProperties::default().with_expiration("0".into());
        channel
            .send_with("", &queue, "nobody waits", at_once())
            .await;
        assert_eq!(channel.ready(&queue).await, 0);
        let mut consumer = channel.consumer(&queue, "c").await;
        channel
            .send_with("", &queue, "somebody waits", at_once())
            .await;
        assert_eq!(body(&next(&mut consumer).await), "somebody waits");
    })
    .await;
}

#[tokio::test]
async fn a_delivered_message_does_not_expire_but_a_requeued_one_does() {
    on_each(|bed| async move {
        let connection = bed.connect().await;
        let channel = confirming(&connection).await;
        let queue = bed.queue("q");
        channel.declare(&queue).await;
        let mut consumer = channel.consumer(&queue, "c").await;
        let expiring = BasicProperties::default().with_expiration("50".into());
        channel.send_with("", &queue, "m", expiring).await;
        let delivery = next(&mut consumer).await;
        channel
            .basic_cancel("c".into(), BasicCancelOptions::default())
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let nack = BasicNackOptions {
            multiple: false,
            requeue: true,
        };
        delivery.nack(nack).await.unwrap();
        eventually("expired", || async { channel.ready(&queue).await == 0 }).await;
    })
    .await;
}

#[tokio::test]
async fn a_queue_expires_when_unused_and_not_while_it_has_a_consumer() {
    on_each(|bed| async move {
        let connection = bed.connect().await;
        let channel = confirming(&connection).await;
        let queue = bed.queue("q");
        let arguments = table([("x-expires", int(300))]);
        let options = QueueDeclareOptions::default();
        channel
            .queue_declare(queue.as_str().into(), options, arguments.clone())
            .await
            .unwrap();
        let _user = channel.consumer(&queue, "c").await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(channel.ready(&queue).await, 0);
        channel
            .basic_cancel("c".into(), BasicCancelOptions::default())
            .await
            .unwrap();
        let left = Instant::now();
        eventually("gone", || async {
            channel.send("", &queue, "m").await.take_message().is_some()
        })
        .await;
        let took = left.elapsed();
        assert!(
            took > Duration::from_millis(250) && took < Duration::from_secs(3),
            "{took:?}"
        );
        // Declared again and again it stays.
        for _ in 0..5 {
            channel
                .queue_declare(queue.as_str().into(), options, arguments.clone())
                .await
                .unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(channel.send("", &queue, "m").await.take_message().is_none());
    })
    .await;
}
