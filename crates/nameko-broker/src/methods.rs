//! The methods of a channel: each is checked, done in the virtual host, and answered.

use amq_protocol::{
    protocol::{AMQPClass, access, basic, channel as protocol, confirm, exchange, queue},
    types::FieldTable,
};

use crate::{
    channel::{Channel, ChannelContext, Confirms, PUBLISH, PublishAssembly},
    direct_reply::REPLY_TO,
    error::{AmqpError, Code, Result},
    name::short_string,
    vhost::{
        BindTo, ConsumeRequest, DeclareExchange, DeclareQueue, IncomingPublish, Published,
        Settlement, count,
    },
};

impl Channel {
    /// Does a method and answers it.
    pub(crate) fn dispatch(
        &mut self,
        context: &ChannelContext<'_>,
        method: AMQPClass,
    ) -> Result<()> {
        match method {
            AMQPClass::Basic(method) => self.basic(context, method),
            AMQPClass::Queue(method) => self.queue(context, method),
            AMQPClass::Exchange(method) => self.exchange(context, method),
            AMQPClass::Confirm(confirm::AMQPMethod::Select(select)) => {
                self.confirms.get_or_insert_with(Confirms::default);
                let ok = confirm::AMQPMethod::SelectOk(confirm::SelectOk {});
                self.reply(context, select.nowait, AMQPClass::Confirm(ok));
                Ok(())
            }
            AMQPClass::Channel(protocol::AMQPMethod::Flow(flow)) if flow.active => {
                let ok = protocol::AMQPMethod::FlowOk(protocol::FlowOk { active: true });
                self.reply(context, false, AMQPClass::Channel(ok));
                Ok(())
            }
            AMQPClass::Channel(protocol::AMQPMethod::Flow(_)) => {
                Err(not_implemented("active=false"))
            }
            AMQPClass::Channel(protocol::AMQPMethod::Open(_)) => Err(AmqpError::new(
                Code::ChannelError,
                "second 'channel.open' seen",
            )),
            AMQPClass::Access(access::AMQPMethod::Request(_)) => {
                let ok = access::AMQPMethod::RequestOk(access::RequestOk {});
                self.reply(context, false, AMQPClass::Access(ok));
                Ok(())
            }
            AMQPClass::Tx(_) => Err(not_implemented(
                "the embedded broker does not support transactions; use publisher confirms, or RabbitMQ",
            )),
            _ => Err(AmqpError::new(Code::CommandInvalid, "unimplemented method")),
        }
    }

    /// Publishes a message whose content is complete.
    pub(crate) fn publish(
        &mut self,
        context: &ChannelContext<'_>,
        publishing: PublishAssembly,
    ) -> Result<()> {
        self.try_publish(context, publishing)
            .map_err(|e| e.in_method(PUBLISH))
    }

    fn try_publish(
        &mut self,
        context: &ChannelContext<'_>,
        publishing: PublishAssembly,
    ) -> Result<()> {
        let PublishAssembly {
            method,
            header,
            raw_header,
            body,
            ..
        } = publishing;
        if method.immediate {
            return Err(not_implemented("immediate=true"));
        }
        let properties = header.properties;
        let mut state = context.vhost.lock();
        let headers = properties.headers().as_ref().map(FieldTable::inner);
        let incoming = IncomingPublish {
            exchange: method.exchange.as_str(),
            routing_key: String::from(method.routing_key),
            properties: &properties,
            header: raw_header,
            body,
            user: context.user,
            channel: self.id,
        };
        let message = state.validate_publish(incoming)?;
        // A return needs the message after it was routed nowhere; its parts are broker, so a copy costs little.
        let returned = method.mandatory.then(|| message.clone());
        let outcome = state.publish(message, headers);
        drop(state);
        match (outcome, returned) {
            (Published::Unroutable, Some(message)) => {
                // Clients take a return for that of the next message confirmed: tell them of the ones before first.
                self.flush_confirms(context);
                let method = basic::Return {
                    reply_code: Code::NoRoute.id(),
                    reply_text: short_string(Code::NoRoute.name()),
                    exchange: short_string(&message.exchange),
                    routing_key: short_string(&message.routing_key),
                };
                context.send_buffer.write(|buffer| {
                    buffer.content_reply(self.number, basic::AMQPMethod::Return(method), &message);
                });
                self.confirm();
                self.flush_confirms(context);
            }
            (Published::Rejected, _) => {
                self.flush_confirms(context);
                self.confirm();
                if let Some(confirms) = &mut self.confirms {
                    confirms.last_confirmed = confirms.last_published;
                    let nack = basic::Nack {
                        delivery_tag: confirms.last_published,
                        multiple: false,
                        requeue: false,
                    };
                    context
                        .send_buffer
                        .method(self.number, AMQPClass::Basic(basic::AMQPMethod::Nack(nack)));
                }
            }
            _ => self.confirm(),
        }
        Ok(())
    }

