//! Direct replies: messages sent to the address of a channel, without a queue.
//!
//! In RabbitMQ's terms "direct reply-to": a client consumes from the pseudo-queue
//! `amq.rabbitmq.reply-to` and sends requests with this name as `reply_to`. The broker replaces it
//! by an address.

use amq_protocol::types::ShortString;

use crate::name::Name;

/// Name of the pseudo-queue, and placeholder in `reply_to`.
pub(crate) const REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// The consumer of direct replies of a channel.
#[derive(Debug)]
pub(crate) struct ReplyConsumer {
    pub(crate) tag: Name,
    /// [`REPLY_TO`], a dot and a random part.
    pub(crate) address: Name,
}

/// Returns whether a message requests a direct reply.
pub(crate) fn requests_direct_reply(reply_to: Option<&ShortString>) -> bool {
    reply_to.is_some_and(|name| name.as_str() == REPLY_TO)
}
