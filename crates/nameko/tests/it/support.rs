//! The broker that a test runs on, and names of its own on it.

use std::net::SocketAddr;

use nameko::amqp::{ConnectOptions, Uri};
use nameko_broker::Broker;

/// A broker for one test: that of `NAMEKO_TEST_AMQP_URI` if it is set, else an embedded one of the test's own.
///
/// On a shared broker tests stay apart by names: see [`unique`].
pub(crate) struct TestBroker {
    uri: String,
    /// Runs until the end of the test.
    _embedded: Option<Broker>,
}

/// A broker to test on.
pub(crate) async fn broker() -> TestBroker {
    if let Ok(uri) = std::env::var("NAMEKO_TEST_AMQP_URI")
        && !uri.is_empty()
    {
        return TestBroker {
            uri,
            _embedded: None,
        };
    }
    let embedded = Broker::start("127.0.0.1:0").await.unwrap();
    TestBroker {
        uri: embedded.uri(),
        _embedded: Some(embedded),
    }
}

impl TestBroker {
    /// Where it is.
    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    /// How to connect to it.
    pub(crate) fn options(&self) -> ConnectOptions {
        ConnectOptions::from_uri(&self.uri).unwrap()
    }

    /// Its address.
    pub(crate) fn addr(&self) -> SocketAddr {
        use std::net::ToSocketAddrs;

        let uri = Uri::parse_list(&self.uri).unwrap().remove(0);
        let mut addrs = (uri.host.as_str(), uri.port).to_socket_addrs().unwrap();
        addrs.next().unwrap()
    }
}

/// `name` with something unique behind it: for queues, exchanges and services of one test.
pub(crate) fn unique(name: &str) -> String {
    format!("{name}-{}", uuid::Uuid::new_v4().simple())
}
