//! Events from a program that is no service.

use std::{fmt, sync::Arc};

use serde::Serialize;

use super::dispatcher::Dispatching;
use crate::{
    config::Config,
    error::Result,
    messaging::{ConfiguredPublisher, Destination, Options, publish_options},
    protocol,
};

/// Dispatches events in the name of any service, from a program that is none.
///
/// It declares nothing by itself: the exchange of a service's events is made by the service, or by a handler. With confirms, which are
/// on unless [`use_confirms`](Self::use_confirms) says otherwise, dispatching where there is none is an error
/// ([`amqp::Error::is_not_found`](crate::amqp::Error::is_not_found)). Usable from many tasks at once.
///
/// ```no_run
/// use nameko::{Config, events::StandaloneDispatcher};
///
/// # async fn run() -> nameko::Result<()> {
/// let config = Config::default().with("AMQP_URI", "amqp://guest:guest@localhost");
/// let events = StandaloneDispatcher::new(&config)?;
/// events.dispatch("shop", "order_paid", &17).await?;
/// # Ok(()) }
/// ```
#[must_use = "a dispatcher does nothing until it dispatches"]
pub struct StandaloneDispatcher {
    publisher: Arc<ConfiguredPublisher>,
    options: Options,
}

impl StandaloneDispatcher {
    /// Dispatches to the broker of the configuration. Connects at the first event.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) when the configuration does not tell how to connect, or in which format.
    pub fn new(config: &Config) -> Result<Self> {
        Ok(Self {
            publisher: Arc::new(ConfiguredPublisher::new(config, None, Options::default())?),
            options: Options::default(),
        })
    }

    publish_options!();

    /// Dispatches an event in the name of `service`, once the result is awaited.
    ///
    /// # Errors
    /// When awaited: [`Error::Publish`](crate::Error::Publish) when there is no exchange `{service}.events`, or the broker
    /// cannot be reached; [`Error::Serialization`](crate::Error::Serialization).
    pub fn dispatch<'a, T: Serialize + ?Sized>(
        &self,
        service: &str,
        event_type: impl Into<String>,
        data: &'a T,
    ) -> Dispatching<'a, T> {
        let destination = Destination::Broker {
            publisher: self.publisher.clone(),
            exchange: protocol::event_exchange_name(service).into(),
            worker: None,
        };
        Dispatching::new(destination, event_type.into(), data, self.options.clone())
    }
}

impl fmt::Debug for StandaloneDispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StandaloneDispatcher")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
