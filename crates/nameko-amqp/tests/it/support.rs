//! The broker of a test, and short ways to make messages and subscriptions.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use nameko_amqp::{ConnectOptions, Delivery, Publish, Queue, Subscription};
use nameko_broker::testing::TestBroker;
use tokio::sync::mpsc;

pub(crate) async fn broker() -> TestBroker {
    TestBroker::start().await
}

pub(crate) fn connect_options(broker: &TestBroker) -> ConnectOptions {
    ConnectOptions::from_uri(broker.uri()).unwrap()
}

/// A subscription whose deliveries come through a channel.
pub(crate) fn subscription(queue: Queue) -> (Subscription, mpsc::UnboundedReceiver<Delivery>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let sink = move |delivery| {
        // The test may be over.
        let _ = sender.send(delivery);
    };
    let subscription = Subscription {
        queue,
        prefetch: Some(10),
        sink: Arc::new(sink),
        on_recovered: None,
    };
    (subscription, receiver)
}

/// A queue that goes when its last consumer goes.
pub(crate) fn temporary(name: &str) -> Queue {
    Queue {
        durable: false,
        auto_delete: true,
        ..Queue::new(name)
    }
}

pub(crate) fn message(exchange: &str, routing_key: &str, body: &str) -> Publish {
    Publish {
        exchange: exchange.to_owned(),
        routing_key: routing_key.to_owned(),
        body: Bytes::from(body.to_owned()),
        ..Publish::default()
    }
}

/// Waits, but not for ever.
pub(crate) async fn soon<F: IntoFuture>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future.into_future())
        .await
        .expect("it takes too long")
}
