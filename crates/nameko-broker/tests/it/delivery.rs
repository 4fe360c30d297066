use amq_protocol::{
    frame::AMQPFrame,
    protocol::{AMQPClass, basic},
};
use futures_util::StreamExt;
use lapin::{options::*, types::FieldTable};

use crate::{
    peer::{Peer, encoded, raw},
    support::*,
};

#[tokio::test]
async fn messages_arrive_in_order() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let queue = env.queue("q");
        channel.declare(&queue).await;
        for n in 0..50 {
            channel.send("", &queue, &n.to_string()).await;
        }
        let mut consumer = channel.consumer(&queue, "c").await;
        for n in 50..100 {
            channel.send("", &queue, &n.to_string()).await;
        }
        for n in 0..100 {
            let delivery = next(&mut consumer).await;
            assert_eq!(
                (body(&delivery), delivery.delivery_tag, delivery.redelivered),
                (n.to_string(), n + 1, false)
            );
        }
    })
    .await;
}

#[tokio::test]
async fn consumers_take_turns() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let queue = env.queue("q");
        channel.declare(&queue).await;
        let mut consumers = Vec::new();
        for tag in ["a", "b", "c"] {
            consumers.push(channel.consumer(&queue, tag).await);
        }
        for n in 0..9 {
            channel.send("", &queue, &n.to_string()).await;
        }
        for consumer in &mut consumers {
            let mut got = Vec::new();
            for _ in 0..3 {
                got.push(body(&next(consumer).await).parse::<u32>().unwrap());
            }
            assert!(got.windows(2).all(|pair| pair[1] == pair[0] + 3), "{got:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn prefetch_limits_each_consumer_without_blocking_others() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let publisher = confirm_channel(&connection).await;
        let channel = connection.create_channel().await.unwrap();
        let queue = env.queue("q");
        publisher.declare(&queue).await;
        channel
            .basic_qos(2, BasicQosOptions::default())
            .await
            .unwrap();
        let mut one = channel.consumer(&queue, "one").await;
        let mut two = channel.consumer(&queue, "two").await;
        for n in 0..6 {
            publisher.send("", &queue, &n.to_string()).await;
        }
        let first = next(&mut one).await;
        next(&mut one).await;
        next(&mut two).await;
        next(&mut two).await;
        assert_eq!(publisher.ready_count(&queue).await, 2);
        assert_no_delivery(&channel, &mut one).await;
        first.ack(BasicAckOptions::default()).await.unwrap();
        assert_eq!(body(&next(&mut one).await), "4");
        assert_eq!(publisher.ready_count(&queue).await, 1);
    })
    .await;
}

#[tokio::test]
async fn global_prefetch_is_shared_by_the_channel() {
    on_each_broker(|env| async move {
        // RabbitMQ 4.3 ignores it.
        if env.since((4, 3)) {
            return;
        }
        let connection = env.connect().await;
        let publisher = confirm_channel(&connection).await;
        let channel = connection.create_channel().await.unwrap();
        let [q1, q2] = [env.queue("q1"), env.queue("q2")];
        publisher.declare(&q1).await;
        publisher.declare(&q2).await;
        channel
            .basic_qos(1, BasicQosOptions { global: true })
            .await
            .unwrap();
        let mut one = channel.consumer(&q1, "one").await;
        let mut two = channel.consumer(&q2, "two").await;
        publisher.send("", &q1, "first").await;
        let first = next(&mut one).await;
        publisher.send("", &q2, "second").await;
        assert_eq!(publisher.ready_count(&q2).await, 1);
        first.ack(BasicAckOptions::default()).await.unwrap();
        assert_eq!(body(&next(&mut two).await), "second");
    })
    .await;
}

#[tokio::test]
async fn consumers_without_acks_ignore_prefetch() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let queue = env.queue("q");
        channel.declare(&queue).await;
        channel
            .basic_qos(1, BasicQosOptions::default())
            .await
            .unwrap();
        let options = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        let consumer = channel.basic_consume(
            queue.as_str().into(),
            "".into(),
            options,
            FieldTable::default(),
        );
        let mut consumer = consumer.await.unwrap();
        assert!(consumer.tag().as_str().starts_with("amq.ctag-"));
        for n in 0..20 {
            channel.send("", &queue, &n.to_string()).await;
        }
        for n in 0..20 {
            assert_eq!(body(&next(&mut consumer).await), n.to_string());
        }
    })
    .await;
}

#[tokio::test]
async fn nothing_is_delivered_after_a_cancel() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let queue = env.queue("q");
        channel.declare(&queue).await;
        let mut consumer = channel.consumer(&queue, "c").await;
        channel.send("", &queue, "before").await;
        let delivery = next(&mut consumer).await;
        channel
            .basic_cancel("c".into(), BasicCancelOptions::default())
            .await
            .unwrap();
        channel
            .basic_cancel("never there".into(), BasicCancelOptions::default())
            .await
            .unwrap();
        channel.send("", &queue, "after").await;
        assert_eq!(channel.ready_count(&queue).await, 1);
        // Earlier deliveries can still be acknowledged.
        delivery.ack(BasicAckOptions::default()).await.unwrap();
        assert_eq!(channel.drain(&queue).await, ["after"]);
    })
    .await;
}

