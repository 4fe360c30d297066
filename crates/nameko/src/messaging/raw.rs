//! A message as it came, for methods that do not want it read.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    amqp::{Delivery, Properties},
    arguments::{Args, Argument},
    error::{Error, Result},
};

/// A message as it came: what a `#[consume]` or `#[event_handler]` method takes that wants it whatever its body is, or wants to know
/// more than the body.
///
/// The body is not read: it may be in a format that the service does not accept, be broken, or be compressed. So no message is
/// rejected for what it is. It is acknowledged as any other, when the method has returned.
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
    /// The body.
    pub body: Bytes,
    /// Its properties, all headers among them: those of the framework, `nameko.*`, and what the broker adds, such as `x-death`.
    pub properties: Properties,
    /// The exchange it was published to; empty for the default one.
    pub exchange: Arc<str>,
    /// The routing key it was published with.
    pub routing_key: String,
    /// It was delivered before, to this service or another, and not acknowledged.
    pub redelivered: bool,
}

impl RawMessage {
    /// Of a delivery whose body was taken out.
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

/// What a method takes of a message: its body, read; or all of it, as a [`RawMessage`].
#[diagnostic::on_unimplemented(
    message = "an entrypoint cannot take `{Self}` as an argument",
    label = "this type cannot be read from a message",
    note = "an argument is an owned type that implements `serde::Deserialize`: derive it on your own types",
    note = "a `RawMessage` is for `#[consume]` and `#[event_handler]`, as their one argument"
)]
pub trait FromMessage: Sized {
    /// Takes the next argument.
    ///
    /// # Errors
    /// [`Error::IncorrectSignature`]: it is not of the type.
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
                "the method takes a message as it came, and the call came with none; a hook gives one with `message`"
                    .to_owned(),
            )),
        }
    }
}
