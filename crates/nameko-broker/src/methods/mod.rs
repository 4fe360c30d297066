//! Methods of a channel: validated, applied to the virtual host, and replied to.

mod basic;
mod exchange;
mod publish;
mod queue;
mod tx;

use amq_protocol::protocol::{AMQPClass, access, channel as protocol, confirm};

use crate::{
    channel::{Channel, ChannelContext, ChannelMode, Confirms},
    error::{AmqpError, Code, Result},
};

impl Channel {
    /// Executes a method and replies to it.
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
                match self.mode {
                    ChannelMode::Normal => self.mode = ChannelMode::Confirm(Confirms::default()),
                    ChannelMode::Confirm(_) => {}
                    ChannelMode::Transaction => {
                        return Err(AmqpError::precondition_failed(
                            "cannot switch from tx to confirm mode",
                        ));
                    }
                }
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
                Err(AmqpError::not_implemented("active=false"))
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
            AMQPClass::Tx(method) => self.tx(context, method),
            _ => Err(AmqpError::unknown_method()),
        }
    }

    /// Sends the reply to a method, unless the client set `nowait`.
    fn reply(&self, context: &ChannelContext<'_>, nowait: bool, method: AMQPClass) {
        if !nowait {
            context.send_buffer.method(self.number, method);
        }
    }
}
