//! Consuming: acknowledgements, prefetch, cancellation, declarations.

use std::sync::Arc;

use nameko_amqp::{Connection, Consumers, Publisher, Queue, Table};

use crate::support::{
    auto_delete_queue, broker, connect_options, expiring_queue, in_time, message, subscription,
};

#[tokio::test]
async fn a_panic_in_a_sink_rejects_only_its_message() {
    let broker = broker().await;
    let publisher = Publisher::shared(&connect_options(&broker));
    let consumers = Consumers::new(connect_options(&broker), Arc::new(()));
    let (mut subscription, mut deliveries) = subscription(auto_delete_queue("queue"));
    let queue = subscription.queue.name.clone();
    let good = subscription.sink.clone();
    subscription.sink = Arc::new(move |delivery| {
        assert!(delivery.body != "bad", "a bug in a sink");
        good(delivery);
    });
    consumers.add(subscription);
    in_time(consumers.start()).await.unwrap();
    for body in ["bad", "good"] {
        in_time(publisher.publish(message("", &queue, body), None))
            .await
            .unwrap();
    }
    let delivery = in_time(deliveries.recv()).await.unwrap();
    assert!(delivery.body == "good" && !delivery.redelivered);
    assert!(consumers.is_connected());
}

#[tokio::test]
async fn rejected_messages_are_redelivered_and_acknowledged_ones_are_not() {
    let broker = broker().await;
    let connection = in_time(Connection::open(&connect_options(&broker)))
        .await
        .unwrap();
    let channel = in_time(connection.channel()).await.unwrap();
    let queue = auto_delete_queue("queue");
    in_time(channel.queue_declare(&queue)).await.unwrap();
    in_time(channel.publish(&message("", &queue.name, "m")))
        .await
        .unwrap()
        .await
        .unwrap();
    let first = in_time(async {
        loop {
            if let Some(got) = channel.get(&queue.name).await.unwrap() {
                break got;
            }
        }
    })
    .await;
    assert!(!first.redelivered);
    first.acker.reject(true);
    first.acker.ack();
    let again = in_time(async {
        loop {
            if let Some(got) = channel.get(&queue.name).await.unwrap() {
                break got;
            }
        }
    })
    .await;
    assert!(again.redelivered && again.body == "m");
    again.acker.ack();
    assert_eq!(in_time(channel.queue_delete(&queue.name)).await.unwrap(), 0);
}

#[tokio::test]
async fn cancelling_a_subscription_leaves_its_queue() {
    let broker = broker().await;
    let publisher = Publisher::shared(&connect_options(&broker));
    let consumers = Consumers::new(connect_options(&broker), Arc::new(()));
    let queue = Queue {
        durable: false,
        arguments: Table::from([("x-expires", 30_000)]),
        ..Queue::new("queue")
    };
    let (first, mut deliveries) = subscription(queue.clone());
    let id = consumers.add(first);
    in_time(consumers.start()).await.unwrap();
    in_time(publisher.publish(message("", &queue.name, "1"), None))
        .await
        .unwrap();
    let one = in_time(deliveries.recv()).await.unwrap();
    in_time(consumers.cancel(id)).await;
    one.acker.ack();
    in_time(publisher.publish(message("", &queue.name, "2"), None))
        .await
        .unwrap();
    assert!(
        in_time(deliveries.recv()).await.is_none(),
        "the sink is dropped without another delivery"
    );

    // A subscription added while connected is consumed, too.
    let (second, mut deliveries) = subscription(queue);
    consumers.add(second);
    let two = in_time(deliveries.recv()).await.unwrap();
    assert!(two.body == "2" && !two.redelivered);
    two.acker.ack();
    in_time(consumers.stop()).await;
}

#[tokio::test]
async fn prefetch_limits_each_subscription_separately() {
    let broker = broker().await;
    let publisher = Publisher::shared(&connect_options(&broker));
    let consumers = Consumers::new(connect_options(&broker), Arc::new(()));
    let queues = [
        auto_delete_queue("one"),
        auto_delete_queue("three"),
        auto_delete_queue("any"),
    ];
    let mut receivers = Vec::new();
    for (queue, prefetch) in queues.iter().zip([Some(1), Some(3), None]) {
        let (mut subscription, deliveries) = subscription(queue.clone());
        subscription.prefetch = prefetch;
        consumers.add(subscription);
        receivers.push(deliveries);
    }
    in_time(consumers.start()).await.unwrap();
    for queue in &queues {
        for n in 0..6 {
            let message = message("", &queue.name, &n.to_string());
            in_time(publisher.publish(message, None)).await.unwrap();
        }
    }
    // The last message of the last queue is delivered after all the others.
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(in_time(receivers[2].recv()).await.unwrap());
    }
    let connection = in_time(Connection::open(&connect_options(&broker)))
        .await
        .unwrap();
    let channel = in_time(connection.channel()).await.unwrap();
    for (index, expected) in [(0, 5), (1, 3), (2, 0)] {
        let passive = Queue {
            passive: true,
            ..queues[index].clone()
        };
        let waiting = in_time(async {
            loop {
                let declared = channel.queue_declare(&passive).await.unwrap();
                if declared.messages == expected {
                    break declared.messages;
                }
            }
        });
        assert_eq!(waiting.await, expected);
    }
}

