//! Consuming and sending direct replies.

use std::sync::Arc;

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
    /// Adds the direct-reply consumer of a channel and replies to the client.
    pub(crate) fn consume_direct_replies(
        &mut self,
        channel_id: ChannelId,
        request: &ConsumeRequest<'_>,
    ) -> Result<()> {
        let Some(channel) = self.channels.get_mut(&channel_id) else {
            return Ok(());
        };
        let tag = channel.new_consumer_tag(request.tag)?;
        if !request.no_ack {
            return Err(AmqpError::precondition_failed(
                "reply consumer cannot acknowledge",
            ));
        }
        if channel.replies.is_some() {
            return Err(AmqpError::precondition_failed("reply consumer already set"));
        }
        let address: Name = format!("{REPLY_TO}.{}", Uuid::new_v4().simple()).into();
        if !request.nowait {
            channel.confirm_consume(&tag);
        }
        channel.replies = Some(ReplyConsumer {
            tag,
            address: address.clone(),
        });
        self.reply_channels.insert(address, channel_id);
        Ok(())
    }

    /// Removes the direct-reply consumer of a channel if it has this tag. Returns whether it had.
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

    /// Removes the direct-reply address of a closed channel.
    pub(crate) fn remove_direct_replies(&mut self, replies: Option<ReplyConsumer>) {
        if let Some(replies) = replies {
            self.reply_channels.remove(&replies.address);
        }
    }

    /// Re-encodes a content header with the channel's address as `reply_to`.
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

    /// Sends a message to the channels whose direct-reply addresses are among its routing keys.
    /// This does not count as routing: the message may still be unroutable.
    pub(crate) fn send_direct_replies(&mut self, message: &Message) {
        if self.reply_channels.is_empty() || !message.exchange.is_empty() {
            return;
        }
        for key in message.routing_keys() {
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
                tracing::warn!("dropping a direct reply: the client does not read");
                continue;
            }
            channel.send_buffer.write(|buffer| {
                // As in RabbitMQ, the tag of the next delivery is reused: direct replies are not
                // acknowledged.
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

    /// Replies to the declaration of a direct-reply name, which declares nothing but reports
    /// whether the address has a consumer.
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
