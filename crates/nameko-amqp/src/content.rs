//! Assembly of messages from their method, header and body frames.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    channel_state::{ChannelState, Reply},
    confirms::Route,
    decode::{ContentHeader, Malformed, Method},
    delivery::{Acker, ConsumerTag, Delivery, Sink},
    properties::Properties,
};

/// Largest accepted body: the largest `max_message_size` that RabbitMQ can be configured with.
const MAX_BODY_BYTES: u64 = 512 * 1024 * 1024;

/// Memory reserved on the announced size of a body. Beyond it, the body grows as it arrives.
const MAX_PREALLOCATED_BODY_BYTES: u64 = 1024 * 1024;

/// An incomplete message.
pub(crate) struct Content {
    channel: Arc<ChannelState>,
    kind: Kind,
    header: Option<Header>,
    body: Vec<u8>,
}

enum Kind {
    Deliver {
        /// `None` if there is no such consumer.
        consumer: Option<(ConsumerTag, Sink)>,
        envelope: Envelope,
    },
    Get(Envelope),
    Return {
        code: u16,
        text: String,
        exchange: String,
        routing_key: String,
    },
}

struct Envelope {
    tag: u64,
    redelivered: bool,
    exchange: Arc<str>,
    routing_key: String,
}

struct Header {
    properties: Result<Properties, Malformed>,
    /// Number of body bytes still to be received.
    missing: u64,
}

impl Content {
    /// Begins a message with a method that carries content; gives back any other method.
    ///
    /// `last_exchange` is the exchange of the previous message, which saves copying the name for
    /// each.
    pub(crate) fn begin<'a>(
        method: Method<'a>,
        channel: &Arc<ChannelState>,
        last_exchange: &mut Arc<str>,
    ) -> Result<Self, Method<'a>> {
        let mut intern = |name: &str| {
            if **last_exchange != *name {
                *last_exchange = Arc::from(name);
            }
            Arc::clone(last_exchange)
        };
        let kind = match method {
            Method::Deliver {
                consumer_tag,
                delivery_tag,
                redelivered,
                exchange,
                routing_key,
            } => Kind::Deliver {
                consumer: channel.consumer(&consumer_tag),
                envelope: Envelope {
                    tag: delivery_tag,
                    redelivered,
                    exchange: intern(&exchange),
                    routing_key: routing_key.into_owned(),
                },
            },
            Method::GetOk {
                delivery_tag,
                redelivered,
                exchange,
                routing_key,
            } => Kind::Get(Envelope {
                tag: delivery_tag,
                redelivered,
                exchange: intern(&exchange),
                routing_key: routing_key.into_owned(),
            }),
            Method::Return {
                code,
                text,
                exchange,
                routing_key,
            } => Kind::Return {
                code,
                text: text.into_owned(),
                exchange: exchange.into_owned(),
                routing_key: routing_key.into_owned(),
            },
            other => return Err(other),
        };
        Ok(Self {
            channel: Arc::clone(channel),
            kind,
            header: None,
            body: Vec::new(),
        })
    }

    /// Adds the header frame. Returns whether the message is complete.
    pub(crate) fn header(&mut self, payload: &[u8]) -> Result<bool, Malformed> {
        if self.header.is_some() {
            return Err("a second header frame in one message".to_owned());
        }
        let header = ContentHeader::parse(payload)?;
        let mut properties = header.properties();
        if header.body_size > MAX_BODY_BYTES {
            properties = Err(format!(
                "a body of {} bytes exceeds the limit of {MAX_BODY_BYTES}",
                header.body_size
            ));
        }
        self.header = Some(Header {
            properties,
            missing: header.body_size,
        });
        Ok(header.body_size == 0)
    }

    /// Adds a body frame. Returns whether the message is complete.
    pub(crate) fn body(&mut self, payload: &[u8]) -> Result<bool, Malformed> {
        let Some(header) = &mut self.header else {
            return Err("a body frame before the header of its message".to_owned());
        };
        let received = payload.len() as u64;
        let Some(missing) = header.missing.checked_sub(received) else {
            return Err("a body longer than announced in its header".to_owned());
        };
        // The body of a message that is not delivered is discarded.
        if header.properties.is_ok() && !matches!(self.kind, Kind::Return { .. }) {
            if self.body.capacity() == 0 {
                let size = header.missing.min(MAX_PREALLOCATED_BODY_BYTES);
                let size = usize::try_from(size).unwrap_or(payload.len());
                self.body.reserve_exact(size);
            }
            self.body.extend_from_slice(payload);
        }
        header.missing = missing;
        Ok(missing == 0)
    }

    /// Passes the complete message to its consumer or caller.
    pub(crate) fn deliver(self) -> Result<(), Malformed> {
        let Self {
            channel,
            kind,
            header,
            body,
        } = self;
        let properties = match header {
            Some(header) => header.properties,
            None => return Err("a message without a header".to_owned()),
        };
        match kind {
            // In flight when this side closed the channel; the broker requeues it.
            Kind::Deliver { .. } if channel.writer.is_closed() => {}
            Kind::Deliver {
                consumer: Some((consumer_tag, sink)),
                envelope,
            } => {
                if let Some(delivery) = delivery(&channel, envelope, consumer_tag, properties, body)
                {
                    let acker = delivery.acker.clone();
                    // A panic must not end the connection: the redelivered message would end the
                    // next one as well.
                    if catch_unwind(AssertUnwindSafe(|| sink(delivery))).is_err() {
                        tracing::error!("a sink panicked; its message is rejected");
                        acker.reject(false);
                    }
                }
            }
            Kind::Deliver {
                consumer: None,
                envelope,
            } => {
                Acker::new(Arc::clone(&channel.writer), envelope.tag).reject(true);
            }
            Kind::Get(envelope) => {
                let tag = ConsumerTag::from("");
                let delivery = delivery(&channel, envelope, tag, properties, body);
                return channel.on_reply(60, 71, Reply::Got(delivery.map(Box::new)));
            }
            Kind::Return {
                code,
                text,
                exchange,
                routing_key,
            } => {
                let correlation_id = properties
                    .ok()
                    .and_then(|properties| properties.correlation_id);
                let route = Route::new(&exchange, &routing_key, correlation_id.as_deref());
                channel.on_return(&route, code, text);
            }
        }
        Ok(())
    }
}

/// Builds a delivery. An unreadable message is rejected instead: if it ended the connection, it
/// would be redelivered and end every connection after it.
fn delivery(
    channel: &ChannelState,
    envelope: Envelope,
    consumer_tag: ConsumerTag,
    properties: Result<Properties, Malformed>,
    body: Vec<u8>,
) -> Option<Delivery> {
    let Envelope {
        tag,
        redelivered,
        exchange,
        routing_key,
    } = envelope;
    let acker = Acker::new(Arc::clone(&channel.writer), tag);
    match properties {
        Ok(properties) => Some(Delivery {
            body: Bytes::from(body),
            properties,
            exchange,
            routing_key,
            redelivered,
            consumer_tag,
            delivery_tag: tag,
            acker,
        }),
        Err(reason) => {
            let peer = &channel.connection().peer;
            tracing::error!(
                "rejected a message of exchange `{exchange}`, routing key `{routing_key}` from {peer}: {reason}; \
                 it is lost unless its queue has a dead letter exchange"
            );
            acker.reject(false);
            None
        }
    }
}
