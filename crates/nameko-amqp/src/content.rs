//! Putting a message together from its method, header and body frames.

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

/// The largest body that is taken, in bytes. RabbitMQ 4 takes at most this too (`max_message_size`).
const MAX_BODY_BYTES: u64 = 512 * 1024 * 1024;

/// At most this much memory is taken on a peer's word for the size of a body; more is taken as it comes.
const MAX_PREALLOCATED_BODY_BYTES: u64 = 1024 * 1024;

/// A message of which frames are still to come.
pub(crate) struct Content {
    channel: Arc<ChannelState>,
    kind: Kind,
    header: Option<Header>,
    body: Vec<u8>,
}

enum Kind {
    /// For a consumer, `None` when there is none of that name.
    Deliver {
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
    /// How many bytes of body are still to come.
    missing: u64,
}

impl Content {
    /// Begins with a method that has content; any other method is given back. `exchange` is the exchange of the message
    /// before, so that the name need not be copied for each.
    pub(crate) fn begin<'a>(
        method: Method<'a>,
        channel: &Arc<ChannelState>,
        exchange: &mut Arc<str>,
    ) -> Result<Self, Method<'a>> {
        let mut shared = |name: &str| {
            if **exchange != *name {
                *exchange = Arc::from(name);
            }
            Arc::clone(exchange)
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
                    exchange: shared(&exchange),
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
                exchange: shared(&exchange),
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

    /// The header frame. `true` when the message is whole with it.
    pub(crate) fn header(&mut self, payload: &[u8]) -> Result<bool, Malformed> {
        if self.header.is_some() {
            return Err("a second header frame in one message".to_owned());
        }
        let header = ContentHeader::parse(payload)?;
        let mut properties = header.properties();
        if header.body_size > MAX_BODY_BYTES {
            properties = Err(format!(
                "a body of {} bytes, at most {MAX_BODY_BYTES} are taken",
                header.body_size
            ));
        }
        self.header = Some(Header {
            properties,
            missing: header.body_size,
        });
        Ok(header.body_size == 0)
    }

    /// A body frame. `true` when the message is whole with it.
    pub(crate) fn body(&mut self, payload: &[u8]) -> Result<bool, Malformed> {
        let Some(header) = &mut self.header else {
            return Err("a body frame before the header of its message".to_owned());
        };
        let came = payload.len() as u64;
        let Some(missing) = header.missing.checked_sub(came) else {
            return Err("a body longer than its header said".to_owned());
        };
        // What nobody will read is not kept.
        if header.properties.is_ok() && !matches!(self.kind, Kind::Return { .. }) {
            if self.body.capacity() == 0 {
                let size = usize::try_from(header.missing.min(MAX_PREALLOCATED_BODY_BYTES))
                    .unwrap_or(payload.len());
                self.body.reserve_exact(size);
            }
            self.body.extend_from_slice(payload);
        }
        header.missing = missing;
        Ok(missing == 0)
    }

    /// Hands the whole message to whom it is for.
    pub(crate) fn finish(self) -> Result<(), Malformed> {
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
            // It was on its way when we closed the channel; the broker puts it back.
            Kind::Deliver { .. } if channel.is_shut() => {}
            Kind::Deliver {
                consumer: Some((consumer_tag, sink)),
                envelope,
            } => {
                if let Some(delivery) = deliver(channel, envelope, consumer_tag, properties, body) {
                    let acker = delivery.acker.clone();
                    // A panic must not end the connection: the message would come again, and end the next.
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
                Acker::new(channel, envelope.tag).reject(true);
            }
            Kind::Get(envelope) => {
                let state = Arc::clone(&channel);
                let delivery = deliver(channel, envelope, ConsumerTag::from(""), properties, body);
                return state.replied(60, 71, Reply::Got(delivery.map(Box::new)));
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
                channel.returned(&route, code, text);
            }
        }
        Ok(())
    }
}

/// A delivery of what came. What cannot be read is rejected instead: the connection must not end for it, or it would be
/// delivered, and end connections, for ever.
fn deliver(
    channel: Arc<ChannelState>,
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
    let peer = channel.connection.peer.clone();
    let acker = Acker::new(channel, tag);
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
            tracing::error!(
                "rejected a message of exchange `{exchange}`, routing key `{routing_key}` from {peer}: {reason}; \
                 it is lost unless its queue has a dead letter exchange"
            );
            acker.reject(false);
            None
        }
    }
}
