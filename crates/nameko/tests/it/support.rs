//! The broker that a test runs on, and names of its own on it.

use std::{future::Future, net::SocketAddr, time::Duration};

use nameko::{
    Config, Runner, Services,
    amqp::{Channel, ConnectOptions, Delivery, Uri},
    testing,
};
use tokio::sync::mpsc;

/// A broker for one test: an embedded one of its own, or a virtual host of its own on the RabbitMQ at
/// `NAMEKO_TEST_AMQP_URI`.
pub(crate) struct TestBroker(testing::TestBroker);

/// A broker to test on.
pub(crate) async fn broker() -> TestBroker {
    TestBroker(testing::broker().await)
}

/// Runs services until the test stops them.
pub(crate) async fn run(services: &Services, broker: &TestBroker) -> Runner {
    let runner = Runner::new::<&str>(services, &[], &broker.config()).unwrap();
    runner.start().await.unwrap();
    runner
}

impl TestBroker {
    /// Where it is.
    pub(crate) fn uri(&self) -> &str {
        self.0.uri()
    }

    /// A configuration that names it.
    pub(crate) fn config(&self) -> Config {
        self.0.config()
    }

    /// How to connect to it.
    pub(crate) fn options(&self) -> ConnectOptions {
        ConnectOptions::from_uri(self.uri()).unwrap()
    }

    /// Its address.
    pub(crate) fn addr(&self) -> SocketAddr {
        use std::net::ToSocketAddrs;

        let uri = Uri::parse_list(self.uri()).unwrap().remove(0);
        let mut addrs = (uri.host.as_str(), uri.port).to_socket_addrs().unwrap();
        addrs.next().unwrap()
    }
}

/// `name` with something unique behind it: for queues, exchanges and services of one test.
pub(crate) fn unique(name: &str) -> String {
    format!("{name}-{}", uuid::Uuid::new_v4().simple())
}

/// Waits for what is to happen, but not for ever.
pub(crate) async fn within<F: Future>(what: &str, event: F) -> F::Output {
    match tokio::time::timeout(Duration::from_secs(30), event).await {
        Ok(output) => output,
        Err(_) => panic!("{what} did not come within 30 s"),
    }
}

/// The messages of one queue, as a peer takes them that speaks AMQP by hand.
pub(crate) struct Messages {
    arrived: mpsc::UnboundedReceiver<Delivery>,
    /// Held: it ends when it is dropped.
    _channel: Channel,
}

/// Consumes a queue, acknowledging what comes.
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
    /// The next one.
    pub(crate) async fn next(&mut self) -> Delivery {
        within("a message", self.arrived.recv()).await.unwrap()
    }
}

/// A configuration whose broker cannot be reached: the port is reserved, and nothing listens there.
pub(crate) fn no_broker() -> Config {
    Config::new().with("AMQP_URI", "amqp://guest:guest@127.0.0.1:1")
}
