//! A broker for one test.

use nameko_broker::Broker;

use super::vhost::Vhost;
use crate::config::Config;

/// The environment variable that makes [`broker`] use a RabbitMQ: its AMQP URI.
pub const AMQP_URI_VARIABLE: &str = "NAMEKO_TEST_AMQP_URI";

/// A broker of one test's own: an embedded one, in memory, on a port that was free. It ends when the value is dropped.
///
/// With `NAMEKO_TEST_AMQP_URI` set (`amqp://guest:guest@127.0.0.1:5672`), it is a fresh virtual host on that RabbitMQ,
/// made and deleted through the management plugin, which must listen on port 15672 of the same host.
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
/// When no port can be opened, or the RabbitMQ does not do what it is asked for, with the reason.
pub async fn broker() -> TestBroker {
    match std::env::var(AMQP_URI_VARIABLE) {
        Ok(uri) if !uri.is_empty() => {
            let made = tokio::task::spawn_blocking(move || Vhost::create(&uri)).await;
            match made.unwrap_or_else(|error| Err(error.to_string())) {
                Ok((vhost, uri)) => TestBroker {
                    uri,
                    _home: Home::RabbitMq(vhost),
                },
                Err(error) => panic!("no test broker at {AMQP_URI_VARIABLE}: {error}"),
            }
        }
        _ => match Broker::start("127.0.0.1:0").await {
            Ok(broker) => TestBroker {
                uri: broker.uri(),
                _home: Home::Embedded(broker),
            },
            Err(error) => panic!("no embedded test broker: {error}"),
        },
    }
}

/// A broker that ends with the test. Made by [`broker`].
#[derive(Debug)]
pub struct TestBroker {
    uri: String,
    _home: Home,
}

/// Held for its end.
#[derive(Debug)]
enum Home {
    Embedded(#[expect(dead_code, reason = "held")] Broker),
    RabbitMq(#[expect(dead_code, reason = "held")] Vhost),
}

impl TestBroker {
    /// Where it is.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// A configuration that names it, and nothing else.
    pub fn config(&self) -> Config {
        Config::new().with("AMQP_URI", self.uri.as_str())
    }
}