    fn confirm(&mut self) {
        if let Some(confirms) = &mut self.confirms {
            confirms.last_published += 1;
        }
    }

    fn basic(&mut self, context: &ChannelContext<'_>, method: basic::AMQPMethod) -> Result<()> {
        use basic::AMQPMethod as Method;
        match method {
            Method::Ack(ack) => context.vhost.lock().settle(
                self.id,
                ack.delivery_tag,
                ack.multiple,
                Settlement::Ack,
            ),
            Method::Reject(reject) => {
                let settlement = settlement(reject.requeue);
                context
                    .vhost
                    .lock()
                    .settle(self.id, reject.delivery_tag, false, settlement)
            }
            Method::Nack(nack) => {
                let settlement = settlement(nack.requeue);
                context
                    .vhost
                    .lock()
                    .settle(self.id, nack.delivery_tag, nack.multiple, settlement)
            }
            Method::Qos(qos) => {
                let mut state = context.vhost.lock();
                if qos.global {
                    state.set_global_prefetch(self.id, qos.prefetch_count);
                } else {
                    state.set_consumer_prefetch(self.id, qos.prefetch_count);
                }
                self.reply(
                    context,
                    false,
                    AMQPClass::Basic(Method::QosOk(basic::QosOk {})),
                );
                Ok(())
            }
            Method::Consume(consume) => {
                let ask = ConsumeRequest {
                    queue: self.queue_name(consume.queue.as_str())?,
                    tag: consume.consumer_tag.as_str(),
                    no_ack: consume.no_ack,
                    exclusive: consume.exclusive,
                    nowait: consume.nowait,
                    table: consume.arguments,
                };
                let mut state = context.vhost.lock();
                if ask.queue == REPLY_TO {
                    state.consume_direct_replies(self.id, &ask)
                } else {
                    state.consume(self.id, &ask)
                }
            }
            Method::Cancel(cancel) => {
                let mut state = context.vhost.lock();
                state.cancel(self.id, cancel.consumer_tag.as_str());
                let ok = basic::CancelOk {
                    consumer_tag: cancel.consumer_tag,
                };
                self.reply(
                    context,
                    cancel.nowait,
                    AMQPClass::Basic(Method::CancelOk(ok)),
                );
                Ok(())
            }
            Method::Get(get) => {
                let queue = self.queue_name(get.queue.as_str())?;
                // Kept until the answer is written: a delivery with the next tag must not come before it.
                let mut state = context.vhost.lock();
                let got = state.get(self.id, queue, get.no_ack, context.connection)?;
                let Some(got) = got else {
                    self.reply(
                        context,
                        false,
                        AMQPClass::Basic(Method::GetEmpty(basic::GetEmpty {})),
                    );
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
            Method::Recover(basic::Recover { requeue: false })
            | Method::RecoverAsync(basic::RecoverAsync { requeue: false }) => {
                Err(not_implemented("requeue=false"))
            }
            Method::Recover(_) => {
                // Said first, as by RabbitMQ: a client may drop what it was delivered before.
                self.reply(
                    context,
                    false,
                    AMQPClass::Basic(Method::RecoverOk(basic::RecoverOk {})),
                );
                context.vhost.lock().recover(self.id);
                Ok(())
            }
            Method::RecoverAsync(_) => {
                context.vhost.lock().recover(self.id);
                Ok(())
            }
            // The answer to a cancel notification, from clients that send one.
            Method::CancelOk(_) => Ok(()),
            _ => Err(AmqpError::new(Code::CommandInvalid, "unimplemented method")),
        }
    }

    fn queue(&mut self, context: &ChannelContext<'_>, method: queue::AMQPMethod) -> Result<()> {
        use queue::AMQPMethod as Method;
        match method {
            Method::Declare(declare) => {
                let ask = DeclareQueue {
                    name: declare.queue.as_str(),
                    passive: declare.passive,
                    durable: declare.durable,
                    exclusive: declare.exclusive,
                    auto_delete: declare.auto_delete,
                    table: declare.arguments,
                };
                let declared = context
                    .vhost
                    .lock()
                    .declare_queue(ask, context.connection)?;
                let ok = queue::DeclareOk {
                    queue: short_string(&declared.name),
                    message_count: declared.messages,
                    consumer_count: declared.consumers,
                };
                self.last_queue = Some(declared.name);
                self.reply(
                    context,
                    declare.nowait,
                    AMQPClass::Queue(Method::DeclareOk(ok)),
                );
            }
            Method::Bind(bind) => {
                let name = self.queue_name(bind.queue.as_str())?;
                let key = self.routing_key(bind.queue.as_str(), bind.routing_key.as_str());
                let to = BindTo::Queue(name);
                context.vhost.lock().bind(
                    bind.exchange.as_str(),
                    to,
                    key,
                    bind.arguments,
                    context.connection,
                )?;
                self.reply(
                    context,
                    bind.nowait,
                    AMQPClass::Queue(Method::BindOk(queue::BindOk {})),
                );
            }
            Method::Unbind(unbind) => {
                let name = self.queue_name(unbind.queue.as_str())?;
                let key = self.routing_key(unbind.queue.as_str(), unbind.routing_key.as_str());
                let to = BindTo::Queue(name);
                context.vhost.lock().unbind(
                    unbind.exchange.as_str(),
                    to,
                    key,
                    unbind.arguments,
                    context.connection,
                )?;
                self.reply(
                    context,
                    false,
                    AMQPClass::Queue(Method::UnbindOk(queue::UnbindOk {})),
                );
            }
            Method::Purge(purge) => {
                let name = self.queue_name(purge.queue.as_str())?;
                let purged = context.vhost.lock().purge(name, context.connection)?;
                let ok = queue::PurgeOk {
                    message_count: count(purged),
                };
                self.reply(context, purge.nowait, AMQPClass::Queue(Method::PurgeOk(ok)));
            }
            Method::Delete(delete) => {
                let name = self.queue_name(delete.queue.as_str())?;
                let deleted = context.vhost.lock().delete_queue_by_name(
                    name,
                    delete.if_unused,
                    delete.if_empty,
                    context.connection,
                )?;
                let ok = queue::DeleteOk {
                    message_count: count(deleted),
                };
                self.reply(
                    context,
                    delete.nowait,
                    AMQPClass::Queue(Method::DeleteOk(ok)),
                );
            }
            _ => return Err(AmqpError::new(Code::CommandInvalid, "unimplemented method")),
        }
        Ok(())
    }

    fn exchange(
        &mut self,
        context: &ChannelContext<'_>,
        method: exchange::AMQPMethod,
    ) -> Result<()> {
        use exchange::AMQPMethod as Method;
        let mut state = context.vhost.lock();
        let (nowait, ok) = match method {
            Method::Declare(declare) => {
                state.declare_exchange(DeclareExchange {
                    name: declare.exchange.as_str(),
                    kind: declare.kind.as_str(),
                    passive: declare.passive,
                    durable: declare.durable,
                    auto_delete: declare.auto_delete,
                    internal: declare.internal,
                    table: declare.arguments,
                })?;
                (declare.nowait, Method::DeclareOk(exchange::DeclareOk {}))
            }
            Method::Delete(delete) => {
                state.delete_exchange(delete.exchange.as_str(), delete.if_unused)?;
                (delete.nowait, Method::DeleteOk(exchange::DeleteOk {}))
            }
            Method::Bind(bind) => {
                let to = BindTo::Exchange(bind.destination.as_str());
                let key = bind.routing_key.as_str();
                state.bind(
                    bind.source.as_str(),
                    to,
                    key,
                    bind.arguments,
                    context.connection,
                )?;
                (bind.nowait, Method::BindOk(exchange::BindOk {}))
            }
            Method::Unbind(unbind) => {
                let to = BindTo::Exchange(unbind.destination.as_str());
                let key = unbind.routing_key.as_str();
                state.unbind(
                    unbind.source.as_str(),
                    to,
                    key,
                    unbind.arguments,
                    context.connection,
                )?;
                (unbind.nowait, Method::UnbindOk(exchange::UnbindOk {}))
            }
            _ => return Err(AmqpError::new(Code::CommandInvalid, "unimplemented method")),
        };
        self.reply(context, nowait, AMQPClass::Exchange(ok));
        Ok(())
    }

    fn reply(&self, context: &ChannelContext<'_>, nowait: bool, method: AMQPClass) {
        if !nowait {
            context.send_buffer.method(self.number, method);
        }
    }

    /// The queue a method means; an empty name is the one last declared on this channel.
    fn queue_name<'a>(&'a self, name: &'a str) -> Result<&'a str> {
        match (name, &self.last_queue) {
            ("", Some(last)) => Ok(last),
            ("", None) => Err(AmqpError::not_found("no previously declared queue")),
            (name, _) => Ok(name),
        }
    }

    /// An empty key beside an empty queue name stands for the queue last declared.
    fn routing_key<'a>(&'a self, queue: &str, key: &'a str) -> &'a str {
        match (queue, key, &self.last_queue) {
            ("", "", Some(last)) => last,
            _ => key,
        }
    }
}

fn settlement(requeue: bool) -> Settlement {
    if requeue {
        Settlement::Requeue
    } else {
        Settlement::Reject
    }
}

fn not_implemented(text: &str) -> AmqpError {
    AmqpError::new(Code::NotImplemented, text)
}
