//! Raw messages as arguments.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    amqp::{Delivery, Properties},
    arguments::{Args, Argument},
    error::{Error, Result},
};

/// A message with an undecoded body, as an argument of `#[consume]` and `#[event_handler]` methods.
///
/// The body may have any format, also malformed or compressed, so no message is rejected for its
/// body. It is acknowledged after the method returns.
///
/// ```
/// use nameko::prelude::*;
///
/// #[derive(Dependencies)]
/// struct Graves;
///
/// #[service("graves")]
/// impl Graves {
///     #[consume(Queue::new("failed"))]
///     async fn bury(&self, message: RawMessage) -> Result<usize> {
///         Ok(message.body.len())
///     }
/// }
///
/// // In a unit test.
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// let message = RawMessage { body: "{\"cut\": ".into(), ..RawMessage::default() };
/// assert_eq!(Graves.bury(message).await?, 8);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default)]
pub struct RawMessage {
    /// Undecoded body.
    pub body: Bytes,
    /// Properties with all headers, including the framework's `nameko.*` and the broker's, such as
    /// `x-death`.
    pub properties: Properties,
    /// Exchange of the message; empty for the default exchange.
    pub exchange: Arc<str>,
    /// Routing key of the message.
    pub routing_key: String,
    /// Whether the message was delivered before without being acknowledged.
    pub redelivered: bool,
}

impl RawMessage {
    /// Creates it from a delivery and its body.
    pub(super) fn new(delivery: &Delivery, body: Bytes) -> Self {
        Self {
            body,
            properties: delivery.properties.clone(),
            exchange: delivery.exchange.clone(),
            routing_key: delivery.routing_key.clone(),
            redelivered: delivery.redelivered,
        }
    }
}

/// An argument of a message entrypoint: the deserialized body, or a [`RawMessage`].
#[diagnostic::on_unimplemented(
    message = "an entrypoint cannot take `{Self}` as an argument",
    label = "this type cannot be read from a message",
    note = "an argument must be an owned type that implements `serde::Deserialize`: derive it",
    note = "a `RawMessage` is only allowed as the single argument of `#[consume]` and `#[event_handler]`"
)]
pub trait FromMessage: Sized {
    /// Takes the next argument.
    ///
    /// # Errors
    /// [`Error::IncorrectSignature`] if it does not deserialize.
    fn from_message(args: &mut Args) -> Result<Self>;
}

impl<T: Argument> FromMessage for T {
    fn from_message(args: &mut Args) -> Result<Self> {
        args.take()
    }
}

impl FromMessage for RawMessage {
    fn from_message(args: &mut Args) -> Result<Self> {
        match args.origin::<Self>() {
            Some(message) => Ok(std::mem::take(message)),
            None => Err(Error::IncorrectSignature(
                "the method takes a `RawMessage`, but the call has no message; hooks pass one with `message`"
                    .to_owned(),
            )),
        }
    }
}
