//! A broker for one test.

use nameko_broker::testing;

use crate::config::Config;

pub use nameko_broker::testing::AMQP_URI_VARIABLE;

/// Starts a broker for one test: an embedded one, in memory, on a free port. It stops when the
/// value is dropped.
///
/// With `NAMEKO_TEST_AMQP_URI` set (`amqp://guest:guest@127.0.0.1:5672`), it is a fresh virtual
/// host on that RabbitMQ, created and deleted through the management plugin, whose port must be
/// 10000 above the AMQP port, as 15672 is above 5672.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let broker = nameko::testing::broker().await;
/// assert!(broker.config().amqp_uri().is_some());
/// # }
/// ```
///
/// # Panics
/// If no port can be opened, or the RabbitMQ refuses to create a virtual host.
pub async fn broker() -> TestBroker {
    TestBroker(testing::TestBroker::start().await)
}

/// A broker for one test, stopped on drop. Made by [`broker`].
#[derive(Debug)]
pub struct TestBroker(testing::TestBroker);

impl TestBroker {
    /// Returns the AMQP URI.
    pub fn uri(&self) -> &str {
        self.0.uri()
    }

    /// Returns a configuration with this broker's `AMQP_URI` and nothing else.
    pub fn config(&self) -> Config {
        Config::new().with("AMQP_URI", self.uri())
    }
}
