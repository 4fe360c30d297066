//! Publishing.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    error::{Error, PublishError},
    options::ConnectOptions,
    properties::Properties,
    topology::{Exchange, Queue},
};

/// Publishes messages of the whole process.
#[derive(Clone)]
pub struct Publisher(#[expect(dead_code, reason = "held until the implementation lands")] Arc<()>);

/// A message to publish.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Publish {
    /// The exchange, `""` for the default one.
    pub exchange: String,
    /// The routing key.
    pub routing_key: String,
    /// It is an error when no queue takes the message.
    pub mandatory: bool,
    /// Its properties.
    pub properties: Properties,
    /// Its body.
    pub body: Bytes,
}

/// How often and when to try again after the connection was lost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retry {
    /// How often, `None` for ever.
    pub max_retries: Option<u32>,
    /// The wait before the first retry.
    pub interval_start: Duration,
    /// How much longer each further wait is.
    pub interval_step: Duration,
    /// The longest wait.
    pub interval_max: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            max_retries: Some(3),
            interval_start: Duration::from_secs(1),
            interval_step: Duration::from_secs(1),
            interval_max: Duration::from_secs(1),
        }
    }
}

impl Publisher {
    /// The publisher of this process for `options`. Opens nothing until the first publish.
    pub fn shared(options: &ConnectOptions) -> Publisher {
        let _ = options;
        Publisher(Arc::default())
    }

    /// Publishes and waits for the broker's confirm. A lost connection is made again as `retry` says, `None` for not at all.
    ///
    /// # Errors
    ///
    /// See [`PublishError`].
    pub async fn publish(
        &self,
        message: Publish,
        retry: Option<Retry>,
    ) -> Result<(), PublishError> {
        let _ = (message, retry);
        Err(PublishError::Lost(Error::Stopped))
    }

    /// Publishes without asking for a confirm: resolves when the message is on its way.
    ///
    /// # Errors
    ///
    /// See [`PublishError`].
    pub async fn publish_unconfirmed(
        &self,
        message: Publish,
        retry: Option<Retry>,
    ) -> Result<(), PublishError> {
        let _ = (message, retry);
        Err(PublishError::Lost(Error::Stopped))
    }

    /// Declares exchanges and queues with their bindings.
    ///
    /// # Errors
    ///
    /// The broker refuses, or cannot be reached.
    pub async fn declare(&self, exchanges: &[Exchange], queues: &[Queue]) -> Result<(), Error> {
        let _ = (exchanges, queues);
        Err(Error::Stopped)
    }

    /// Closes the connection politely; the next publish opens it again.
    pub async fn close(&self) {}
}
