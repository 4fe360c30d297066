//! The JSON object in the body of a request, read as leniently as RabbitMQ does.

use serde_json::{Map, Value, json};

use super::response::{ApiResponse, Result};

/// The fields of a body.
#[derive(Debug)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// Reads a body; no body is one without fields.
    pub(super) fn read(body: &[u8]) -> Result<Self> {
        if body.is_empty() {
            return Ok(Self(Map::new()));
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            _ => Err(ApiResponse::bad_request("not_json")),
        }
    }

    /// Checks that these are all there.
    pub(super) fn require(&self, keys: &[&str]) -> Result<()> {
        let missing: Vec<String> = keys
            .iter()
            .filter(|key| !self.0.contains_key(**key))
            .map(|key| format!("{{key_missing,{key}}}"))
            .collect();
        match &*missing {
            [] => Ok(()),
            _ => Err(ApiResponse::bad_request(format!("[{}]", missing.join(",")))),
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// A flag, which may also be a text.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::Bool(is)) => Ok(Some(*is)),
            Some(Value::String(text)) if text == "true" => Ok(Some(true)),
            Some(Value::String(text)) if text == "false" => Ok(Some(false)),
            Some(other) => Err(ApiResponse::bad_request(json!(["not_boolean", other]))),
        }
    }

    /// A whole number, which may also be a text.
    pub(super) fn integer(&self, key: &str) -> Result<Option<i64>> {
        let number = match self.0.get(key) {
            None => return Ok(None),
            Some(Value::String(text)) => text.parse().ok(),
            Some(other) => other.as_i64(),
        };
        match number {
            Some(number) => Ok(Some(number)),
            None => Err(ApiResponse::bad_request(json!([
                "not_integer",
                self.0.get(key)
            ]))),
        }
    }

    /// A text.
    pub(super) fn text(&self, key: &str) -> Result<Option<&str>> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(ApiResponse::bad_request(json!(["not_string", key, other]))),
        }
    }

    /// A name, or a key: a text that check_name_length where AMQP has one.
    pub(super) fn name(&self, key: &str) -> Result<Option<&str>> {
        self.text(key)?
            .map(|text| check_name_length(key, text))
            .transpose()
    }
}

/// Refuses a name that is longer than AMQP's names can be.
pub(super) fn check_name_length<'a>(kind: &str, name: &'a str) -> Result<&'a str> {
    if name.len() <= 255 {
        return Ok(name);
    }
    Err(ApiResponse::bad_request(format!(
        "{kind} should be less than 255 bytes, actually was {}\n",
        name.len()
    )))
}
