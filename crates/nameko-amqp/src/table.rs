//! Field tables: message headers and arguments of declarations.

use std::{collections::HashMap, fmt};

use bytes::Bytes;

/// Headers of a message.
pub type Headers = Table;

/// An AMQP field table: an ordered map from names to values.
///
/// Lookups are linear, since tables are small. Names have at most 255 bytes on the wire.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table(Vec<(String, Value)>);

/// A value in a [`Table`].
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// No value.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer of any AMQP type. Sent as 32 bits if it fits, else as 64.
    Int(i64),
    /// A floating point number.
    Double(f64),
    /// Text. Sent as a long string.
    String(String),
    /// Bytes, from a byte array or a long string that is not UTF-8. Sent as a byte array.
    Bytes(Bytes),
    /// Seconds since 1970-01-01 00:00 UTC.
    Timestamp(u64),
    /// `value / 10^scale`.
    Decimal {
        /// Number of digits after the decimal point.
        scale: u8,
        /// Unscaled value.
        value: i32,
    },
    /// A list of values.
    List(Vec<Value>),
    /// A nested table.
    Table(Table),
}

impl Table {
    /// Creates an empty table.
    #[inline]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Returns the value of `name`.
    #[inline]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v)
    }

    /// Sets `name` and returns its previous value.
    pub fn insert(&mut self, name: impl Into<String>, value: impl Into<Value>) -> Option<Value> {
        let (name, value) = (name.into(), value.into());
        match self.0.iter_mut().find(|(n, _)| *n == name) {
            Some((_, old)) => Some(std::mem::replace(old, value)),
            None => {
                self.0.push((name, value));
                None
            }
        }
    }

    /// Sets `name` and returns the table, for chained calls.
    ///
    /// ```
    /// use nameko_amqp::Table;
    ///
    /// let arguments = Table::new().with("x-queue-type", "quorum").with("x-delivery-limit", 5);
    /// assert_eq!(arguments.len(), 2);
    /// ```
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.insert(name, value);
        self
    }

    /// Removes `name` and returns its value.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let index = self.0.iter().position(|(n, _)| n == name)?;
        Some(self.0.remove(index).1)
    }

    /// Returns whether `name` is set.
    #[inline]
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Iterates over the entries in their order.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.0.iter().map(|(n, v)| (n.as_str(), v))
    }

    /// Returns the number of entries.
    #[inline]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are no entries.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Creates a table from entries of a peer. The last of several entries with the same name wins,
    /// at the position of the first.
    pub(crate) fn from_entries(mut entries: Vec<(String, Value)>) -> Self {
        /// Number of entries up to which pairwise comparison is cheaper than a hash map.
        const MAX_LINEAR_ENTRIES: usize = 16;

        if entries.len() <= MAX_LINEAR_ENTRIES {
            let mut index = 0;
            while index < entries.len() {
                let (before, rest) = entries.split_at_mut(index);
                if let Some(entry) = rest.first_mut()
                    && let Some(first) = before.iter_mut().find(|(n, _)| *n == entry.0)
                {
                    std::mem::swap(&mut first.1, &mut entry.1);
                    entries.remove(index);
                } else {
                    index += 1;
                }
            }
            return Self(entries);
        }
        let mut positions = HashMap::with_capacity(entries.len());
        let mut unique: Vec<(String, Value)> = Vec::with_capacity(entries.len());
        for (name, value) in entries {
            match positions.get(&name) {
                Some(&position) => {
                    let entry: &mut (String, Value) = &mut unique[position];
                    entry.1 = value;
                }
                None => {
                    positions.insert(name.clone(), unique.len());
                    unique.push((name, value));
                }
            }
        }
        Self(unique)
    }
}

impl<N: Into<String>, V: Into<Value>> FromIterator<(N, V)> for Table {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(entries: I) -> Self {
        Self::from_entries(
            entries
                .into_iter()
                .map(|(n, v)| (n.into(), v.into()))
                .collect(),
        )
    }
}

