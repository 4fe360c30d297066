//! Declaring, deleting and binding exchanges.

use std::sync::Arc;

use amq_protocol::types::{AMQPValue, FieldTable};

use super::state::VHostState;
use crate::{
    binding::{Binding, Destination},
    declare_check::{check_arguments, check_property},
    error::{AmqpError, Code, Result},
    exchange::{Exchange, ExchangeKind},
    field_values::{display_value, type_name},
    ids::ConnectionId,
    name::Name,
};

/// Parameters of `exchange.declare`.
#[derive(Debug)]
pub(crate) struct DeclareExchange<'a> {
    pub(crate) name: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) passive: bool,
    pub(crate) durable: bool,
    pub(crate) auto_delete: bool,
    pub(crate) internal: bool,
    pub(crate) table: FieldTable,
}

/// Destination of a binding, by name.
#[derive(Clone, Copy, Debug)]
pub(crate) enum BindTo<'a> {
    Queue(&'a str),
    Exchange(&'a str),
}

impl VHostState {
    /// Declares an exchange, or checks that an existing one agrees with the declaration.
    pub(crate) fn declare_exchange(&mut self, request: DeclareExchange<'_>) -> Result<()> {
        let name = strip_line_ends(request.name);
        if request.passive {
            refuse_default(&name)?;
            return self.exchange_or_error(&name).map(drop);
        }
        let kind = ExchangeKind::from_name(request.kind).ok_or_else(|| {
            AmqpError::precondition_failed(format!("unknown exchange type '{}'", request.kind))
        })?;
        refuse_default(&name)?;
        let text = self.exchange_text(&name);
        if let Some(known) = self.exchanges.get(&*name) {
            check_property("type", &text, known.kind, kind)?;
            check_property("durable", &text, known.durable, request.durable)?;
            check_property("auto_delete", &text, known.auto_delete, request.auto_delete)?;
            check_property("internal", &text, known.internal, request.internal)?;
            return check_arguments(&known.table, &request.table, &["alternate-exchange"], &text);
        }
        refuse_reserved("exchange", &name)?;
        let alternate = match request.table.inner().get("alternate-exchange") {
            None => None,
            Some(AMQPValue::LongString(name)) => Some(name.to_string().into()),
            Some(_) => {
                return Err(AmqpError::precondition_failed(format!(
                    "invalid type for arg 'alternate-exchange' in {text}"
                )));
            }
        };
        let name: Name = name.into();
        let mut exchange = Exchange::new(name.clone(), kind);
        exchange.durable = request.durable;
        exchange.auto_delete = request.auto_delete;
        exchange.internal = request.internal;
        exchange.alternate = alternate;
        exchange.table = request.table;
        self.exchanges.insert(name, exchange);
        Ok(())
    }

    /// Deletes an exchange. Succeeds if it does not exist.
    pub(crate) fn delete_exchange(&mut self, name: &str, if_unused: bool) -> Result<()> {
        let name = strip_line_ends(name);
        refuse_default(&name)?;
        if name.starts_with("amq.") {
            return Err(AmqpError::access_refused(format!(
                "deletion of system {} not allowed",
                self.exchange_text(&name)
            )));
        }
        match self.exchanges.get(&*name) {
            Some(exchange) if if_unused && exchange.is_used() => Err(
                AmqpError::precondition_failed(format!("{} in use", self.exchange_text(&name))),
            ),
            _ => {
                self.drop_exchange(&name);
                Ok(())
            }
        }
    }

    /// Adds a binding, unless it exists.
    pub(crate) fn bind(
        &mut self,
        source: &str,
        to: BindTo<'_>,
        key: &str,
        table: FieldTable,
        connection: ConnectionId,
    ) -> Result<()> {
        let binding = self.resolve_binding(source, to, key, table, connection)?;
        let source = binding.source.clone();
        if let (Some(binding), Some(exchange)) =
            (self.bindings.add(binding), self.exchanges.get_mut(&source))
        {
            exchange.add(binding);
        }
        Ok(())
    }

    /// Removes a binding. As in RabbitMQ, succeeds if the binding, its source or its destination
    /// does not exist.
    pub(crate) fn unbind(
        &mut self,
        source: &str,
        to: BindTo<'_>,
        key: &str,
        table: FieldTable,
        connection: ConnectionId,
    ) -> Result<()> {
        let binding = match self.resolve_binding(source, to, key, table, connection) {
            Err(error) if error.code == Code::NotFound => return Ok(()),
            binding => binding?,
        };
        if let Some(binding) = self.bindings.remove(&binding) {
            self.remove_from_exchange(&binding);
        }
        Ok(())
    }

    /// Removes all bindings of a deleted queue or exchange.
    pub(crate) fn unbind_all(&mut self, destination: &Destination) {
        for binding in self.bindings.remove_to(destination) {
            self.remove_from_exchange(&binding);
        }
    }

    /// Returns an exchange, or the error 404.
    pub(crate) fn exchange_or_error(&self, name: &str) -> Result<&Exchange> {
        self.exchanges
            .get(name)
            .ok_or_else(|| AmqpError::not_found(format!("no {}", self.exchange_text(name))))
    }

    /// Removes a deleted binding from its source. An auto-delete exchange is deleted with its last
    /// binding.
    fn remove_from_exchange(&mut self, binding: &Arc<Binding>) {
        if self.detach(binding) {
            self.drop_exchange(&binding.source);
        }
    }

    /// Removes a deleted binding from its source. Returns whether the source must be deleted too.
    fn detach(&mut self, binding: &Arc<Binding>) -> bool {
        let Some(exchange) = self.exchanges.get_mut(&binding.source) else {
            return false;
        };
        exchange.remove(binding);
        exchange.auto_delete && !exchange.is_used()
    }

    /// Deletes an exchange, and in turn the auto-delete exchanges that lose their last binding.
    /// Iterative, since a client may build a chain that is longer than the stack.
    fn drop_exchange(&mut self, name: &str) {
        let mut dropping: Vec<Name> = vec![name.into()];
        while let Some(name) = dropping.pop() {
            let Some(exchange) = self.exchanges.remove(&name) else {
                continue;
            };
            if exchange.is_used() {
                self.bindings.remove_from(&name);
            }
            for binding in self.bindings.remove_to(&Destination::Exchange(name)) {
                if self.detach(&binding) {
                    dropping.push(binding.source.clone());
                }
            }
        }
    }

    /// Resolves a binding and checks both ends.
    fn resolve_binding(
        &self,
        source: &str,
        to: BindTo<'_>,
        key: &str,
        table: FieldTable,
        connection: ConnectionId,
    ) -> Result<Binding> {
        let source = strip_line_ends(source);
        if let BindTo::Exchange(name) = to {
            refuse_default(name)?;
        }
        refuse_default(&source)?;
        // Like RabbitMQ, checks both ends and reports the source first.
        let exchange = self.exchange_or_error(&source)?;
        let destination = match to {
            BindTo::Queue(name) => {
                Destination::Queue(self.queue_for(&strip_line_ends(name), connection)?)
            }
            BindTo::Exchange(name) => {
                Destination::Exchange(self.exchange_or_error(&strip_line_ends(name))?.name.clone())
            }
        };
        if exchange.kind == ExchangeKind::Headers {
            check_match_argument(&table)?;
        }
        Ok(Binding {
            source: exchange.name.clone(),
            destination,
            key: key.into(),
            arguments: table,
        })
    }
}

/// Removes line breaks, as RabbitMQ does in declared names.
pub(crate) fn strip_line_ends(name: &str) -> String {
    name.replace(['\n', '\r'], "")
}

/// Refuses names with the reserved prefix `amq.`.
pub(crate) fn refuse_reserved(kind: &str, name: &str) -> Result<()> {
    if name.starts_with("amq.") {
        return Err(AmqpError::access_refused(format!(
            "{kind} name '{name}' contains reserved prefix 'amq.*'"
        )));
    }
    Ok(())
}

fn refuse_default(exchange: &str) -> Result<()> {
    if exchange.is_empty() {
        return Err(AmqpError::access_refused(
            "operation not permitted on the default exchange",
        ));
    }
    Ok(())
}

/// Checks `x-match` of a binding to a headers exchange.
fn check_match_argument(table: &FieldTable) -> Result<()> {
    match table.inner().get("x-match") {
        None => Ok(()),
        Some(AMQPValue::LongString(mode))
            if matches!(
                mode.as_bytes(),
                b"all" | b"any" | b"all-with-x" | b"any-with-x"
            ) =>
        {
            Ok(())
        }
        Some(AMQPValue::LongString(other)) => Err(AmqpError::precondition_failed(format!(
            "Invalid x-match field value <<{:?}>>; expected all, any, all-with-x, or any-with-x",
            other.to_string()
        ))),
        Some(other) => Err(AmqpError::precondition_failed(format!(
            "Invalid x-match field type {} (value {}); expected longstr",
            type_name(other),
            display_value(other)
        ))),
    }
}
