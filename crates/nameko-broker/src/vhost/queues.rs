//! Declaring, deleting, purging and reading queues.

use std::time::Instant;

use amq_protocol::types::{AMQPValue, FieldTable};
use uuid::Uuid;

use super::{
    exchanges::{refuse_reserved, strip_line_ends},
    state::VHostState,
};
use crate::{
    arguments::{QUEUE_TYPE, QueueArguments, QueueKind},
    binding::Destination,
    channel_consumers::Unacked,
    declare_check::{check_arguments, check_property},
    direct_reply::REPLY_TO,
    error::{AmqpError, Code, Result},
    ids::{ChannelId, ConnectionId, QueueId},
    message::Entry,
    name::Name,
    queue::Queue,
};

/// Parameters of `queue.declare`.
#[derive(Debug)]
pub(crate) struct DeclareQueue<'a> {
    pub(crate) name: &'a str,
    pub(crate) passive: bool,
    pub(crate) durable: bool,
    pub(crate) exclusive: bool,
    pub(crate) auto_delete: bool,
    pub(crate) table: FieldTable,
}

/// Contents of `queue.declare-ok`.
#[derive(Debug)]
pub(crate) struct QueueStatus {
    pub(crate) name: Name,
    pub(crate) messages: u32,
    pub(crate) consumers: u32,
}

/// A message read with `basic.get`.
#[derive(Debug)]
pub(crate) struct GetResult {
    pub(crate) delivery_tag: u64,
    pub(crate) entry: Entry,
    /// Number of messages left in the queue.
    pub(crate) messages: u32,
}

impl VHostState {
    /// Declares a queue, or checks that an existing one agrees with the declaration.
    pub(crate) fn declare_queue(
        &mut self,
        mut request: DeclareQueue<'_>,
        connection: ConnectionId,
    ) -> Result<QueueStatus> {
        let name = strip_line_ends(request.name);
        if name.starts_with(REPLY_TO) {
            return self.declare_reply_queue(&name);
        }
        if request.passive {
            let id = self.queue_for(&name, connection)?;
            if let Some(queue) = self.queues.get_mut(&id) {
                queue.used_at = Instant::now();
            }
            return self.declared(id);
        }
        if !request.table.contains_key(QUEUE_TYPE) {
            let kind = QueueKind::default().name();
            request
                .table
                .insert(QUEUE_TYPE.into(), AMQPValue::LongString(kind.into()));
        }
        let owner = request.exclusive.then_some(connection);
        // An exclusive queue never outlives its connection, so RabbitMQ does not treat it as
        // durable.
        let durable = request.durable && !request.exclusive;
        let name = match &*name {
            "" => {
                let name = format!("amq.gen-{}", Uuid::new_v4().simple());
                let kind = QueueKind::from_arguments(&request.table, &self.queue_text(&name))?;
                if kind != QueueKind::Classic {
                    return Err(AmqpError::precondition_failed(format!(
                        "Cannot declare a server-named queue for type {}",
                        kind.module()
                    )));
                }
                name
            }
            _ => {
                refuse_reserved("queue", &name)?;
                name
            }
        };
        let text = self.queue_text(&name);
        if let Some(id) = self.queue_ids.get(&*name).copied() {
            if let Some(queue) = self.queues.get_mut(&id) {
                if queue.owner != owner {
                    return Err(locked(&text));
                }
                check_property("durable", &text, queue.durable, durable)?;
                check_property("auto_delete", &text, queue.auto_delete, request.auto_delete)?;
                let keys = queue.arguments.kind.arguments();
                check_arguments(&queue.table, &request.table, keys, &text)?;
                queue.used_at = Instant::now();
            }
            return self.declared(id);
        }
        let arguments = QueueArguments::read(&request.table, &text)?;
        if arguments.kind == QueueKind::Quorum {
            let wrong = match (request.auto_delete, request.exclusive, durable) {
                (true, _, _) => Some("auto-delete"),
                (_, true, _) => Some("exclusive-owner"),
                (_, _, false) => Some("non-durable"),
                _ => None,
            };
            if let Some(wrong) = wrong {
                return Err(AmqpError::precondition_failed(format!(
                    "invalid property '{wrong}' for {text}"
                )));
            }
        }
        let name: Name = name.into();
        let id = QueueId(self.next_id());
        let queue = Queue::new(
            name.clone(),
            durable,
            owner,
            request.auto_delete,
            request.table,
            arguments,
            Instant::now(),
        );
        self.queue_ids.insert(name, id);
        self.queues.insert(id, queue);
        self.schedule(id);
        self.declared(id)
    }

