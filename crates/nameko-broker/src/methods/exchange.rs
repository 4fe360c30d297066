//! Methods of class `exchange`.

use amq_protocol::protocol::{AMQPClass, exchange, exchange::AMQPMethod as Method};

use crate::{
    channel::{Channel, ChannelContext},
    error::{AmqpError, Result},
    vhost::{BindTo, DeclareExchange},
};

impl Channel {
    pub(super) fn exchange(&self, context: &ChannelContext<'_>, method: Method) -> Result<()> {
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
            _ => return Err(AmqpError::unknown_method()),
        };
        self.reply(context, nowait, AMQPClass::Exchange(ok));
        Ok(())
    }
}
