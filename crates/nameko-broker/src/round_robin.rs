//! Round-robin selection of consumers, by priority.

use crate::ids::ConsumerId;

/// The consumers of a queue. Higher priorities are served first; consumers of equal priority take
/// turns.
#[derive(Debug, Default)]
pub(crate) struct RoundRobin {
    /// Consumers by descending priority. With `prioritized`, consumers of equal priority are
    /// rotated at each delivery.
    members: Vec<Member>,
    /// Index of the next consumer, while all have the same priority.
    cursor: usize,
    /// Whether any consumer was added with a priority other than the default.
    prioritized: bool,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    consumer: ConsumerId,
    priority: i64,
}

impl RoundRobin {
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = ConsumerId> + '_ {
        self.members.iter().map(|member| member.consumer)
    }

    /// Returns the consumer that is first in the current order.
    pub(crate) fn first(&self) -> Option<ConsumerId> {
        self.members.first().map(|member| member.consumer)
    }

    /// Adds a consumer behind the others of its priority.
    pub(crate) fn add(&mut self, consumer: ConsumerId, priority: i64) {
        if priority != 0 && !self.prioritized {
            self.prioritized = true;
            // From here on the order itself is the state.
            self.members.rotate_left(self.cursor);
            self.cursor = 0;
        }
        let place = self
            .members
            .partition_point(|other| other.priority >= priority);
        self.members.insert(place, Member { consumer, priority });
    }

    /// Removes a consumer without changing the turns of the others.
    pub(crate) fn remove(&mut self, consumer: ConsumerId) {
        if let Some(index) = self
            .members
            .iter()
            .position(|member| member.consumer == consumer)
        {
            self.members.remove(index);
            if index < self.cursor {
                self.cursor -= 1;
            }
        }
        if self.members.is_empty() {
            *self = Self::default();
        }
    }

    /// Returns the next consumer that can receive a message, and advances.
    pub(crate) fn next(&mut self, can_receive: impl Fn(ConsumerId) -> bool) -> Option<ConsumerId> {
        if self.prioritized {
            return self.next_prioritized(can_receive);
        }
        let count = self.members.len();
        for step in 0..count {
            let index = (self.cursor + step) % count;
            let consumer = self.members.get(index)?.consumer;
            if can_receive(consumer) {
                self.cursor = (index + 1) % count;
                return Some(consumer);
            }
        }
        None
    }

    fn next_prioritized(&mut self, can_receive: impl Fn(ConsumerId) -> bool) -> Option<ConsumerId> {
        let index = self
            .members
            .iter()
            .position(|member| can_receive(member.consumer))?;
        let chosen = *self.members.get(index)?;
        // Rotated behind the others of its priority.
        let end = self
            .members
            .partition_point(|member| member.priority >= chosen.priority);
        if let Some(equals) = self.members.get_mut(index..end) {
            equals.rotate_left(1);
        }
        Some(chosen.consumer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_robin(members: &[(u64, i64)]) -> RoundRobin {
        let mut consumers = RoundRobin::default();
        for (id, priority) in members {
            consumers.add(ConsumerId(*id), *priority);
        }
        consumers
    }

    fn next(consumers: &mut RoundRobin, busy: &[u64]) -> Option<u64> {
        consumers.next(|id| !busy.contains(&id.0)).map(|id| id.0)
    }

    #[test]
    fn consumers_of_equal_priority_take_turns() {
        let mut consumers = round_robin(&[(1, 0), (2, 0), (3, 0)]);
        let order: Vec<_> = (0..4).map(|_| next(&mut consumers, &[])).collect();
        assert_eq!(order, [Some(1), Some(2), Some(3), Some(1)]);
        assert_eq!(next(&mut consumers, &[2]), Some(3));
        consumers.remove(ConsumerId(1));
        assert_eq!(next(&mut consumers, &[]), Some(2));
        assert_eq!(next(&mut consumers, &[2, 3]), None);
    }

    #[test]
    fn free_consumers_of_higher_priority_are_served_first() {
        let mut consumers = round_robin(&[(1, 0), (2, 5), (3, -1), (4, 5), (5, 0)]);
        let busy: [&[u64]; 6] = [&[], &[], &[], &[2, 4], &[2, 4], &[1, 2, 4, 5]];
        let order: Vec<_> = busy.map(|busy| next(&mut consumers, busy)).into();
        assert_eq!(
            order,
            [Some(2), Some(4), Some(2), Some(1), Some(5), Some(3)]
        );
    }
}