impl<N: Into<String>, V: Into<Value>> Extend<(N, V)> for Table {
    fn extend<I: IntoIterator<Item = (N, V)>>(&mut self, entries: I) {
        for (name, value) in entries {
            self.insert(name, value);
        }
    }
}

impl<N: Into<String>, V: Into<Value>, const LEN: usize> From<[(N, V); LEN]> for Table {
    fn from(entries: [(N, V); LEN]) -> Self {
        entries.into_iter().collect()
    }
}

impl IntoIterator for Table {
    type Item = (String, Value);
    type IntoIter = std::vec::IntoIter<(String, Value)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl Value {
    /// Returns the text, `None` unless it is a string.
    #[inline]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the number, `None` unless it is an integer.
    #[inline]
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Value::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// Returns the value, `None` unless it is a boolean.
    #[inline]
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(truth) => Some(*truth),
            _ => None,
        }
    }

    /// Returns the items, `None` unless it is a list.
    #[inline]
    pub fn as_list(&self) -> Option<&[Value]> {
        match self {
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// Returns the nested table, `None` unless it is one.
    #[inline]
    pub fn as_table(&self) -> Option<&Table> {
        match self {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }
}

/// For messages: text in quotes, lists in brackets, tables in braces.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Int(number) => write!(f, "{number}"),
            Value::Double(number) => write!(f, "{number}"),
            Value::String(text) => write!(f, "{text:?}"),
            Value::Bytes(bytes) => write!(f, "{bytes:?}"),
            Value::Timestamp(seconds) => write!(f, "{seconds}"),
            Value::Decimal { scale, value } => write!(f, "{value}e-{scale}"),
            Value::List(items) => {
                let items: Vec<_> = items.iter().map(ToString::to_string).collect();
                write!(f, "[{}]", items.join(", "))
            }
            Value::Table(table) => {
                let entries: Vec<_> = table.iter().map(|(n, v)| format!("{n}: {v}")).collect();
                write!(f, "{{{}}}", entries.join(", "))
            }
        }
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Self {
        Value::Int(value.into())
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Value::Int(value.into())
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Value::Int(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Value::Double(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Value::String(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Value::String(value)
    }
}

impl From<Bytes> for Value {
    fn from(value: Bytes) -> Self {
        Value::Bytes(value)
    }
}

impl From<Table> for Value {
    fn from(value: Table) -> Self {
        Value::Table(value)
    }
}

impl<V: Into<Value>> From<Vec<V>> for Value {
    fn from(value: Vec<V>) -> Self {
        Value::List(value.into_iter().map(Into::into).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_equal_names_wins_at_the_first_position() {
        for more in [0, 100] {
            let mut entries: Vec<(String, Value)> = vec![
                ("a".into(), 1.into()),
                ("b".into(), 2.into()),
                ("a".into(), 3.into()),
                ("a".into(), 4.into()),
            ];
            entries.extend((0..more).map(|n| (n.to_string(), Value::Null)));
            let table = Table::from_entries(entries);
            assert_eq!(table.len(), 2 + more);
            assert_eq!(table.iter().next(), Some(("a", &Value::Int(4))));
            assert_eq!(table.get("b").and_then(Value::as_int), Some(2));
        }
    }

    #[test]
    fn inserts_reads_and_removes() {
        let mut table = Table::from([("x", 1)]);
        assert_eq!(table.insert("x", "two"), Some(Value::Int(1)));
        assert_eq!(table.get("x").and_then(Value::as_str), Some("two"));
        assert_eq!(table.insert("y", vec!["a", "b"]), None);
        assert_eq!(
            table.get("y").and_then(Value::as_list).map(<[_]>::len),
            Some(2)
        );
        assert!(table.contains("y") && !table.contains("z"));
        assert_eq!(table.remove("x"), Some("two".into()));
        assert_eq!(table.remove("x"), None);
        assert_eq!(table.len(), 1);
    }
}
