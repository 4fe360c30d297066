use lapin::{Channel, Consumer, options::*, types::FieldTable};

use crate::support::*;

/// A queue with a single active consumer at a time.
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
async fn one_consumer_gets_everything_and_the_next_takes_over_when_it_is_cancelled() {
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
        // One that waits may go without a change.
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
async fn the_next_takes_over_when_a_channel_or_connection_ends() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let publisher = confirm_channel(&connection).await;
        let queue = declare(&env, &publisher).await;
        let gone = connection.create_channel().await.unwrap();
        let lost = env.connect().await;
        let lost_channel = lost.create_channel().await.unwrap();
        let mut one = gone.consumer(&queue, "one").await;
        // Two on the channel that ends: neither may follow the other.
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
async fn the_one_that_is_active_holds_up_the_queue_while_it_is_busy() {
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
async fn an_active_consumer_stays_when_one_of_higher_priority_comes_and_that_is_next() {
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
async fn reading_with_get_needs_no_turn() {
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
async fn an_exclusive_consumer_is_refused() {
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
