//! A connection.

use super::{channel::Channel, error::Error, options::ConnectOptions};

/// A connection to a broker.
#[derive(Clone, Debug)]
pub struct Connection;

impl Connection {
    /// Connects: tries each URI once, in order.
    ///
    /// # Errors
    ///
    /// What the last attempt met with.
    pub async fn open(options: &ConnectOptions) -> Result<Self, Error> {
        let _ = options;
        Err(Error::Stopped)
    }

    /// Opens a channel.
    ///
    /// # Errors
    ///
    /// The connection is gone, or the broker allows no more channels.
    pub async fn channel(&self) -> Result<Channel, Error> {
        Err(Error::Stopped)
    }

    /// Closes politely, within a second.
    pub async fn close(&self) {}

    /// Drops the connection at once.
    pub fn abort(&self) {}

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        false
    }

    /// Resolves when the connection ends, for whatever reason, with that reason.
    pub async fn closed(&self) -> Error {
        Error::Stopped
    }
}
