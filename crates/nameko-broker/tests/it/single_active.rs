use lapin::{Channel, Consumer, options::*, types::FieldTable};

use crate::support::*;

/// Declares a queue with a single active consumer.
async fn declare(env: &TestEnv, channel: &Channel) -> String {
    let queue = env.queue("q");
    channel
        .declare_with(
            &queue,
            table([(
                "x-single-active-consumer",
                lapin::types::AMQPValue::Boolean(true),
            )]),
        )
        .await;
    queue
}

async fn expect(consumer: &mut Consumer, bodies: &[&str]) {
    for expected in bodies {
        let delivery = next(consumer).await;
        assert_eq!(body(&delivery), *expected);
        delivery.ack(BasicAckOptions::default()).await.unwrap();
    }
}

#[tokio::test]
async fn the_next_consumer_takes_over_after_a_cancel() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let publisher = confirm_channel(&connection).await;
        let queue = declare(&env, &publisher).await;
        let channel = connection.create_channel().await.unwrap();
        let [mut one, mut two, mut three] = [
            channel.consumer(&queue, "one").await,
            channel.consumer(&queue, "two").await,
            channel.consumer(&queue, "three").await,
        ];
        for body in ["a", "b", "c"] {
            publisher.send("", &queue, body).await;
        }
        expect(&mut one, &["a", "b", "c"]).await;
        assert_no_delivery(&channel, &mut two).await;
        // Cancelling a standby consumer changes nothing.
        channel
            .basic_cancel("two".into(), BasicCancelOptions::default())
            .await
            .unwrap();
        publisher.send("", &queue, "d").await;
        expect(&mut one, &["d"]).await;
        channel
            .basic_cancel("one".into(), BasicCancelOptions::default())
            .await
            .unwrap();
        publisher.send("", &queue, "e").await;
        expect(&mut three, &["e"]).await;
    })
    .await;
}

#[tokio::test]
async fn the_next_consumer_takes_over_when_a_channel_or_connection_closes() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let publisher = confirm_channel(&connection).await;
        let queue = declare(&env, &publisher).await;
        let gone = connection.create_channel().await.unwrap();
        let lost = env.connect().await;
        let lost_channel = lost.create_channel().await.unwrap();
        let mut one = gone.consumer(&queue, "one").await;
        // Both consumers of the closing channel are skipped.
        let _same = gone.consumer(&queue, "same").await;
        let mut two = lost_channel.consumer(&queue, "two").await;
        let mut three = publisher.consumer(&queue, "three").await;
        publisher.send("", &queue, "a").await;
        let held = next(&mut one).await;
        assert_eq!(body(&held), "a");
        gone.close(200, "".into()).await.unwrap();
        let again = next(&mut two).await;
        assert_eq!((body(&again), again.redelivered), ("a".to_owned(), true));
        publisher.send("", &queue, "b").await;
        assert_eq!(body(&next(&mut two).await), "b");
        lost.close(200, "".into()).await.unwrap();
        expect(&mut three, &["a", "b"]).await;
    })
    .await;
}

#[tokio::test]
async fn a_busy_active_consumer_blocks_the_queue() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let publisher = confirm_channel(&connection).await;
        let queue = declare(&env, &publisher).await;
        let channel = connection.create_channel().await.unwrap();
        channel
            .basic_qos(1, BasicQosOptions::default())
            .await
            .unwrap();
        let mut one = channel.consumer(&queue, "one").await;
        let mut two = channel.consumer(&queue, "two").await;
        for body in ["a", "b"] {
            publisher.send("", &queue, body).await;
        }
        let held = next(&mut one).await;
        assert_eq!(publisher.ready_count(&queue).await, 1);
        held.ack(BasicAckOptions::default()).await.unwrap();
        expect(&mut one, &["b"]).await;
        assert_no_delivery(&channel, &mut two).await;
    })
    .await;
}

#[tokio::test]
async fn a_higher_priority_consumer_takes_over_only_after_the_active_one() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let publisher = confirm_channel(&connection).await;
        let queue = declare(&env, &publisher).await;
        let channel = connection.create_channel().await.unwrap();
        let mut one = channel.consumer(&queue, "one").await;
        let _low = channel.consumer(&queue, "low").await;
        let high = channel.basic_consume(
            queue.as_str().into(),
            "high".into(),
            BasicConsumeOptions::default(),
            table([("x-priority", int(5))]),
        );
        let mut high = with_timeout(high).await.unwrap();
        publisher.send("", &queue, "a").await;
        expect(&mut one, &["a"]).await;
        channel
            .basic_cancel("one".into(), BasicCancelOptions::default())
            .await
            .unwrap();
        publisher.send("", &queue, "b").await;
        expect(&mut high, &["b"]).await;
    })
    .await;
}

#[tokio::test]
async fn get_works_without_being_active() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let publisher = confirm_channel(&connection).await;
        let queue = declare(&env, &publisher).await;
        publisher.send("", &queue, "a").await;
        assert_eq!(publisher.drain(&queue).await, ["a"]);
    })
    .await;
}

#[tokio::test]
async fn exclusive_consumers_are_refused() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let queue = declare(&env, &channel).await;
        let exclusive = BasicConsumeOptions {
            exclusive: true,
            ..BasicConsumeOptions::default()
        };
        let refused = channel.basic_consume(
            queue.as_str().into(),
            "c".into(),
            exclusive,
            FieldTable::default(),
        );
        let (code, text) = refusal(&with_timeout(refused).await.unwrap_err());
        assert_eq!(
            (code, env.without_prefix(&text)),
            (
                403,
                "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use".to_owned()
            )
        );
    })
    .await;
}
