//! The broker of a test, and unique names.

use std::{future::Future, net::SocketAddr, time::Duration};

use nameko::{
    Config, Runner, Services,
    amqp::{Channel, ConnectOptions, Delivery, Properties, Publish, Uri},
    testing,
};
use tokio::sync::mpsc;

/// A broker for one test: an embedded one, or a virtual host on the RabbitMQ at
/// `NAMEKO_TEST_AMQP_URI`.
pub(crate) struct TestBroker(testing::TestBroker);

/// Starts a broker.
pub(crate) async fn broker() -> TestBroker {
    TestBroker(testing::broker().await)
}

/// Starts services.
pub(crate) async fn run(services: &Services, broker: &TestBroker) -> Runner {
    let runner = Runner::new::<&str>(services, &[], &broker.config()).unwrap();
    runner.start().await.unwrap();
    runner
}

impl TestBroker {
    /// Returns the URI.
    pub(crate) fn uri(&self) -> &str {
        self.0.uri()
    }

    /// Returns a configuration with the URI.
    pub(crate) fn config(&self) -> Config {
        self.0.config()
    }

    /// Returns connection options.
    pub(crate) fn options(&self) -> ConnectOptions {
        ConnectOptions::from_uri(self.uri()).unwrap()
    }

    /// Returns the socket address.
    pub(crate) fn addr(&self) -> SocketAddr {
        use std::net::ToSocketAddrs;

        let uri = Uri::parse_list(self.uri()).unwrap().remove(0);
        let mut addrs = (uri.host.as_str(), uri.port).to_socket_addrs().unwrap();
        addrs.next().unwrap()
    }
}

/// Appends a unique suffix, for queues, exchanges and services of one test.
pub(crate) fn unique(name: &str) -> String {
    format!("{name}-{}", uuid::Uuid::new_v4().simple())
}

/// Awaits an event, with a timeout of 30 s.
pub(crate) async fn within<F: Future>(description: &str, event: F) -> F::Output {
    match tokio::time::timeout(Duration::from_secs(30), event).await {
        Ok(output) => output,
        Err(_) => panic!("timed out after 30 s: {description}"),
    }
}

/// The messages of one queue.
pub(crate) struct Messages {
    arrived: mpsc::UnboundedReceiver<Delivery>,
    /// Held: dropping it closes the channel.
    _channel: Channel,
}

/// Consumes a queue and acknowledges its messages.
pub(crate) async fn consume(channel: &Channel, queue: &str) -> Messages {
    let (sender, messages) = mpsc::unbounded_channel();
    let sink = move |delivery: Delivery| {
        delivery.acker.ack();
        let _ = sender.send(delivery);
    };
    channel.consume(queue, sink, |_| {}).await.unwrap();
    Messages {
        arrived: messages,
        _channel: channel.clone(),
    }
}

impl Messages {
    /// Returns the next message.
    pub(crate) async fn next(&mut self) -> Delivery {
        within("a message", self.arrived.recv()).await.unwrap()
    }
}

/// Publishes a message to a queue and awaits the confirm.
pub(crate) async fn put(
    channel: &Channel,
    queue: &str,
    content_type: &'static str,
    body: &'static [u8],
) {
    channel.confirm_select().await.unwrap();
    let binary = !content_type.contains("json");
    let message = Publish {
        routing_key: queue.to_owned(),
        mandatory: true,
        properties: Properties {
            content_type: Some(content_type.into()),
            content_encoding: Some(if binary { "binary" } else { "utf-8" }.into()),
            ..Properties::default()
        },
        body: body.into(),
        ..Publish::default()
    };
    channel.publish(&message).await.unwrap().await.unwrap();
}

/// Returns a configuration with an unreachable broker: nothing listens on port 1.
pub(crate) fn no_broker() -> Config {
    Config::new().with("AMQP_URI", "amqp://guest:guest@127.0.0.1:1")
}
