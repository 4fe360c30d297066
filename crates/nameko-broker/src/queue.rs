//! One queue: its ready messages, in order.

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

/// A queue and what is ready in it. Delivered and not yet acknowledged messages are kept by their channel.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) name: Name,
    pub(crate) durable: bool,
    /// The connection that declared it exclusive; it goes with that connection.
    pub(crate) owner: Option<ConnectionId>,
    pub(crate) auto_delete: bool,
    /// As declared, to compare with later declarations.
    pub(crate) table: FieldTable,
    pub(crate) arguments: QueueArguments,
    pub(crate) consumers: RoundRobin,
    /// The consumer that wants no others beside it.
    pub(crate) exclusive_consumer: Option<ConsumerId>,
    /// The one that gets everything, where there is a single active consumer and somebody consumes.
    pub(crate) active_consumer: Option<ConsumerId>,
    /// When it was last declared, passively too, read with `basic.get` or lost its last consumer: `x-expires` counts from here.
    pub(crate) used_at: Instant,
    /// When the timer will look at this queue, if it will.
    pub(crate) deadline: Option<Instant>,
    ready: ReadyMessages,
    ready_bytes: u64,
    next_position: u64,
    /// How many messages at the head of a quorum queue came back.
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

    /// How many messages are ready.
    pub(crate) fn len(&self) -> usize {
        self.ready.len()
    }

    /// Bytes in the bodies of ready messages.
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

    /// Adds a new message behind those of its priority.
    pub(crate) fn push(&mut self, message: Arc<Message>, now: impl FnOnce() -> Instant) {
        let ttl = match (self.arguments.message_ttl, message.expiration) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let entry = Entry {
            position: self.next_position,
            redelivered: false,
            return_count: 0,
            // A time too far off to be told is as good as never.
            expires_at: ttl.and_then(|ttl| now().checked_add(ttl)),
            message,
        };
        self.next_position += 1;
        self.ready_bytes += entry.message.body.len() as u64;
        self.ready.push(self.priority(&entry), entry);
    }

    /// Whether another message of this size would be exceeds the limit, and the queue rejects then.
    pub(crate) fn rejects(&self, size: usize) -> bool {
        self.arguments.overflow != Overflow::DropHead
            && (exceeds(self.arguments.max_length, self.ready.len() as u64 + 1)
                || exceeds(
                    self.arguments.max_length_bytes,
                    self.ready_bytes + size as u64,
                ))
    }

    /// Refuses a message, which becomes a dead letter where the queue wants that.
    pub(crate) fn reject(&self, message: Arc<Message>, dead_letters: &mut VecDeque<DeadLetter>) {
        if self.arguments.overflow == Overflow::RejectToDeadLetters {
            self.dead_letter(message, Reason::MaxLength, dead_letters);
        }
    }

    /// Puts a delivered message back where it was.
    pub(crate) fn requeue(&mut self, mut entry: Entry) {
        entry.redelivered = true;
        self.ready_bytes += entry.message.body.len() as u64;
        self.ready.restore(self.priority(&entry), entry);
    }

    /// Puts a delivered message back into a quorum queue: before all that did not come back, or `last` of all. As in RabbitMQ
    /// messages come again in the order they came back, and one that did too often is a dead letter.
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

    /// Takes the first message.
    pub(crate) fn pop(&mut self) -> Option<Entry> {
        let entry = self.ready.pop()?;
        self.ready_bytes -= entry.message.body.len() as u64;
        self.returned_len = self.returned_len.saturating_sub(1);
        Some(entry)
    }

    /// Drops the first until the limits are kept, unless the queue rejects new ones instead.
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

    /// Drops what expired at the head. As in RabbitMQ a message further back waits until it gets there.
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

    /// Makes a dead letter of a message that left the queue, where there are such.
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

    /// Drops everything ready; says how many.
    pub(crate) fn purge(&mut self) -> usize {
        let count = self.ready.len();
        self.ready.clear();
        self.ready_bytes = 0;
        self.returned_len = 0;
        count
    }

    /// When there is next something for the timer to do.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let message = self.ready.front().and_then(|entry| entry.expires_at);
        match (message, self.expires_at()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// When the queue itself goes, if nobody uses it before.
    pub(crate) fn expires_at(&self) -> Option<Instant> {
        match self.arguments.expires {
            Some(expires) if self.consumers.is_empty() => self.used_at.checked_add(expires),
            _ => None,
        }
    }

    /// Removes a consumer. Says whether another one is the active one now.
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

    /// The level among the ready messages an entry belongs to.
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

    /// Takes everything out of a queue.
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
    fn requeued_messages_go_back_to_their_places_in_any_order() {
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
    fn limits_drop_the_oldest_or_refuse_the_newest() {
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
    fn a_message_that_comes_back_too_often_dies() {
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
    fn only_the_head_expires_and_the_shorter_time_counts() {
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
    fn an_unused_queue_has_a_deadline_and_a_used_one_has_none() {
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
