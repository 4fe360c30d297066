//! Methods of class `basic`, except `basic.publish`.

use amq_protocol::protocol::{AMQPClass, basic, basic::AMQPMethod as Method};

use crate::{
    channel::{Channel, ChannelContext},
    channel_consumers::Settlement,
    direct_reply::REPLY_TO,
    error::{AmqpError, Result},
    name::short_string,
    vhost::ConsumeRequest,
};

impl Channel {
    pub(super) fn basic(&mut self, context: &ChannelContext<'_>, method: Method) -> Result<()> {
        match method {
            Method::Ack(ack) => {
                let (tag, multiple) = (ack.delivery_tag, ack.multiple);
                self.settle(context, tag, multiple, Settlement::Ack)
            }
            Method::Reject(reject) => {
                let settlement = negative_settlement(reject.requeue);
                self.settle(context, reject.delivery_tag, false, settlement)
            }
            Method::Nack(nack) => {
                let settlement = negative_settlement(nack.requeue);
                self.settle(context, nack.delivery_tag, nack.multiple, settlement)
            }
            Method::Qos(qos) => {
                self.qos(context, &qos);
                Ok(())
            }
            Method::Consume(consume) => self.consume(context, consume),
            Method::Cancel(cancel) => {
                self.cancel(context, cancel);
                Ok(())
            }
            Method::Get(get) => self.get(context, &get),
            Method::Recover(basic::Recover { requeue: false })
            | Method::RecoverAsync(basic::RecoverAsync { requeue: false }) => {
                Err(AmqpError::not_implemented("requeue=false"))
            }
            Method::Recover(_) => {
                // Replied to before the redeliveries, as RabbitMQ does: a client may discard
                // everything that was delivered before the reply.
                let ok = Method::RecoverOk(basic::RecoverOk {});
                self.reply(context, false, AMQPClass::Basic(ok));
                context.vhost.lock().recover(self.id);
                Ok(())
            }
            Method::RecoverAsync(_) => {
                context.vhost.lock().recover(self.id);
                Ok(())
            }
            // Some clients confirm a cancel notification.
            Method::CancelOk(_) => Ok(()),
            _ => Err(AmqpError::unknown_method()),
        }
    }

    fn settle(
        &self,
        context: &ChannelContext<'_>,
        delivery_tag: u64,
        multiple: bool,
        settlement: Settlement,
    ) -> Result<()> {
        let mut state = context.vhost.lock();
        state.settle(self.id, delivery_tag, multiple, settlement)
    }

    fn qos(&self, context: &ChannelContext<'_>, qos: &basic::Qos) {
        let mut state = context.vhost.lock();
        if qos.global {
            state.set_global_prefetch(self.id, qos.prefetch_count);
        } else {
            state.set_consumer_prefetch(self.id, qos.prefetch_count);
        }
        let ok = Method::QosOk(basic::QosOk {});
        self.reply(context, false, AMQPClass::Basic(ok));
    }

    fn consume(&self, context: &ChannelContext<'_>, consume: basic::Consume) -> Result<()> {
        let request = ConsumeRequest {
            queue: self.queue_name(consume.queue.as_str())?,
            tag: consume.consumer_tag.as_str(),
            no_ack: consume.no_ack,
            exclusive: consume.exclusive,
            nowait: consume.nowait,
            table: consume.arguments,
        };
        let mut state = context.vhost.lock();
        if request.queue == REPLY_TO {
            state.consume_direct_replies(self.id, &request)
        } else {
            state.consume(self.id, &request)
        }
    }

    fn cancel(&self, context: &ChannelContext<'_>, cancel: basic::Cancel) {
        let mut state = context.vhost.lock();
        state.cancel(self.id, cancel.consumer_tag.as_str());
        let ok = Method::CancelOk(basic::CancelOk {
            consumer_tag: cancel.consumer_tag,
        });
        self.reply(context, cancel.nowait, AMQPClass::Basic(ok));
    }

    fn get(&self, context: &ChannelContext<'_>, get: &basic::Get) -> Result<()> {
        let queue = self.queue_name(get.queue.as_str())?;
        // Locked until the reply is written: a delivery with the next tag must not precede it.
        let mut state = context.vhost.lock();
        let Some(got) = state.get(self.id, queue, get.no_ack, context.connection)? else {
            let empty = Method::GetEmpty(basic::GetEmpty {});
            self.reply(context, false, AMQPClass::Basic(empty));
            return Ok(());
        };
        let counted = got.entry.with_delivery_count();
        let message = counted.as_ref().unwrap_or(&got.entry.message);
        let ok = basic::GetOk {
            delivery_tag: got.delivery_tag,
            redelivered: got.entry.redelivered,
            exchange: short_string(&message.exchange),
            routing_key: short_string(&message.routing_key),
            message_count: got.messages,
        };
        context.send_buffer.write(|buffer| {
            buffer.content_reply(self.number, Method::GetOk(ok), message);
        });
        Ok(())
    }
}

fn negative_settlement(requeue: bool) -> Settlement {
    if requeue {
        Settlement::Requeue
    } else {
        Settlement::Reject
    }
}
