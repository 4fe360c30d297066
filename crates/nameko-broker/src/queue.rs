//! One queue: its ready messages, in order.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use amq_protocol::types::FieldTable;

use crate::{
    arguments::QueueArguments,
    message::{Entry, Message, Name},
    vhost::{ConnectionId, ConsumerId},
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
    /// In the order they take turns.
    pub(crate) consumers: Vec<ConsumerId>,
    /// Index of the consumer whose turn it is.
    pub(crate) turn: usize,
    /// The consumer that wants no others beside it.
    pub(crate) exclusive_consumer: Option<ConsumerId>,
    /// When it was last declared, passively too, read with `basic.get` or lost its last consumer: `x-expires` counts from here.
    pub(crate) used_at: Instant,
    /// When the timer will look at this queue, if it will.
    pub(crate) deadline: Option<Instant>,
    /// Sorted by position.
    ready: VecDeque<Entry>,
    ready_bytes: u64,
    next_position: u64,
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
            consumers: Vec::new(),
            turn: 0,
            exclusive_consumer: None,
            used_at: now,
            deadline: None,
            ready: VecDeque::new(),
            ready_bytes: 0,
            next_position: 0,
        }
    }

    /// How many messages are ready.
    pub(crate) fn len(&self) -> usize {
        self.ready.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// Adds a new message at the end.
    pub(crate) fn push(&mut self, message: Arc<Message>, now: impl FnOnce() -> Instant) {
        let ttl = match (self.arguments.message_ttl, message.expiration) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let entry = Entry {
            position: self.next_position,
            redelivered: false,
            // A time too far off to be told is as good as never.
            expires_at: ttl.and_then(|ttl| now().checked_add(ttl)),
            message,
        };
        self.next_position += 1;
        self.ready_bytes += entry.message.body.len() as u64;
        self.ready.push_back(entry);
    }

    /// Whether another message of this size would be over the limit, and the queue refuses then.
    pub(crate) fn refuses(&self, size: usize) -> bool {
        let over = |limit: Option<u64>, next: u64| limit.is_some_and(|limit| next > limit);
        self.arguments.reject_publish
            && (over(self.arguments.max_length, self.ready.len() as u64 + 1)
                || over(
                    self.arguments.max_length_bytes,
                    self.ready_bytes + size as u64,
                ))
    }

    /// Puts a delivered message back where it was.
    pub(crate) fn requeue(&mut self, mut entry: Entry) {
        entry.redelivered = true;
        self.ready_bytes += entry.message.body.len() as u64;
        let place = match self.ready.front() {
            Some(first) if first.position < entry.position => self
                .ready
                .partition_point(|other| other.position < entry.position),
            _ => 0,
        };
        self.ready.insert(place, entry);
    }

    /// Takes the first message.
    pub(crate) fn pop(&mut self) -> Option<Entry> {
        let entry = self.ready.pop_front()?;
        self.ready_bytes -= entry.message.body.len() as u64;
        Some(entry)
    }

    /// Drops the oldest until the limits are kept; says how many.
    pub(crate) fn drop_over_limit(&mut self) -> usize {
        let mut dropped = 0;
        let over = |limit: Option<u64>, is: u64| limit.is_some_and(|limit| is > limit);
        while over(self.arguments.max_length, self.ready.len() as u64)
            || over(self.arguments.max_length_bytes, self.ready_bytes)
        {
            if self.pop().is_none() {
                break;
            }
            dropped += 1;
        }
        dropped
    }

    /// Drops what expired at the head. As in RabbitMQ a message further back waits until it gets there.
    pub(crate) fn drop_expired(&mut self, now: impl Fn() -> Instant) {
        while let Some(Entry {
            expires_at: Some(at),
            ..
        }) = self.ready.front()
        {
            if *at > now() {
                break;
            }
            self.pop();
        }
    }

    /// Drops everything ready; says how many.
    pub(crate) fn purge(&mut self) -> usize {
        let count = self.ready.len();
        self.ready.clear();
        self.ready_bytes = 0;
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

    /// Removes a consumer, keeping the turns of the others.
    pub(crate) fn remove_consumer(&mut self, consumer: ConsumerId) {
        if let Some(index) = self.consumers.iter().position(|c| *c == consumer) {
            self.consumers.remove(index);
            if index < self.turn {
                self.turn -= 1;
            }
        }
        if self.exclusive_consumer == Some(consumer) {
            self.exclusive_consumer = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;

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
            exchange: "".into(),
            routing_key: "q".into(),
            header: Bytes::new(),
            body: Bytes::from_static(body.as_bytes()),
            expiration,
        })
    }

    fn bodies(queue: &Queue) -> Vec<&str> {
        queue
            .ready
            .iter()
            .map(|e| std::str::from_utf8(&e.message.body).unwrap())
            .collect()
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
        assert_eq!(bodies(&queue), ["a", "b", "c", "d"]);
        assert!(queue.pop().unwrap().redelivered);
    }

    #[test]
    fn limits_drop_the_oldest_or_refuse_the_newest() {
        let mut drop_head = queue(QueueArguments {
            max_length: Some(2),
            ..QueueArguments::default()
        });
        for body in ["a", "b", "c"] {
            drop_head.push(message(body, None), Instant::now);
            drop_head.drop_over_limit();
        }
        assert_eq!(bodies(&drop_head), ["b", "c"]);
        assert!(!drop_head.refuses(1));
        let mut refusing = queue(QueueArguments {
            max_length_bytes: Some(3),
            reject_publish: true,
            ..QueueArguments::default()
        });
        refusing.push(message("aa", None), Instant::now);
        assert!(!refusing.refuses(1) && refusing.refuses(2));
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
        queue.drop_expired(|| now + second * 2);
        assert_eq!(queue.len(), 2);
        queue.drop_expired(|| now + second * 10);
        assert!(queue.is_empty());
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
        queue.consumers.push(ConsumerId(1));
        assert_eq!(queue.next_deadline(), None);
        queue.remove_consumer(ConsumerId(1));
        assert!(queue.next_deadline().is_some());
    }
}
