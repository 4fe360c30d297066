//! Bindings: from an exchange to a queue or to another exchange.

use std::{collections::HashMap, sync::Arc};

use amq_protocol::types::FieldTable;

use crate::{ids::QueueId, name::Name};

/// Where a binding leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Destination {
    Queue(QueueId),
    Exchange(Name),
}

/// One binding. Two with the same fields are one and the same.
#[derive(Debug, PartialEq)]
pub(crate) struct Binding {
    pub(crate) source: Name,
    pub(crate) destination: Destination,
    pub(crate) key: Name,
    pub(crate) arguments: FieldTable,
}

/// All bindings by where they lead: to find out whether one is there already, and what goes with a queue.
#[derive(Debug, Default)]
pub(crate) struct Bindings {
    by_destination: HashMap<Destination, Vec<Arc<Binding>>>,
}

impl Bindings {
    /// Stores a binding; `None` when it was there before.
    pub(crate) fn add(&mut self, binding: Binding) -> Option<Arc<Binding>> {
        let known = self
            .by_destination
            .entry(binding.destination.clone())
            .or_default();
        if known.iter().any(|other| **other == binding) {
            return None;
        }
        let binding = Arc::new(binding);
        known.push(binding.clone());
        Some(binding)
    }

    /// Removes a binding; `None` when there was none.
    pub(crate) fn remove(&mut self, binding: &Binding) -> Option<Arc<Binding>> {
        let known = self.by_destination.get_mut(&binding.destination)?;
        let index = known.iter().position(|other| **other == *binding)?;
        let found = known.swap_remove(index);
        if known.is_empty() {
            self.by_destination.remove(&binding.destination);
        }
        Some(found)
    }

    /// What leads there.
    #[cfg(feature = "management")]
    pub(crate) fn to(&self, destination: &Destination) -> impl Iterator<Item = &Arc<Binding>> {
        self.by_destination.get(destination).into_iter().flatten()
    }

    /// All of them, in no order.
    #[cfg(feature = "management")]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Binding>> {
        self.by_destination.values().flatten()
    }

    /// Removes everything that leads there.
    pub(crate) fn remove_to(&mut self, destination: &Destination) -> Vec<Arc<Binding>> {
        self.by_destination.remove(destination).unwrap_or_default()
    }

    /// Removes everything that starts at this exchange.
    pub(crate) fn remove_from(&mut self, source: &str) {
        self.by_destination.retain(|_, bindings| {
            bindings.retain(|b| &*b.source != source);
            !bindings.is_empty()
        });
    }
}
