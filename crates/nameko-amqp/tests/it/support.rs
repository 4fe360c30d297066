//! The broker of a test, messages, subscriptions and observers.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use nameko_amqp::{
    ConnectOptions, Delivery, Error, Observer, Publish, Queue, Retry, Subscription, Table,
};
use nameko_broker::testing::TestBroker;
use tokio::sync::mpsc;

pub(crate) async fn broker() -> TestBroker {
    TestBroker::start().await
}

pub(crate) fn connect_options(broker: &TestBroker) -> ConnectOptions {
    ConnectOptions::from_uri(broker.uri()).unwrap()
}

/// Returns a subscription that sends its deliveries to a channel.
pub(crate) fn subscription(queue: Queue) -> (Subscription, mpsc::UnboundedReceiver<Delivery>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let sink = move |delivery| {
        // Fails if the test has ended.
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

/// Returns an auto-delete queue.
pub(crate) fn auto_delete_queue(name: &str) -> Queue {
    Queue {
        durable: false,
        auto_delete: true,
        ..Queue::new(name)
    }
}

/// Returns a queue that survives a lost connection, and expires a minute after the test.
pub(crate) fn expiring_queue(name: &str) -> Queue {
    Queue {
        durable: true,
        arguments: Table::from([("x-expires", 60_000)]),
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

/// Returns many retries with short delays.
pub(crate) fn fast_retries() -> Option<Retry> {
    Some(Retry {
        max_retries: Some(200),
        interval_start: Duration::from_millis(20),
        interval_step: Duration::ZERO,
        interval_max: Duration::from_millis(20),
    })
}

/// Waits for a future, for at most 20 seconds.
pub(crate) async fn in_time<F: IntoFuture>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future.into_future())
        .await
        .expect("not within 20 seconds")
}

/// A call of an observer.
#[derive(Debug)]
pub(crate) enum Event {
    Failed(Error, Duration),
    Connected(bool),
    Lost(Error),
}

/// An observer that sends its calls to a channel.
pub(crate) struct Recorder(mpsc::UnboundedSender<Event>);

impl Recorder {
    pub(crate) fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<Event>) {
        let (sender, events) = mpsc::unbounded_channel();
        (Arc::new(Self(sender)), events)
    }

    fn record(&self, event: Event) {
        // Fails if the test has ended.
        let _ = self.0.send(event);
    }
}

impl Observer for Recorder {
    fn connection_error(&self, error: &Error, retry_in: Duration) {
        self.record(Event::Failed(error.clone(), retry_in));
    }

    fn connected(&self, reconnect: bool) {
        self.record(Event::Connected(reconnect));
    }

    fn lost(&self, error: &Error) {
        self.record(Event::Lost(error.clone()));
    }
}

/// Waits for a reconnect.
pub(crate) async fn reconnected(events: &mut mpsc::UnboundedReceiver<Event>) {
    in_time(async { while !matches!(events.recv().await.unwrap(), Event::Connected(true)) {} })
        .await;
}
