//! Bindings of queues and exchanges to exchanges.

use std::{collections::HashMap, sync::Arc};

use amq_protocol::types::FieldTable;

use crate::{ids::QueueId, name::Name};

/// Target of a binding.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Destination {
    Queue(QueueId),
    Exchange(Name),
}

/// A binding. Bindings with equal fields are identical and stored once.
#[derive(Debug, PartialEq)]
pub(crate) struct Binding {
    pub(crate) source: Name,
    pub(crate) destination: Destination,
    pub(crate) key: Name,
    pub(crate) arguments: FieldTable,
}

/// All bindings by destination, to detect duplicates and to unbind a deleted queue or exchange.
#[derive(Debug, Default)]
pub(crate) struct Bindings {
    by_destination: HashMap<Destination, Vec<Arc<Binding>>>,
}

impl Bindings {
    /// Adds a binding. Returns `None` if it already exists.
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

    /// Removes a binding. Returns `None` if it does not exist.
    pub(crate) fn remove(&mut self, binding: &Binding) -> Option<Arc<Binding>> {
        let known = self.by_destination.get_mut(&binding.destination)?;
        let index = known.iter().position(|other| **other == *binding)?;
        let found = known.swap_remove(index);
        if known.is_empty() {
            self.by_destination.remove(&binding.destination);
        }
        Some(found)
    }

    /// Iterates over the bindings of a destination.
    #[cfg(feature = "management")]
    pub(crate) fn to(&self, destination: &Destination) -> impl Iterator<Item = &Arc<Binding>> {
        self.by_destination.get(destination).into_iter().flatten()
    }

    /// Iterates over all bindings, in no particular order.
    #[cfg(feature = "management")]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Binding>> {
        self.by_destination.values().flatten()
    }

    /// Removes and returns all bindings of a destination.
    pub(crate) fn remove_to(&mut self, destination: &Destination) -> Vec<Arc<Binding>> {
        self.by_destination.remove(destination).unwrap_or_default()
    }

    /// Removes all bindings of a source exchange.
    pub(crate) fn remove_from(&mut self, source: &str) {
        self.by_destination.retain(|_, bindings| {
            bindings.retain(|b| &*b.source != source);
            !bindings.is_empty()
        });
    }
}
