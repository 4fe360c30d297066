//! The hello service on a bare loop: one connection, one channel, no runtime.

use std::collections::VecDeque;

use crate::{
    connection::{Connection, Event, properties},
    hello::{self, EXCHANGE, Failure, PREFETCH},
};
use amq_protocol::{protocol::basic, types::FieldTable};

/// Serves until the connection is lost.
pub(crate) fn run(uri: &str, service: &str) -> Result<(), Failure> {
    let mut connection = Connection::open(uri)?;
    connection.select_confirms()?;
    let (queue, key) = (hello::queue(service), hello::binding(service));
    connection.subscribe(
        EXCHANGE,
        &queue,
        &key,
        FieldTable::default(),
        PREFETCH,
        false,
    )?;
    // Pairs of publish number and request delivery tag of unconfirmed replies, in publish order.
    let mut unconfirmed = VecDeque::new();
    let mut published = 0;
    let mut events = Vec::new();
    loop {
        connection.poll(&mut events)?;
        for event in events.drain(..) {
            match event {
                Event::Delivery {
                    tag,
                    properties: request,
                    body,
                } => {
                    let mut reply = properties();
                    if let Some(correlation_id) = request.correlation_id() {
                        reply = reply.with_correlation_id(correlation_id.clone());
                    }
                    let reply_to = request.reply_to().clone().unwrap_or_default();
                    // FastStream's clients expect direct replies, through the default exchange.
                    let is_direct = reply_to.as_str().starts_with("amq.rabbitmq.reply-to");
                    let publish = basic::Publish {
                        exchange: if is_direct { "" } else { EXCHANGE }.into(),
                        routing_key: reply_to,
                        mandatory: false,
                        immediate: false,
                    };
                    connection.publish(publish, reply, hello::reply(&body)?);
                    published += 1;
                    unconfirmed.push_back((published, tag));
                }
                Event::Confirmed { number, multiple } => {
                    let confirmed = |&mut (this, _): &mut (u64, u64)| {
                        this == number || multiple && this < number
                    };
                    if multiple {
                        while let Some((_, tag)) = unconfirmed.pop_front_if(confirmed) {
                            connection.ack(tag);
                        }
                    } else if let Some(at) = unconfirmed.iter_mut().position(confirmed)
                        && let Some((_, tag)) = unconfirmed.remove(at)
                    {
                        connection.ack(tag);
                    }
                }
                Event::Returned | Event::Response(_) => {}
            }
        }
    }
}
