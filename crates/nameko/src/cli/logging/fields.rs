//! Recorded fields of a span or an event.

use std::{error::Error, fmt};

use serde::{Serialize, Serializer};
use tracing::field::{Field, Visit};

use crate::error_chain::one_line;

/// Fields in recording order, with unique names.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields(Vec<(&'static str, Value)>);

/// The recorded value of a field.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// A string; quoted in the text format.
    Text(Box<str>),
    /// The output of `Display` or `Debug`.
    Shown(Box<str>),
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
}

impl Fields {
    /// Collects the fields that `record` passes to its visitor; `expected` is the capacity.
    pub(super) fn new(expected: usize, record: impl FnOnce(&mut dyn Visit)) -> Self {
        let mut fields = Self(Vec::with_capacity(expected));
        record(&mut fields);
        fields
    }

    /// Creates fields from strings.
    pub(super) fn of<'a>(texts: impl Iterator<Item = (&'static str, &'a str)>) -> Self {
        let field = |(name, text): (_, &str)| (name, Value::Text(text.into()));
        Self(texts.map(field).collect())
    }

    /// Adds fields that were recorded later; they replace fields of the same name.
    pub(super) fn update(&mut self, later: Self) {
        for (name, value) in later.0 {
            self.set(name, value);
        }
    }

    /// Adds a field, or replaces that of the same name.
    pub(super) fn set(&mut self, name: &'static str, value: Value) {
        match self.0.iter_mut().find(|field| field.0 == name) {
            Some(field) => field.1 = value,
            None => self.0.push((name, value)),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        let field = self.0.iter().find(|field| field.0 == name);
        field.map(|field| &field.1)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        self.0.iter().map(|(name, value)| (*name, value))
    }

    fn push(&mut self, field: &Field, value: Value) {
        let name = field.name();
        // Names that are Rust keywords have a prefix.
        let name = name.strip_prefix("r#").unwrap_or(name);
        self.0.push((name, value));
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, Value::Text(value.into()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, Value::Bool(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, Value::Signed(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, Value::Unsigned(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, Value::Float(value));
    }

    /// Records an error with its chain of sources.
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.push(field, Value::Shown(one_line(value).into()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, Value::Shown(format!("{value:?}").into()));
    }
}

impl Value {
    /// Returns a string value without quotes.
    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Shown(text) => Some(text),
            _ => None,
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) | Self::Shown(text) => serializer.serialize_str(text),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Signed(value) => serializer.serialize_i64(*value),
            Self::Unsigned(value) => serializer.serialize_u64(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
        }
    }
}
