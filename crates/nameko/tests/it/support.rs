//! The broker that a test runs on, and names of its own on it.

use std::{future::Future, net::SocketAddr, time::Duration};

use nameko::{
    Config, Runner, Services,
    amqp::{ConnectOptions, Uri},
    testing,
};

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