    /// Deletes a queue by name and returns its number of messages. Succeeds if it does not exist.
    pub(crate) fn delete_queue_by_name(
        &mut self,
        name: &str,
        if_unused: bool,
        if_empty: bool,
        connection: ConnectionId,
    ) -> Result<usize> {
        let name = strip_line_ends(name);
        let Some(id) = self.queue_ids.get(&*name).copied() else {
            return Ok(0);
        };
        self.queue_for(&name, connection)?;
        let text = || self.queue_text(&name);
        if let Some(queue) = self.queues.get(&id) {
            let flag = match (if_unused, if_empty) {
                (true, _) => Some("if-unused"),
                (_, true) => Some("if-empty"),
                _ => None,
            };
            if queue.is_quorum()
                && let Some(flag) = flag
            {
                return Err(AmqpError::not_implemented(format!(
                    "cannot delete {}. queue.delete operations with {flag} flag set are not supported by quorum queues",
                    text()
                )));
            }
            if if_unused && !queue.consumers.is_empty() {
                return Err(AmqpError::precondition_failed(format!("{} in use", text())));
            }
            if if_empty && !queue.is_empty() {
                return Err(AmqpError::precondition_failed(format!(
                    "{} not empty",
                    text()
                )));
            }
        }
        Ok(self.delete_queue(id))
    }

    /// Deletes a queue with its bindings, and cancels its consumers.
    pub(crate) fn delete_queue(&mut self, id: QueueId) -> usize {
        let Some(queue) = self.queues.remove(&id) else {
            return 0;
        };
        self.queue_ids.remove(&queue.name);
        if let Some(deadline) = queue.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        self.unbind_all(&Destination::Queue(id));
        self.notify_cancelled(&queue.consumers);
        queue.len()
    }

    /// Deletes the exclusive queues of a connection.
    pub(crate) fn delete_exclusive(&mut self, owner: ConnectionId) {
        let owned: Vec<QueueId> = self
            .queues
            .iter()
            .filter(|(_, queue)| queue.owner == Some(owner))
            .map(|(id, _)| *id)
            .collect();
        for id in owned {
            self.delete_queue(id);
        }
    }

    /// Drops all ready messages of a queue and returns their number.
    pub(crate) fn purge(&mut self, name: &str, connection: ConnectionId) -> Result<usize> {
        let id = self.queue_for(name, connection)?;
        Ok(self.queues.get_mut(&id).map_or(0, Queue::purge))
    }

    /// Reads one message for `basic.get`.
    pub(crate) fn get(
        &mut self,
        channel_id: ChannelId,
        name: &str,
        no_ack: bool,
        connection: ConnectionId,
    ) -> Result<Option<GetResult>> {
        let id = self.queue_for(name, connection)?;
        let (Some(queue), Some(channel)) =
            (self.queues.get_mut(&id), self.channels.get_mut(&channel_id))
        else {
            return Ok(None);
        };
        queue.drop_expired(Instant::now, &mut self.dead_letters);
        queue.used_at = Instant::now();
        let Some(entry) = queue.pop() else {
            return Ok(None);
        };
        let delivery_tag = channel.next_delivery_tag();
        if !no_ack {
            channel.unacked.insert(
                delivery_tag,
                Unacked {
                    queue: id,
                    consumer: None,
                    entry: entry.clone(),
                },
            );
        }
        let messages = count(queue.len());
        self.schedule(id);
        Ok(Some(GetResult {
            delivery_tag,
            entry,
            messages,
        }))
    }

    /// Returns the queue with this name, unless it is exclusive to another connection.
    pub(crate) fn queue_for(&self, name: &str, connection: ConnectionId) -> Result<QueueId> {
        let id = self.queue_ids.get(name).copied();
        match id.and_then(|id| self.queues.get(&id).map(|queue| (id, queue))) {
            None => Err(AmqpError::not_found(format!(
                "no {}",
                self.queue_text(name)
            ))),
            Some((_, queue)) if queue.owner.is_some_and(|owner| owner != connection) => {
                Err(locked(&self.queue_text(name)))
            }
            Some((id, _)) => Ok(id),
        }
    }

    fn declared(&self, id: QueueId) -> Result<QueueStatus> {
        let queue = self
            .queues
            .get(&id)
            .ok_or_else(|| AmqpError::new(Code::InternalError, "declared queue not found"))?;
        Ok(QueueStatus {
            name: queue.name.clone(),
            messages: count(queue.len()),
            consumers: count(queue.consumers.len()),
        })
    }
}

/// Converts a count to its type on the wire.
pub(crate) fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn locked(queue: &str) -> AmqpError {
    AmqpError::new(
        Code::ResourceLocked,
        format!(
            "cannot obtain exclusive access to locked {queue}. It could be originally declared on another connection or \
             the exclusive property value does not match that of the original declaration."
        ),
    )
}
