//! Direct replies: a channel gets what is sent to its address, with no queue between.
//!
//! RabbitMQ calls it `amq.rabbitmq.reply-to`: a client consumes from that name and sends requests with it as `reply_to`,
//! which the broker makes an address of.

use amq_protocol::types::ShortString;

use crate::name::Name;

/// The name to consume from, and to give as `reply_to`.
pub(crate) const REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// A channel's consumer of direct replies.
#[derive(Debug)]
pub(crate) struct ReplyConsumer {
    pub(crate) tag: Name,
    /// [`REPLY_TO`], a dot, and what nobody can guess.
    pub(crate) address: Name,
}

/// Whether a message asks for direct replies.
pub(crate) fn requests_direct_reply(reply_to: Option<&ShortString>) -> bool {
    reply_to.is_some_and(|name| name.as_str() == REPLY_TO)
}
