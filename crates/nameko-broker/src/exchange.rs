//! Exchanges and their routing.

use std::{collections::HashMap, fmt, sync::Arc};

use amq_protocol::types::{AMQPValue, FieldTable};

use crate::{
    binding::Binding, field_values::same_value, headers::Headers, name::Name, topic::TopicTree,
};

/// Type of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExchangeKind {
    Direct,
    Fanout,
    Topic,
    Headers,
}

/// An exchange and its bindings.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) name: Name,
    pub(crate) kind: ExchangeKind,
    pub(crate) durable: bool,
    pub(crate) auto_delete: bool,
    /// Accepts messages from other exchanges only.
    pub(crate) internal: bool,
    pub(crate) table: FieldTable,
    /// Receives the messages that match no binding.
    pub(crate) alternate: Option<Name>,
    routes: Routes,
    /// Number of bindings with this exchange as the source.
    bindings: usize,
}

/// Bindings, indexed by exchange type.
#[derive(Debug)]
enum Routes {
    Direct(HashMap<Name, Vec<Arc<Binding>>>),
    Fanout(Vec<Arc<Binding>>),
    Topic(TopicTree<Arc<Binding>>),
    Headers(Vec<Arc<Binding>>),
}

impl ExchangeKind {
    /// Parses the `type` of `exchange.declare`.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "direct" => Self::Direct,
            "fanout" => Self::Fanout,
            "topic" => Self::Topic,
            "headers" => Self::Headers,
            _ => return None,
        })
    }
}

impl fmt::Display for ExchangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
            Self::Headers => "headers",
        })
    }
}

impl Exchange {
    pub(crate) fn new(name: Name, kind: ExchangeKind) -> Self {
        Self {
            name,
            kind,
            durable: false,
            auto_delete: false,
            internal: false,
            table: FieldTable::default(),
            alternate: None,
            routes: match kind {
                ExchangeKind::Direct => Routes::Direct(HashMap::new()),
                ExchangeKind::Fanout => Routes::Fanout(Vec::new()),
                ExchangeKind::Topic => Routes::Topic(TopicTree::default()),
                ExchangeKind::Headers => Routes::Headers(Vec::new()),
            },
            bindings: 0,
        }
    }

    /// Returns whether any binding has this exchange as its source.
    pub(crate) fn is_used(&self) -> bool {
        self.bindings > 0
    }

    /// Adds a new binding.
    pub(crate) fn add(&mut self, binding: Arc<Binding>) {
        self.bindings += 1;
        match &mut self.routes {
            Routes::Direct(keys) => keys.entry(binding.key.clone()).or_default().push(binding),
            Routes::Fanout(all) | Routes::Headers(all) => all.push(binding),
            Routes::Topic(tree) => tree.insert(&binding.key.clone(), binding),
        }
    }

    /// Removes an existing binding.
    pub(crate) fn remove(&mut self, binding: &Arc<Binding>) {
        self.bindings -= 1;
        match &mut self.routes {
            Routes::Direct(keys) => {
                if let Some(bound) = keys.get_mut(&binding.key) {
                    remove_binding(bound, binding);
                    if bound.is_empty() {
                        keys.remove(&binding.key);
                    }
                }
            }
            Routes::Fanout(all) | Routes::Headers(all) => remove_binding(all, binding),
            Routes::Topic(tree) => tree.remove(&binding.key, binding),
        }
    }

    /// Calls `found` with each binding that matches a routing key and headers.
    pub(crate) fn route<'a>(
        &'a self,
        key: &str,
        headers: Option<&Headers>,
        mut found: impl FnMut(&'a Binding),
    ) {
        match &self.routes {
            Routes::Direct(keys) => keys.get(key).into_iter().flatten().for_each(|b| found(b)),
            Routes::Fanout(all) => all.iter().for_each(|b| found(b)),
            Routes::Topic(tree) => tree.matches(key, |b| found(b)),
            Routes::Headers(all) => all
                .iter()
                .filter(|b| headers_match(&b.arguments, headers))
                .for_each(|b| found(b)),
        }
    }
}

/// Removes a binding from a list, compared by identity.
fn remove_binding(bindings: &mut Vec<Arc<Binding>>, binding: &Arc<Binding>) {
    if let Some(index) = bindings.iter().position(|b| Arc::ptr_eq(b, binding)) {
        bindings.remove(index);
    }
}

/// Matches a message's headers against the arguments of a binding: all arguments must match or,
/// with `x-match: any`, at least one. A void argument matches any value of a header that is
/// present.
fn headers_match(arguments: &FieldTable, headers: Option<&Headers>) -> bool {
    let mode = match arguments.inner().get("x-match") {
        Some(AMQPValue::LongString(mode)) => mode.as_bytes(),
        _ => b"all",
    };
    let (any, with_x) = match mode {
        b"any" => (true, false),
        b"any-with-x" => (true, true),
        b"all-with-x" => (false, true),
        _ => (false, false),
    };
    let mut matches = arguments
        .into_iter()
        .filter(|(key, _)| key.as_str() != "x-match" && (with_x || !key.as_str().starts_with("x-")))
        .map(|(key, value)| {
            let header = headers.and_then(|headers| headers.get(key));
            header.is_some_and(|header| *value == AMQPValue::Void || same_value(header, value))
        });
    if any {
        matches.any(|matched| matched)
    } else {
        matches.all(|matched| matched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: &[(&str, &str)]) -> FieldTable {
        let mut table = FieldTable::default();
        for (key, value) in entries {
            let value = match *value {
                "" => AMQPValue::Void,
                text => AMQPValue::LongString(text.into()),
            };
            table.insert((*key).into(), value);
        }
        table
    }

    #[test]
    fn headers_bindings_match() {
        for (arguments, headers, expected) in [
            (&[][..], &[][..], true),
            (&[("a", "1")], &[("a", "1"), ("b", "2")], true),
            (&[("a", "1"), ("b", "2")], &[("a", "1")], false),
            (
                &[("x-match", "any"), ("a", "1"), ("b", "2")],
                &[("a", "1")],
                true,
            ),
            (&[("x-match", "any"), ("a", "1")], &[("a", "2")], false),
            (&[("x-match", "any")], &[("a", "2")], false),
            (&[("a", "")], &[("a", "2")], true),
            (&[("x-a", "1")], &[], true),
            (&[("x-match", "all-with-x"), ("x-a", "1")], &[], false),
        ] {
            assert_eq!(
                headers_match(&table(arguments), Some(table(headers).inner())),
                expected,
                "{arguments:?} {headers:?}"
            );
        }
        assert!(!headers_match(&table(&[("a", "1")]), None));
    }
}
