use lapin::{Channel, options::*};

use crate::support::*;

const REQUEUE: BasicNackOptions = BasicNackOptions {
    multiple: false,
    requeue: true,
};

/// Declares a queue and delivers the messages 0 to 4 on the channel.
async fn delivered(env: &TestEnv, channel: &Channel) -> (String, lapin::Consumer) {
    let queue = env.queue("q");
    channel.declare(&queue).await;
    let mut consumer = channel.consumer(&queue, "c").await;
    for n in 0..5 {
        channel.send("", &queue, &n.to_string()).await;
    }
    for _ in 0..5 {
        next(&mut consumer).await;
    }
    channel
        .basic_cancel("c".into(), BasicCancelOptions::default())
        .await
        .unwrap();
    (queue, consumer)
}

#[tokio::test]
async fn requeued_messages_return_to_their_positions() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let (queue, _consumer) = delivered(&env, &channel).await;
        channel
            .basic_ack(2, BasicAckOptions::default())
            .await
            .unwrap();
        for tag in [4, 1, 3] {
            channel.basic_nack(tag, REQUEUE).await.unwrap();
        }
        let first = channel.get(&queue).await.unwrap();
        assert!(first.redelivered);
        assert_eq!(body(&first), "0");
        assert_eq!(channel.drain(&queue).await, ["2", "3"]);
        first
            .reject(BasicRejectOptions { requeue: true })
            .await
            .unwrap();
        channel
            .basic_reject(5, BasicRejectOptions { requeue: false })
            .await
            .unwrap();
        assert_eq!(channel.drain(&queue).await, ["0"]);
    })
    .await;
}

#[tokio::test]
async fn multiple_settles_all_earlier_deliveries() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let (queue, _consumer) = delivered(&env, &channel).await;
        channel
            .basic_ack(2, BasicAckOptions { multiple: true })
            .await
            .unwrap();
        let nack = BasicNackOptions {
            multiple: true,
            requeue: true,
        };
        channel.basic_nack(4, nack).await.unwrap();
        assert_eq!(channel.drain(&queue).await, ["2", "3"]);
        // Tag 0 settles all deliveries; having none is no error.
        channel.basic_nack(0, nack).await.unwrap();
        assert_eq!(channel.drain(&queue).await, ["4"]);
        channel
            .basic_ack(0, BasicAckOptions { multiple: true })
            .await
            .unwrap();
        assert_eq!(channel.ready_count(&queue).await, 0);
    })
    .await;
}

#[tokio::test]
async fn recover_requeues_all_deliveries() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let (queue, _consumer) = delivered(&env, &channel).await;
        channel
            .basic_recover(BasicRecoverOptions { requeue: true })
            .await
            .unwrap();
        assert_eq!(channel.drain(&queue).await, ["0", "1", "2", "3", "4"]);
    })
    .await;
}

#[tokio::test]
async fn closing_a_channel_or_connection_requeues_its_deliveries() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let (queue, _consumer) = delivered(&env, &channel).await;
        channel.close(200, "".into()).await.unwrap();
        let other = env.connect().await;
        let channel = confirm_channel(&other).await;
        assert_eq!(channel.ready_count(&queue).await, 5);
        for _ in 0..5 {
            assert!(channel.get(&queue).await.unwrap().redelivered);
        }
        other.close(200, "".into()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        assert_eq!(channel.drain(&queue).await, ["0", "1", "2", "3", "4"]);
    })
    .await;
}

#[tokio::test]
async fn messages_requeued_by_one_consumer_go_to_another() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let publisher = confirm_channel(&connection).await;
        let queue = env.queue("q");
        publisher.declare(&queue).await;
        let first = connection.create_channel().await.unwrap();
        first
            .basic_qos(1, BasicQosOptions::default())
            .await
            .unwrap();
        let mut one = first.consumer(&queue, "one").await;
        publisher.send("", &queue, "m").await;
        let delivery = next(&mut one).await;
        let second = connection.create_channel().await.unwrap();
        let mut two = second.consumer(&queue, "two").await;
        first
            .basic_cancel("one".into(), BasicCancelOptions::default())
            .await
            .unwrap();
        delivery.nack(REQUEUE).await.unwrap();
        let again = next(&mut two).await;
        assert_eq!((body(&again), again.redelivered), ("m".to_owned(), true));
    })
    .await;
}