#[tokio::test]
async fn consumers_are_cancelled_when_their_queue_is_deleted() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let queue = env.queue("q");
        channel.declare(&queue).await;
        let mut consumer = channel.consumer(&queue, "c").await;
        let other = connection.create_channel().await.unwrap();
        other
            .queue_delete(queue.as_str().into(), QueueDeleteOptions::default())
            .await
            .unwrap();
        assert!(with_timeout(consumer.next()).await.is_none());
        // The tag can be reused, and the queue declared again.
        channel.declare(&queue).await;
        let mut consumer = channel.consumer(&queue, "c").await;
        channel.send("", &queue, "m").await;
        assert_eq!(body(&next(&mut consumer).await), "m");
    })
    .await;
}

#[tokio::test]
async fn exclusive_consumers_exclude_others() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let queue = env.queue("q");
        channel.declare(&queue).await;
        let exclusive = BasicConsumeOptions {
            exclusive: true,
            ..BasicConsumeOptions::default()
        };
        let consumer = channel.basic_consume(
            queue.as_str().into(),
            "c".into(),
            exclusive,
            FieldTable::default(),
        );
        let _only = consumer.await.unwrap();
        let other = connection.create_channel().await.unwrap();
        let refused = other.basic_consume(
            queue.as_str().into(),
            "d".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let (code, text) = refusal(&refused.await.unwrap_err());
        assert_eq!(
            (code, env.without_prefix(&text)),
            (
                403,
                "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use".to_owned()
            )
        );
        channel
            .basic_cancel("c".into(), BasicCancelOptions::default())
            .await
            .unwrap();
        let _not_exclusive = channel.consumer(&queue, "e").await;
        let other = connection.create_channel().await.unwrap();
        let refused = other.basic_consume(
            queue.as_str().into(),
            "f".into(),
            exclusive,
            FieldTable::default(),
        );
        assert_eq!(refusal(&refused.await.unwrap_err()).0, 403);
    })
    .await;
}

#[tokio::test]
async fn a_large_backlog_is_shared_by_many_consumers_without_loss() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let publisher = connection.create_channel().await.unwrap();
        let queue = env.queue("q");
        publisher.declare(&queue).await;
        for n in 0..3000 {
            let body = n.to_string();
            let sent = publisher.basic_publish(
                "".into(),
                queue.as_str().into(),
                BasicPublishOptions::default(),
                body.as_bytes(),
                lapin::BasicProperties::default(),
            );
            sent.await.unwrap();
        }
        let (seen, mut all) = tokio::sync::mpsc::unbounded_channel();
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..4 {
            let channel = env.connect().await.create_channel().await.unwrap();
            channel
                .basic_qos(10, BasicQosOptions::default())
                .await
                .unwrap();
            let mut consumer = channel.consumer(&queue, &format!("c{n}")).await;
            let seen = seen.clone();
            tasks.spawn(async move {
                while let Some(Ok(delivery)) = consumer.next().await {
                    delivery.ack(BasicAckOptions::default()).await.unwrap();
                    seen.send(body(&delivery).parse::<u32>().unwrap()).unwrap();
                }
            });
        }
        let mut got = Vec::new();
        while got.len() < 3000 {
            got.push(with_timeout(all.recv()).await.unwrap());
        }
        got.sort_unstable();
        assert!(got.iter().copied().eq(0..3000));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn delivery_tags_of_get_and_consume_count_up_together() {
    const EACH: usize = 10_000;
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let [read, delivered] = [env.queue("read"), env.queue("delivered")];
        channel.declare(&read).await;
        channel.declare(&delivered).await;
        let publish = |queue: &str| {
            let publish = basic::Publish {
                routing_key: queue.into(),
                ..basic::Publish::default()
            };
            let publish = encoded(&AMQPFrame::Method(
                1,
                AMQPClass::Basic(basic::AMQPMethod::Publish(publish)),
            ));
            let empty = raw(2, 1, &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            [publish, empty].concat().repeat(EACH)
        };
        let mut publisher = Peer::with_channel(env.addr()).await;
        publisher.write(&publish(&read)).await;
        wait_until("all messages are enqueued", || async {
            channel.ready_count(&read).await == EACH as u32
        })
        .await;
        let mut peer = Peer::with_channel(env.addr()).await;
        let on_channel = |method| encoded(&AMQPFrame::Method(1, AMQPClass::Basic(method)));
        let consume = on_channel(basic::AMQPMethod::Consume(basic::Consume {
            queue: delivered.as_str().into(),
            ..basic::Consume::default()
        }));
        let get = on_channel(basic::AMQPMethod::Get(basic::Get {
            queue: read.as_str().into(),
            no_ack: false,
        }));
        peer.write(&consume).await;
        peer.frame().await.unwrap();
        let deliveries = tokio::spawn({
            let all = publish(&delivered);
            async move {
                publisher.write(&all).await;
                publisher
            }
        });
        peer.write(&get.repeat(EACH)).await;
        let mut last = 0;
        while last < 2 * EACH as u64 {
            let tag = match peer.frame().await.unwrap() {
                AMQPFrame::Method(1, AMQPClass::Basic(basic::AMQPMethod::GetOk(ok))) => {
                    ok.delivery_tag
                }
                AMQPFrame::Method(1, AMQPClass::Basic(basic::AMQPMethod::Deliver(one))) => {
                    one.delivery_tag
                }
                _ => continue,
            };
            assert_eq!(tag, last + 1);
            last = tag;
        }
        deliveries.await.unwrap();
    })
    .await;
}
