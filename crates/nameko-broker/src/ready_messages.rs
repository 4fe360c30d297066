//! Ready messages of a queue, in order of delivery.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
};

use crate::message::Entry;

/// Messages ordered by priority, then by position.
#[derive(Debug, Default)]
pub(crate) struct ReadyMessages {
    /// Messages of priority 0, the only ones in a queue without priorities.
    lowest: VecDeque<Entry>,
    /// Messages of other priorities, highest first. Contains no empty list.
    higher: BTreeMap<Reverse<u8>, VecDeque<Entry>>,
    /// Number of messages in `higher`.
    higher_len: usize,
}

impl ReadyMessages {
    pub(crate) fn len(&self) -> usize {
        self.lowest.len() + self.higher_len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lowest.is_empty() && self.higher_len == 0
    }

    /// Returns the next message.
    pub(crate) fn front(&self) -> Option<&Entry> {
        if self.higher_len == 0 {
            return self.lowest.front();
        }
        self.higher
            .first_key_value()
            .and_then(|(_, entries)| entries.front())
    }

    /// Removes and returns the next message.
    pub(crate) fn pop(&mut self) -> Option<Entry> {
        if self.higher_len == 0 {
            return self.lowest.pop_front();
        }
        let mut entries = self.higher.first_entry()?;
        let entry = entries.get_mut().pop_front();
        if entries.get().is_empty() {
            entries.remove();
        }
        self.higher_len -= 1;
        entry
    }

    /// Appends a message to its priority.
    pub(crate) fn push(&mut self, priority: u8, entry: Entry) {
        self.level_mut(priority).push_back(entry);
    }

    /// Inserts a message into its priority, ordered by position.
    pub(crate) fn restore(&mut self, priority: u8, entry: Entry) {
        let level_mut = self.level_mut(priority);
        let place = match level_mut.front() {
            Some(first) if first.position < entry.position => {
                level_mut.partition_point(|other| other.position < entry.position)
            }
            _ => 0,
        };
        level_mut.insert(place, entry);
    }

    /// Inserts a message of the lowest priority at an index, or at the end if there are fewer
    /// messages.
    pub(crate) fn insert(&mut self, place: usize, entry: Entry) {
        let place = place.min(self.lowest.len());
        self.lowest.insert(place, entry);
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Returns the list of a priority, counting the message about to be added.
    fn level_mut(&mut self, priority: u8) -> &mut VecDeque<Entry> {
        if priority == 0 {
            return &mut self.lowest;
        }
        self.higher_len += 1;
        self.higher.entry(Reverse(priority)).or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(position: u64) -> Entry {
        Entry {
            position,
            ..Entry::default()
        }
    }

    proptest! {
        /// Compared with a sorted list.
        #[test]
        fn messages_are_ordered_by_priority_then_position(
            steps in prop::collection::vec((0u8..4, any::<bool>(), any::<bool>()), 0..60),
        ) {
            let mut ready = ReadyMessages::default();
            let mut model: Vec<(Reverse<u8>, u64)> = Vec::new();
            let mut taken = Vec::new();
            for (position, (priority, take, restore)) in (0..).zip(steps) {
                ready.push(priority, entry(position));
                model.push((Reverse(priority), position));
                model.sort();
                if take {
                    let first = model.remove(0);
                    prop_assert_eq!(ready.front().map(|e| e.position), Some(first.1));
                    prop_assert_eq!(ready.pop().map(|e| e.position), Some(first.1));
                    taken.push(first);
                }
                if restore && let Some((priority, position)) = taken.pop() {
                    ready.restore(priority.0, entry(position));
                    model.push((priority, position));
                    model.sort();
                }
                prop_assert_eq!((ready.len(), ready.is_empty()), (model.len(), model.is_empty()));
            }
            let rest: Vec<u64> = std::iter::from_fn(|| ready.pop()).map(|e| e.position).collect();
            prop_assert_eq!(rest, model.into_iter().map(|(_, position)| position).collect::<Vec<_>>());
        }
    }
}
