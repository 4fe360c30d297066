//! A handler on a bare loop: one connection, one channel, no runtime.

use amq_protocol::types::FieldTable;

use super::{EVENT, Queues};
use crate::{
    connection::{Connection, Event},
    hello::{Failure, PREFETCH},
    reports::Reports,
};

/// Serves until the connection is lost.
pub(crate) fn run(queues: &Queues) -> Result<(), Failure> {
    let reports = Reports::new();
    let mut connection = Connection::open(&queues.uri)?;
    for queue in &queues.queues {
        let arguments = FieldTable::default();
        connection.subscribe(&queues.exchange, queue, EVENT, arguments, PREFETCH, false)?;
    }
    let mut events = Vec::new();
    loop {
        connection.poll(&mut events)?;
        for event in events.drain(..) {
            if let Event::Delivery { tag, body, .. } = event {
                let text: String = serde_json::from_slice(&body)?;
                reports.handled(text.len());
                connection.ack(tag);
            }
        }
    }
}
