//! A queue and its ready messages.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use amq_protocol::types::FieldTable;

use crate::{
    arguments::{Overflow, QueueArguments, QueueKind},
    dead_letter::DeadLetter,
    ids::{ConnectionId, ConsumerId},
    message::{Entry, Message},
    name::Name,
    ready_messages::ReadyMessages,
    round_robin::RoundRobin,
    x_death::Reason,
};

/// A queue. Delivered, unacknowledged messages belong to their channel.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) name: Name,
    pub(crate) durable: bool,
    /// The connection that declared the queue exclusive; the queue is deleted with it.
    pub(crate) owner: Option<ConnectionId>,
    pub(crate) auto_delete: bool,
    /// Arguments as declared, for comparison with redeclarations.
    pub(crate) table: FieldTable,
    pub(crate) arguments: QueueArguments,
    pub(crate) consumers: RoundRobin,
    /// The exclusive consumer, if any.
    pub(crate) exclusive_consumer: Option<ConsumerId>,
    /// The active consumer of a queue with `x-single-active-consumer`.
    pub(crate) active_consumer: Option<ConsumerId>,
    /// Last declaration (including passive ones), `basic.get`, or end of the last consumer.
    /// `x-expires` counts from here.
    pub(crate) used_at: Instant,
    /// The entry of this queue in the virtual host's `deadlines`, if any.
    pub(crate) deadline: Option<Instant>,
    ready: ReadyMessages,
    ready_bytes: u64,
    next_position: u64,
    /// Number of requeued messages at the head of a quorum queue.
    returned_len: usize,
}

impl Queue {
    pub(crate) fn new(
        name: Name,
        durable: bool,
        owner: Option<ConnectionId>,
        auto_delete: bool,
        table: FieldTable,
        arguments: QueueArguments,
        now: Instant,
    ) -> Self {
        Self {
            name,
            durable,
            owner,
            auto_delete,
            table,
            arguments,
            consumers: RoundRobin::default(),
            exclusive_consumer: None,
            active_consumer: None,
            used_at: now,
            deadline: None,
            ready: ReadyMessages::default(),
            ready_bytes: 0,
            next_position: 0,
            returned_len: 0,
        }
    }

    /// Returns the number of ready messages.
    pub(crate) fn len(&self) -> usize {
        self.ready.len()
    }

