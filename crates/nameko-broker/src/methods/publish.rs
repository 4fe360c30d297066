//! `basic.publish`: routing, returns and publisher confirms.

use amq_protocol::{
    protocol::{AMQPClass, basic},
    types::FieldTable,
};

use crate::{
    channel::{Channel, ChannelContext, ChannelMode, PUBLISH, PublishAssembly},
    error::{AmqpError, Code, Result},
    message::Message,
    name::short_string,
    vhost::{IncomingPublish, Published},
};

impl Channel {
    /// Publishes a complete message.
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
            return Err(AmqpError::not_implemented("immediate=true"));
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
        if matches!(self.mode, ChannelMode::Transaction) {
            state.publish_in_transaction(self.id, message, headers, method.mandatory);
            return Ok(());
        }
        // Kept for `basic.return`; the parts of a message are shared, so a clone is cheap.
        let returned = method.mandatory.then(|| message.clone());
        let outcome = state.publish(message, headers);
        drop(state);
        match (outcome, returned) {
            (Published::Unroutable, Some(message)) => self.return_message(context, &message),
            (Published::Rejected, _) => self.nack_publish(context),
            _ => self.confirm(),
        }
        Ok(())
    }

    /// Returns an unroutable mandatory message to its publisher, then confirms it.
    fn return_message(&mut self, context: &ChannelContext<'_>, message: &Message) {
        // Clients take a return to belong to the next confirm, so earlier confirms go first.
        self.flush_confirms(context);
        self.send_return(context, message);
        self.confirm();
        self.flush_confirms(context);
    }

    /// Sends `basic.return` for an unroutable mandatory message.
    pub(super) fn send_return(&self, context: &ChannelContext<'_>, message: &Message) {
        let method = basic::Return {
            reply_code: Code::NoRoute.id(),
            reply_text: short_string(Code::NoRoute.name()),
            exchange: short_string(&message.exchange),
            routing_key: short_string(&message.routing_key),
        };
        context.send_buffer.write(|buffer| {
            buffer.content_reply(self.number, basic::AMQPMethod::Return(method), message);
        });
    }

    /// Sends `basic.nack` for a message that a full queue rejected.
    fn nack_publish(&mut self, context: &ChannelContext<'_>) {
        self.flush_confirms(context);
        self.confirm();
        let ChannelMode::Confirm(confirms) = &mut self.mode else {
            return;
        };
        confirms.last_confirmed = confirms.last_published;
        let nack = basic::Nack {
            delivery_tag: confirms.last_published,
            multiple: false,
            requeue: false,
        };
        let nack = basic::AMQPMethod::Nack(nack);
        context
            .send_buffer
            .method(self.number, AMQPClass::Basic(nack));
    }

    /// Counts a published message; its confirm is sent by the next flush.
    fn confirm(&mut self) {
        if let ChannelMode::Confirm(confirms) = &mut self.mode {
            confirms.last_published += 1;
        }
    }
}
