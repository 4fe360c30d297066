//! Consuming and sending direct replies.

use std::sync::Arc;

use amq_protocol::protocol::{AMQPClass, basic};
use bytes::Bytes;
use uuid::Uuid;

use super::{consumers::ConsumeRequest, queues::QueueStatus, state::VHostState};
use crate::{
    direct_reply::{REPLY_TO, ReplyConsumer},
    error::{AmqpError, Result},
    headers,
    ids::ChannelId,
    message::Message,
    name::{Name, short_string},
};

impl VHostState {
    /// Makes a channel listen for direct replies, and tells the client.
    pub(crate) fn consume_direct_replies(
        &mut self,
        channel_id: ChannelId,
        ask: &ConsumeRequest<'_>,
    ) -> Result<()> {
        let Some(channel) = self.channels.get_mut(&channel_id) else {
            return Ok(());
        };
        if channel.consumers.contains_key(ask.tag) {
            return Err(AmqpError::not_allowed(format!(
                "attempt to reuse consumer tag '{}'",
                ask.tag
            )));
        }
        if !ask.no_ack {
            return Err(AmqpError::precondition_failed(
                "reply consumer cannot acknowledge",
            ));
        }
        if channel.replies.is_some() {
            return Err(AmqpError::precondition_failed("reply consumer already set"));
        }
        let tag: Name = match ask.tag {
            "" => format!("amq.ctag-{}", Uuid::new_v4().simple()).into(),
            tag => tag.into(),
        };
        let address: Name = format!("{REPLY_TO}.{}", Uuid::new_v4().simple()).into();
        if !ask.nowait {
            let reply = basic::ConsumeOk {
                consumer_tag: short_string(&tag),
            };
            channel.send_buffer.method(
                channel.number,
                AMQPClass::Basic(basic::AMQPMethod::ConsumeOk(reply)),
            );
        }
        channel.replies = Some(ReplyConsumer {
            tag,
            address: address.clone(),
        });
        self.reply_channels.insert(address, channel_id);
        Ok(())
    }

    /// Ends the direct replies of a channel if they have this tag; says whether they had.
    pub(crate) fn cancel_direct_replies(&mut self, channel_id: ChannelId, tag: &str) -> bool {
        let Some(channel) = self.channels.get_mut(&channel_id) else {
            return false;
        };
        match channel.replies.take_if(|replies| &*replies.tag == tag) {
            Some(replies) => {
                self.reply_channels.remove(&replies.address);
                true
            }
            None => false,
        }
    }

    /// Ends the direct replies of a channel that is gone.
    pub(crate) fn remove_direct_replies(&mut self, replies: Option<ReplyConsumer>) {
        if let Some(replies) = replies {
            self.reply_channels.remove(&replies.address);
        }
    }

    /// A content header whose `reply_to` is the channel's address.
    pub(crate) fn with_reply_address(&self, channel_id: ChannelId, header: &[u8]) -> Result<Bytes> {
        let replies = self
            .channels
            .get(&channel_id)
            .and_then(|channel| channel.replies.as_ref())
            .ok_or_else(|| AmqpError::precondition_failed("fast reply consumer does not exist"))?;
        headers::rewrite_properties(header, |properties| {
            properties.with_reply_to(short_string(&replies.address))
        })
        .ok_or_else(|| AmqpError::precondition_failed("invalid message: its headers are too large"))
    }

    /// Sends a message to the channels whose addresses are among its keys. That is no routing: it may be unroutable still.
    pub(crate) fn send_direct_replies(&mut self, message: &Message) {
        if self.reply_channels.is_empty() || !message.exchange.is_empty() {
            return;
        }
        for key in std::iter::once(&message.routing_key).chain(&message.cc_keys) {
            let channel = self
                .reply_channels
                .get(key)
                .and_then(|channel_id| self.channels.get(channel_id));
            let Some((channel, replies)) =
                channel.and_then(|channel| Some((channel, channel.replies.as_ref()?)))
            else {
                continue;
            };
            if !channel.send_buffer.has_direct_reply_capacity() {
                tracing::warn!("a direct reply is dropped: its receiver does not read");
                continue;
            }
            channel.send_buffer.write(|buffer| {
                // RabbitMQ's number as well, which is the next delivery's too: nobody acknowledges this one.
                buffer.deliver(
                    channel.number,
                    &replies.tag,
                    channel.peek_delivery_tag(),
                    false,
                    message,
                );
            });
            let send_buffer = Arc::clone(&channel.send_buffer);
            self.wake(&send_buffer);
        }
    }

    /// What a declaration of such a name tells, which declares nothing: whether somebody listens.
    pub(crate) fn declare_reply_queue(&self, name: &str) -> Result<QueueStatus> {
        if name == REPLY_TO || self.reply_channels.contains_key(name) {
            return Ok(QueueStatus {
                name: name.into(),
                messages: 0,
                consumers: 1,
            });
        }
        Err(AmqpError::not_found(format!(
            "no {}",
            self.queue_text(name)
        )))
    }
}
