//! Transactions of a channel: publishes and settlements that wait for `tx.commit`.

use std::collections::BTreeMap;

use crate::{
    channel_consumers::{Settlement, Unacked},
    message::Message,
    name::Name,
};

/// Publishes and settlements of a channel since `tx.select`, the last commit or the last rollback.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    pub(crate) publishes: Vec<UncommittedPublish>,
    /// Deliveries by delivery tag, in the order of their settlement.
    pub(crate) settlements: Vec<(Settlement, BTreeMap<u64, Unacked>)>,
}

/// A message to be enqueued at the commit.
#[derive(Debug)]
pub(crate) struct UncommittedPublish {
    pub(crate) message: Message,
    pub(crate) mandatory: bool,
    /// Queues selected by the bindings at the time of the publish. As in RabbitMQ, they are looked
    /// up by name at the commit.
    pub(crate) queues: Vec<Name>,
}

impl Transaction {
    /// Adds settled deliveries. Consecutive settlements of a kind are applied as one.
    pub(crate) fn settle(
        &mut self,
        deliveries: impl Iterator<Item = (u64, Unacked)>,
        settlement: Settlement,
    ) {
        match self.settlements.last_mut() {
            Some((last, settled)) if *last == settlement => settled.extend(deliveries),
            _ => self.settlements.push((settlement, deliveries.collect())),
        }
    }

    /// Returns the settled deliveries.
    pub(crate) fn settled(&self) -> impl Iterator<Item = &Unacked> {
        self.settlements
            .iter()
            .flat_map(|(_, deliveries)| deliveries.values())
    }

    /// Drops the publishes and returns the settled deliveries by delivery tag.
    pub(crate) fn roll_back(self) -> impl Iterator<Item = (u64, Unacked)> {
        self.settlements
            .into_iter()
            .flat_map(|(_, deliveries)| deliveries)
    }
}
