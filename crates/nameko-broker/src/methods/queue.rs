//! Methods of class `queue`.

use amq_protocol::protocol::{AMQPClass, queue, queue::AMQPMethod as Method};

use crate::{
    channel::{Channel, ChannelContext},
    error::{AmqpError, Result},
    name::short_string,
    vhost::{BindTo, DeclareQueue, count},
};

impl Channel {
    pub(super) fn queue(&mut self, context: &ChannelContext<'_>, method: Method) -> Result<()> {
        let (nowait, ok) = match method {
            Method::Declare(declare) => (declare.nowait, self.declare_queue(context, declare)?),
            Method::Bind(bind) => (bind.nowait, self.bind_queue(context, bind)?),
            Method::Unbind(unbind) => (false, self.unbind_queue(context, unbind)?),
            Method::Purge(purge) => (purge.nowait, self.purge_queue(context, &purge)?),
            Method::Delete(delete) => (delete.nowait, self.delete_queue(context, &delete)?),
            _ => return Err(AmqpError::unknown_method()),
        };
        self.reply(context, nowait, AMQPClass::Queue(ok));
        Ok(())
    }

    fn declare_queue(
        &mut self,
        context: &ChannelContext<'_>,
        declare: queue::Declare,
    ) -> Result<Method> {
        let request = DeclareQueue {
            name: declare.queue.as_str(),
            passive: declare.passive,
            durable: declare.durable,
            exclusive: declare.exclusive,
            auto_delete: declare.auto_delete,
            table: declare.arguments,
        };
        let status = context
            .vhost
            .lock()
            .declare_queue(request, context.connection)?;
        let ok = queue::DeclareOk {
            queue: short_string(&status.name),
            message_count: status.messages,
            consumer_count: status.consumers,
        };
        self.last_queue = Some(status.name);
        Ok(Method::DeclareOk(ok))
    }

    fn bind_queue(&self, context: &ChannelContext<'_>, bind: queue::Bind) -> Result<Method> {
        let name = self.queue_name(bind.queue.as_str())?;
        let key = self.routing_key(bind.queue.as_str(), bind.routing_key.as_str());
        context.vhost.lock().bind(
            bind.exchange.as_str(),
            BindTo::Queue(name),
            key,
            bind.arguments,
            context.connection,
        )?;
        Ok(Method::BindOk(queue::BindOk {}))
    }

    fn unbind_queue(&self, context: &ChannelContext<'_>, unbind: queue::Unbind) -> Result<Method> {
        let name = self.queue_name(unbind.queue.as_str())?;
        let key = self.routing_key(unbind.queue.as_str(), unbind.routing_key.as_str());
        context.vhost.lock().unbind(
            unbind.exchange.as_str(),
            BindTo::Queue(name),
            key,
            unbind.arguments,
            context.connection,
        )?;
        Ok(Method::UnbindOk(queue::UnbindOk {}))
    }

    fn purge_queue(&self, context: &ChannelContext<'_>, purge: &queue::Purge) -> Result<Method> {
        let name = self.queue_name(purge.queue.as_str())?;
        let purged = context.vhost.lock().purge(name, context.connection)?;
        Ok(Method::PurgeOk(queue::PurgeOk {
            message_count: count(purged),
        }))
    }

    fn delete_queue(&self, context: &ChannelContext<'_>, delete: &queue::Delete) -> Result<Method> {
        let name = self.queue_name(delete.queue.as_str())?;
        let deleted = context.vhost.lock().delete_queue_by_name(
            name,
            delete.if_unused,
            delete.if_empty,
            context.connection,
        )?;
        Ok(Method::DeleteOk(queue::DeleteOk {
            message_count: count(deleted),
        }))
    }

    /// Returns the queue that a method names. An empty name stands for the queue most recently
    /// declared on this channel (AMQP 0-9-1, `queue.bind` and others).
    pub(super) fn queue_name<'a>(&'a self, name: &'a str) -> Result<&'a str> {
        match (name, &self.last_queue) {
            ("", Some(last)) => Ok(last),
            ("", None) => Err(AmqpError::not_found("no previously declared queue")),
            (name, _) => Ok(name),
        }
    }

    /// Returns the routing key of a binding. If the key and the queue name are both empty, it is
    /// the name of the queue most recently declared on this channel.
    fn routing_key<'a>(&'a self, queue: &str, key: &'a str) -> &'a str {
        match (queue, key, &self.last_queue) {
            ("", "", Some(last)) => last,
            _ => key,
        }
    }
}
