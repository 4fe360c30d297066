//! Event dispatch from programs.

use std::{fmt, sync::Arc};

use serde::Serialize;

use super::dispatcher::Dispatching;
use crate::{
    amqp::Value,
    caller::Caller,
    config::Config,
    error::Result,
    messaging::{ConfiguredPublisher, Destination, Options, publish_options},
    protocol,
};

/// Dispatches events as any service, from a program outside of services.
///
/// Declares nothing: the exchange of events is declared by the service or a handler. Dispatching
/// without an exchange is an error
/// ([`amqp::Error::is_not_found`](crate::amqp::Error::is_not_found)), unless confirms are disabled
/// with [`use_confirms`](Self::use_confirms). Supports concurrent use.
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
#[must_use = "a dispatcher does nothing until used"]
pub struct StandaloneDispatcher {
    publisher: Arc<ConfiguredPublisher>,
    options: Options,
    caller: Caller,
}

impl StandaloneDispatcher {
    /// Creates a dispatcher for the configured broker. Connects on first use.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if the configuration of the connection or the format
    /// is invalid.
    pub fn new(config: &Config) -> Result<Self> {
        Ok(Self {
            publisher: Arc::new(ConfiguredPublisher::new(config, None, Options::default())?),
            options: Options::default(),
            caller: Caller::program(),
        })
    }

    publish_options!();

    /// Returns a dispatcher whose events carry this context data too, over the same connection.
    /// `call_id_stack` is the list of call ids that led to the events.
    ///
    /// An event returns [`Error::InvalidContext`](crate::Error::InvalidContext) if a value cannot
    /// be a header.
    pub fn with_context(&self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        Self {
            publisher: self.publisher.clone(),
            options: self.options.clone(),
            caller: self.caller.with_context(key, value),
        }
    }

    /// Dispatches an event as `service` when awaited.
    ///
    /// # Errors
    /// When awaited: [`Error::Publish`](crate::Error::Publish) if the exchange `{service}.events`
    /// does not exist, or the broker is unreachable;
    /// [`Error::Serialization`](crate::Error::Serialization).
    pub fn dispatch<'a, T: Serialize + ?Sized>(
        &self,
        service: &str,
        event_type: impl Into<String>,
        data: &'a T,
    ) -> Dispatching<'a, T> {
        let destination = Destination::Broker {
            publisher: self.publisher.clone(),
            exchange: protocol::event_exchange_name(service).into(),
            caller: self.caller.clone(),
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
