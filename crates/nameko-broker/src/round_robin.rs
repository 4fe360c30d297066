//! The consumers of a queue and whose turn it is.

use crate::vhost::ConsumerId;

/// Consumers in the order they take turns: those of higher priority before others, equals one after the other.
#[derive(Debug, Default)]
pub(crate) struct RoundRobin {
    /// The highest priority first; equals in the order they came, turned round at each delivery if `ranked`.
    seats: Vec<Member>,
    /// Index of the consumer whose turn it is, while all have the same priority.
    turn: usize,
    /// Whether one had another priority than the default.
    ranked: bool,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    consumer: ConsumerId,
    priority: i64,
}

impl RoundRobin {
    pub(crate) fn len(&self) -> usize {
        self.seats.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = ConsumerId> + '_ {
        self.seats.iter().map(|seat| seat.consumer)
    }

    /// The one that would be next if all were new and free.
    pub(crate) fn first(&self) -> Option<ConsumerId> {
        self.seats.first().map(|seat| seat.consumer)
    }

    /// Adds a consumer behind its equals.
    pub(crate) fn add(&mut self, consumer: ConsumerId, priority: i64) {
        if priority != 0 && !self.ranked {
            self.ranked = true;
            // The order is what counts from now on.
            self.seats.rotate_left(self.turn);
            self.turn = 0;
        }
        let place = self
            .seats
            .partition_point(|other| other.priority >= priority);
        self.seats.insert(place, Member { consumer, priority });
    }

    /// Removes a consumer, keeping the turns of the others.
    pub(crate) fn remove(&mut self, consumer: ConsumerId) {
        if let Some(index) = self.seats.iter().position(|seat| seat.consumer == consumer) {
            self.seats.remove(index);
            if index < self.turn {
                self.turn -= 1;
            }
        }
        if self.seats.is_empty() {
            *self = Self::default();
        }
    }

    /// The next in turn that may take a message.
    pub(crate) fn next(&mut self, may_take: impl Fn(ConsumerId) -> bool) -> Option<ConsumerId> {
        if self.ranked {
            return self.next_ranked(may_take);
        }
        let count = self.seats.len();
        for step in 0..count {
            let index = (self.turn + step) % count;
            let consumer = self.seats.get(index)?.consumer;
            if may_take(consumer) {
                self.turn = (index + 1) % count;
                return Some(consumer);
            }
        }
        None
    }

    fn next_ranked(&mut self, may_take: impl Fn(ConsumerId) -> bool) -> Option<ConsumerId> {
        let index = self.seats.iter().position(|seat| may_take(seat.consumer))?;
        let chosen = *self.seats.get(index)?;
        // It goes behind its equals.
        let end = self
            .seats
            .partition_point(|seat| seat.priority >= chosen.priority);
        if let Some(equals) = self.seats.get_mut(index..end) {
            equals.rotate_left(1);
        }
        Some(chosen.consumer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(consumers: &[(u64, i64)]) -> RoundRobin {
        let mut turns = RoundRobin::default();
        for (id, priority) in consumers {
            turns.add(ConsumerId(*id), *priority);
        }
        turns
    }

    fn next(turns: &mut RoundRobin, busy: &[u64]) -> Option<u64> {
        turns.next(|id| !busy.contains(&id.0)).map(|id| id.0)
    }

    #[test]
    fn equals_take_turns() {
        let mut turns = turns(&[(1, 0), (2, 0), (3, 0)]);
        let order: Vec<_> = (0..4).map(|_| next(&mut turns, &[])).collect();
        assert_eq!(order, [Some(1), Some(2), Some(3), Some(1)]);
        assert_eq!(next(&mut turns, &[2]), Some(3));
        turns.remove(ConsumerId(1));
        assert_eq!(next(&mut turns, &[]), Some(2));
        assert_eq!(next(&mut turns, &[2, 3]), None);
    }

    #[test]
    fn the_highest_priority_is_served_while_it_is_free() {
        let mut turns = turns(&[(1, 0), (2, 5), (3, -1), (4, 5), (5, 0)]);
        let busy: [&[u64]; 6] = [&[], &[], &[], &[2, 4], &[2, 4], &[1, 2, 4, 5]];
        let order: Vec<_> = busy.map(|busy| next(&mut turns, busy)).into();
        assert_eq!(
            order,
            [Some(2), Some(4), Some(2), Some(1), Some(5), Some(3)]
        );
    }
}