#[tokio::test]
async fn killed_consumers_requeue_unacknowledged_messages() {
    let broker = broker().await;
    let consumers = Consumers::new(connect_options(&broker), Arc::new(()));
    let (first, mut deliveries) = subscription(expiring_queue("queue"));
    let queue = first.queue.clone();
    consumers.add(first);
    in_time(consumers.start()).await.unwrap();
    let publisher = Publisher::shared(&connect_options(&broker));
    in_time(publisher.publish(message("", &queue.name, "1"), None))
        .await
        .unwrap();
    let held = in_time(deliveries.recv()).await.unwrap();
    consumers.kill();
    held.acker.ack();
    assert!(
        in_time(deliveries.recv()).await.is_none(),
        "the sink is dropped"
    );
    in_time(consumers.stop()).await;

    let others = Consumers::new(connect_options(&broker), Arc::new(()));
    let (second, mut deliveries) = subscription(queue);
    others.add(second);
    in_time(others.start()).await.unwrap();
    let again = in_time(deliveries.recv()).await.unwrap();
    assert!(again.redelivered && again.body == "1");
    again.acker.ack();
    in_time(others.stop()).await;
}

#[tokio::test]
async fn stop_sends_the_acknowledgements_made_before() {
    let broker = broker().await;
    let publisher = Publisher::shared(&connect_options(&broker));
    let consumers = Consumers::new(connect_options(&broker), Arc::new(()));
    let (subscription, mut deliveries) = subscription(expiring_queue("queue"));
    let queue = subscription.queue.name.clone();
    consumers.add(subscription);
    in_time(consumers.start()).await.unwrap();
    in_time(publisher.publish(message("", &queue, "1"), None))
        .await
        .unwrap();
    in_time(deliveries.recv()).await.unwrap().acker.ack();
    in_time(consumers.stop()).await;
    let connection = in_time(Connection::open(&connect_options(&broker)))
        .await
        .unwrap();
    let channel = in_time(connection.channel()).await.unwrap();
    assert_eq!(in_time(channel.queue_delete(&queue)).await.unwrap(), 0);
}

#[tokio::test]
async fn a_conflicting_declaration_closes_only_its_channel() {
    let broker = broker().await;
    let connection = in_time(Connection::open(&connect_options(&broker)))
        .await
        .unwrap();
    let channel = in_time(connection.channel()).await.unwrap();
    let queue = auto_delete_queue("queue");
    in_time(channel.queue_declare(&queue)).await.unwrap();
    let durable = Queue {
        durable: true,
        ..queue.clone()
    };
    let error = in_time(channel.queue_declare(&durable)).await.unwrap_err();
    assert!(
        error.is_precondition_failed() && !error.is_recoverable(),
        "{error:?}"
    );
    assert!(error.to_string().contains(&queue.name), "{error}");
    // The channel stays closed with the reason, the connection stays open.
    assert_eq!(in_time(channel.closed()).await.reply_code(), Some(406));
    assert_eq!(
        in_time(channel.queue_declare(&queue))
            .await
            .unwrap_err()
            .reply_code(),
        Some(406)
    );
    let channel = in_time(connection.channel()).await.unwrap();
    in_time(channel.queue_delete(&queue.name)).await.unwrap();
    let passive = Queue {
        passive: true,
        ..queue
    };
    assert!(
        in_time(channel.queue_declare(&passive))
            .await
            .unwrap_err()
            .is_not_found()
    );
}

#[tokio::test]
async fn a_graceful_stop_deletes_temporary_queues() {
    let broker = broker().await;
    let options = connect_options(&broker);
    let connection = in_time(Connection::open(&options)).await.unwrap();
    let exists = async |name: &str| {
        let channel = in_time(connection.channel()).await.unwrap();
        let passive = Queue {
            passive: true,
            ..Queue::new(name)
        };
        in_time(channel.queue_declare(&passive)).await.is_ok()
    };
    let consumers = Consumers::new(options.clone(), Arc::new(()));
    let (temporary, kept) = (expiring_queue("temporary"), expiring_queue("kept"));
    consumers.add_temporary(subscription(temporary.clone()).0);
    consumers.add(subscription(kept.clone()).0);
    in_time(consumers.start()).await.unwrap();
    assert!(exists(&temporary.name).await);
    in_time(consumers.stop()).await;
    assert!(!exists(&temporary.name).await && exists(&kept.name).await);
}