    /// Returns the total body size of the ready messages, in bytes.
    #[cfg(feature = "management")]
    pub(crate) fn ready_bytes(&self) -> u64 {
        self.ready_bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    pub(crate) fn is_quorum(&self) -> bool {
        self.arguments.kind == QueueKind::Quorum
    }

    /// Appends a new message, behind all of its priority.
    pub(crate) fn push(&mut self, message: Arc<Message>, now: impl FnOnce() -> Instant) {
        let ttl = match (self.arguments.message_ttl, message.expiration) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let entry = Entry {
            position: self.next_position,
            redelivered: false,
            return_count: 0,
            // A time beyond the range of `Instant` is equivalent to never.
            expires_at: ttl.and_then(|ttl| now().checked_add(ttl)),
            message,
        };
        self.next_position += 1;
        self.ready_bytes += entry.message.body.len() as u64;
        self.ready.push(self.priority(&entry), entry);
    }

    /// Returns whether the queue rejects another message of this size because it is full.
    pub(crate) fn rejects(&self, size: usize) -> bool {
        self.arguments.overflow != Overflow::DropHead
            && (exceeds(self.arguments.max_length, self.ready.len() as u64 + 1)
                || exceeds(
                    self.arguments.max_length_bytes,
                    self.ready_bytes + size as u64,
                ))
    }

    /// Rejects a message, dead-lettering it if `x-overflow` says so.
    pub(crate) fn reject(&self, message: Arc<Message>, dead_letters: &mut VecDeque<DeadLetter>) {
        if self.arguments.overflow == Overflow::RejectToDeadLetters {
            self.dead_letter(message, Reason::MaxLength, dead_letters);
        }
    }

    /// Returns a delivered message to its former position.
    pub(crate) fn requeue(&mut self, mut entry: Entry) {
        entry.redelivered = true;
        self.ready_bytes += entry.message.body.len() as u64;
        self.ready.restore(self.priority(&entry), entry);
    }

    /// Returns a delivered message to a quorum queue: behind the other returned messages at the
    /// head or, with `last`, to the tail. As in RabbitMQ, messages are redelivered in the order of
    /// their return, and a message over the delivery limit is dead-lettered.
    pub(crate) fn return_delivery(
        &mut self,
        mut entry: Entry,
        last: bool,
        dead_letters: &mut VecDeque<DeadLetter>,
    ) {
        entry.redelivered = true;
        entry.return_count = entry.return_count.saturating_add(1);
        let limit = self.arguments.delivery_limit;
        if limit.is_some_and(|limit| u64::from(entry.return_count) > limit) {
            self.dead_letter(entry.message, Reason::DeliveryLimit, dead_letters);
            return;
        }
        self.ready_bytes += entry.message.body.len() as u64;
        if last {
            self.ready.push(0, entry);
        } else {
            self.ready.insert(self.returned_len, entry);
            self.returned_len += 1;
        }
    }

    /// Removes and returns the first message.
    pub(crate) fn pop(&mut self) -> Option<Entry> {
        let entry = self.ready.pop()?;
        self.ready_bytes -= entry.message.body.len() as u64;
        self.returned_len = self.returned_len.saturating_sub(1);
        Some(entry)
    }

    /// Drops messages from the head until the limits hold, unless the queue rejects new messages
    /// instead.
    pub(crate) fn drop_over_limit(&mut self, dead_letters: &mut VecDeque<DeadLetter>) {
        if self.arguments.overflow != Overflow::DropHead {
            return;
        }
        while exceeds(self.arguments.max_length, self.ready.len() as u64)
            || exceeds(self.arguments.max_length_bytes, self.ready_bytes)
        {
            let Some(entry) = self.pop() else {
                break;
            };
            self.dead_letter(entry.message, Reason::MaxLength, dead_letters);
        }
    }

    /// Drops expired messages at the head. As in RabbitMQ, messages further back do not expire
    /// until they reach the head.
    pub(crate) fn drop_expired(
        &mut self,
        now: impl Fn() -> Instant,
        dead_letters: &mut VecDeque<DeadLetter>,
    ) {
        while let Some(Entry {
            expires_at: Some(at),
            ..
        }) = self.ready.front()
        {
            if *at > now() {
                break;
            }
            if let Some(entry) = self.pop() {
                self.dead_letter(entry.message, Reason::Expired, dead_letters);
            }
        }
    }

    /// Dead-letters a message that left the queue, if a dead-letter exchange is set.
    pub(crate) fn dead_letter(
        &self,
        message: Arc<Message>,
        reason: Reason,
        dead_letters: &mut VecDeque<DeadLetter>,
    ) {
        if let Some(target) = &self.arguments.dead_letter_target {
            dead_letters.push_back(DeadLetter {
                queue: self.name.clone(),
                target: target.clone(),
                message,
                reason,
            });
        }
    }

    /// Drops all ready messages and returns their number.
    pub(crate) fn purge(&mut self) -> usize {
        let count = self.ready.len();
        self.ready.clear();
        self.ready_bytes = 0;
        self.returned_len = 0;
        count
    }

    /// Returns the time of the next expiry of the queue or of its first message.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let message = self.ready.front().and_then(|entry| entry.expires_at);
        match (message, self.expires_at()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Returns when the queue itself expires if it stays unused.
    pub(crate) fn expires_at(&self) -> Option<Instant> {
        match self.arguments.expires {
            Some(expires) if self.consumers.is_empty() => self.used_at.checked_add(expires),
            _ => None,
        }
    }

    /// Removes a consumer. Returns whether another consumer became the active one.
    pub(crate) fn remove_consumer(&mut self, consumer: ConsumerId) -> bool {
        self.consumers.remove(consumer);
        if self.exclusive_consumer == Some(consumer) {
            self.exclusive_consumer = None;
        }
        if self.active_consumer != Some(consumer) {
            return false;
        }
        self.active_consumer = self.consumers.first();
        self.active_consumer.is_some()
    }

    /// Returns the effective priority of a message, capped to `x-max-priority`.
    fn priority(&self, entry: &Entry) -> u8 {
        entry.message.priority.min(self.arguments.max_priority)
    }
}

fn exceeds(limit: Option<u64>, is: u64) -> bool {
    limit.is_some_and(|limit| is > limit)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::arguments::DeadLetterTarget;

    fn queue(arguments: QueueArguments) -> Queue {
        Queue::new(
            "q".into(),
            false,
            None,
            false,
            FieldTable::default(),
            arguments,
            Instant::now(),
        )
    }

    fn message(body: &'static str, expiration: Option<Duration>) -> Arc<Message> {
        Arc::new(Message {
            body: Bytes::from_static(body.as_bytes()),
            expiration,
            ..Message::default()
        })
    }

    /// Drains a queue.
    fn bodies(queue: &mut Queue) -> Vec<String> {
        std::iter::from_fn(|| queue.pop())
            .map(|entry| String::from_utf8(entry.message.body.to_vec()).unwrap())
            .collect()
    }

    fn dead_letter_target() -> Option<DeadLetterTarget> {
        Some(DeadLetterTarget {
            exchange: "".into(),
            key: None,
        })
    }

    #[test]
    fn requeued_messages_return_to_their_positions_in_any_order() {
        let mut queue = queue(QueueArguments::default());
        for body in ["a", "b", "c", "d"] {
            queue.push(message(body, None), Instant::now);
        }
        let taken: Vec<Entry> = (0..3).filter_map(|_| queue.pop()).collect();
        for index in [1, 2, 0] {
            queue.requeue(taken[index].clone());
        }
        assert_eq!(bodies(&mut queue), ["a", "b", "c", "d"]);
        queue.requeue(taken[0].clone());
        assert!(queue.pop().unwrap().redelivered);
    }

    #[test]
    fn limits_drop_the_oldest_or_reject_the_newest() {
        let mut dead_letters = VecDeque::new();
        let mut drop_head = queue(QueueArguments {
            max_length: Some(2),
            dead_letter_target: dead_letter_target(),
            ..QueueArguments::default()
        });
        for body in ["a", "b", "c"] {
            drop_head.push(message(body, None), Instant::now);
            drop_head.drop_over_limit(&mut dead_letters);
        }
        assert!(!drop_head.rejects(1));
        assert_eq!(bodies(&mut drop_head), ["b", "c"]);
        let mut refusing = queue(QueueArguments {
            max_length_bytes: Some(3),
            overflow: Overflow::Reject,
            ..QueueArguments::default()
        });
        refusing.push(message("aa", None), Instant::now);
        assert!(!refusing.rejects(1) && refusing.rejects(2));
        refusing.reject(message("b", None), &mut dead_letters);
        let reasons: Vec<_> = dead_letters.iter().map(|letter| letter.reason).collect();
        assert_eq!(reasons, [Reason::MaxLength]);
    }

    #[test]
    fn messages_over_the_delivery_limit_are_dead_lettered() {
        let mut dead_letters = VecDeque::new();
        let mut queue = queue(QueueArguments {
            kind: QueueKind::Quorum,
            delivery_limit: Some(1),
            dead_letter_target: dead_letter_target(),
            ..QueueArguments::default()
        });
        for body in ["a", "b", "c"] {
            queue.push(message(body, None), Instant::now);
        }
        let held = [queue.pop().unwrap(), queue.pop().unwrap()];
        for entry in held.into_iter().rev() {
            queue.return_delivery(entry, false, &mut dead_letters);
        }
        let again = queue.pop().unwrap();
        queue.return_delivery(again, false, &mut dead_letters);
        assert_eq!(bodies(&mut queue), ["a", "c"]);
        let died: Vec<_> = dead_letters
            .iter()
            .map(|letter| (letter.reason, &letter.message.body[..]))
            .collect();
        assert_eq!(died, [(Reason::DeliveryLimit, &b"b"[..])]);
    }

    #[test]
    fn only_the_head_expires_and_the_shorter_ttl_applies() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut queue = queue(QueueArguments {
            message_ttl: Some(second * 10),
            ..QueueArguments::default()
        });
        queue.push(message("long", None), || now);
        queue.push(message("short", Some(second)), || now);
        assert_eq!(queue.next_deadline(), Some(now + second * 10));
        let mut dead_letters = VecDeque::new();
        queue.drop_expired(|| now + second * 2, &mut dead_letters);
        assert_eq!(queue.len(), 2);
        queue.drop_expired(|| now + second * 10, &mut dead_letters);
        assert!(queue.is_empty() && dead_letters.is_empty());
    }

    #[test]
    fn only_unused_queues_have_an_expiry_deadline() {
        let mut queue = queue(QueueArguments {
            expires: Some(Duration::from_secs(5)),
            ..QueueArguments::default()
        });
        assert_eq!(
            queue.next_deadline(),
            Some(queue.used_at + Duration::from_secs(5))
        );
        queue.consumers.add(ConsumerId(1), 0);
        assert_eq!(queue.next_deadline(), None);
        queue.remove_consumer(ConsumerId(1));
        assert!(queue.next_deadline().is_some());
    }
}
