//! Request bodies: a JSON object, read as leniently as RabbitMQ does.

use serde_json::{Map, Value, json};

use super::response::{ApiResponse, Result};

/// Fields of a request body.
#[derive(Debug)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// Parses a body. An empty body has no fields.
    pub(super) fn read(body: &[u8]) -> Result<Self> {
        if body.is_empty() {
            return Ok(Self(Map::new()));
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            _ => Err(ApiResponse::bad_request("not_json")),
        }
    }

    /// Checks that all `keys` are present.
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

    /// Reads a boolean, which may be written as a string.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::Bool(is)) => Ok(Some(*is)),
            Some(Value::String(text)) if text == "true" => Ok(Some(true)),
            Some(Value::String(text)) if text == "false" => Ok(Some(false)),
            Some(other) => Err(ApiResponse::bad_request(json!(["not_boolean", other]))),
        }
    }

    /// Reads an integer, which may be written as a string.
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

    /// Reads a string.
    pub(super) fn text(&self, key: &str) -> Result<Option<&str>> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(ApiResponse::bad_request(json!(["not_string", key, other]))),
        }
    }

    /// Reads a name or routing key, a string of at most 255 bytes.
    pub(super) fn name(&self, key: &str) -> Result<Option<&str>> {
        self.text(key)?
            .map(|text| check_name_length(key, text))
            .transpose()
    }
}

/// Checks the length of a name against AMQP's limit of 255 bytes.
pub(super) fn check_name_length<'a>(kind: &str, name: &'a str) -> Result<&'a str> {
    if name.len() <= 255 {
        return Ok(name);
    }
    Err(ApiResponse::bad_request(format!(
        "{kind} should be less than 255 bytes, actually was {}\n",
        name.len()
    )))
}
