//! A broker for one test: embedded, or a virtual host of its own on RabbitMQ.
//!
//! The same tests run on both: on the embedded broker by default, and on RabbitMQ if the
//! environment variable [`NAMEKO_TEST_AMQP_URI`](AMQP_URI_VARIABLE) names one.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use nameko_broker::testing::TestBroker;
//!
//! let broker = TestBroker::start().await;
//! assert!(broker.uri().starts_with("amqp://"));
//! # }
//! ```

mod rabbitmq;

use std::net::SocketAddr;

use self::rabbitmq::Vhost;
use crate::Broker;

/// Environment variable with the AMQP URI of a RabbitMQ to test on, such as
/// `amqp://guest:guest@127.0.0.1:5672`.
pub const AMQP_URI_VARIABLE: &str = "NAMEKO_TEST_AMQP_URI";

/// A broker for one test, stopped on drop.
///
/// Without [`AMQP_URI_VARIABLE`] it is an embedded [`Broker`] on a free port. With it, it is a
/// fresh virtual host on that RabbitMQ, created and deleted through the management plugin, whose
/// port must be 10000 above the AMQP port, as 15672 is above 5672.
#[derive(Debug)]
pub struct TestBroker {
    uri: String,
    addr: SocketAddr,
    _backend: Backend,
}

/// Owner of the broker's resources, kept for its `Drop`.
#[derive(Debug)]
enum Backend {
    Embedded(#[expect(dead_code, reason = "kept for its Drop")] Broker),
    RabbitMq(#[expect(dead_code, reason = "kept for its Drop")] Vhost),
}

impl TestBroker {
    /// Starts an embedded broker on the current Tokio runtime, or creates a virtual host.
    ///
    /// # Panics
    ///
    /// If no port can be opened, or the RabbitMQ refuses to create a virtual host.
    pub async fn start() -> Self {
        match std::env::var(AMQP_URI_VARIABLE) {
            Ok(uri) if !uri.is_empty() => match Self::on_rabbitmq(uri).await {
                Ok(broker) => broker,
                Err(error) => panic!("no test broker at {AMQP_URI_VARIABLE}: {error}"),
            },
            _ => match Broker::start("127.0.0.1:0").await {
                Ok(broker) => Self {
                    uri: broker.uri(),
                    addr: broker.addr(),
                    _backend: Backend::Embedded(broker),
                },
                Err(error) => panic!("no embedded test broker: {error}"),
            },
        }
    }

    async fn on_rabbitmq(uri: String) -> Result<Self, String> {
        let create = tokio::task::spawn_blocking(move || Vhost::create(&uri));
        let vhost = create.await.map_err(|error| error.to_string())??;
        Ok(Self {
            uri: vhost.uri(),
            addr: vhost.addr()?,
            _backend: Backend::RabbitMq(vhost),
        })
    }

    /// Returns the AMQP URI, with user, password and virtual host.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Returns the address of the AMQP port.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}
