//! Content of WebSocket messages. Source: `nameko.web.websocket` of Nameko 2.14.1.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    arguments::Arguments,
    error::{Error, Result},
    protocol::Fault,
    serialization,
};

/// A request: `{"method": ..., "data": {...}, "correlation_id": ...}`.
#[derive(Debug)]
pub(super) struct Request {
    /// Name of the method; empty if it is not a string.
    pub(super) method: String,
    /// Named arguments, as JSON text.
    data: String,
    /// Correlation id for the reply, as JSON text.
    pub(super) correlation_id: String,
}

impl Request {
    /// Parses a message.
    ///
    /// # Errors
    /// If it is not a JSON object with a method.
    pub(super) fn read(message: &[u8]) -> Result<Self, Fault> {
        #[derive(Deserialize)]
        struct Frame<'a> {
            #[serde(borrow)]
            method: &'a RawValue,
            #[serde(borrow)]
            data: Option<&'a RawValue>,
            #[serde(borrow)]
            correlation_id: Option<&'a RawValue>,
        }

        let invalid = || Fault::nameko("MalformedRequest", "Invalid JSON data");
        let text = std::str::from_utf8(message).map_err(|_| invalid())?;
        let text = &*serialization::standard(text).map_err(|_| invalid())?;
        if !text.trim_start().starts_with('{') {
            // Serde deserializes structs from lists too.
            return Err(invalid());
        }
        let frame: Frame<'_> = serde_json::from_str(text).map_err(|_| invalid())?;
        Ok(Self {
            method: serde_json::from_str(frame.method.get()).unwrap_or_default(),
            data: match frame.data.map(RawValue::get) {
                // Values that are false in Python mean no arguments.
                None | Some("null" | "false" | "0" | "0.0" | "\"\"" | "[]") => "{}".to_owned(),
                Some(data) => data.to_owned(),
            },
            correlation_id: frame
                .correlation_id
                .map_or_else(|| "null".to_owned(), |id| id.get().to_owned()),
        })
    }

    /// Returns the arguments of the method: the socket's id, then the data by name.
    ///
    /// # Errors
    /// If the data is not an object.
    pub(super) fn arguments(&self, socket_id: &str) -> Result<Arguments> {
        if !self.data.starts_with('{') {
            return Err(Error::IncorrectSignature(format!(
                "`data` must be a mapping, not {}",
                serialization::json_kind(&self.data)
            )));
        }
        let id = serde_json::to_string(&[socket_id])
            .map_err(|error| Error::IncorrectSignature(error.to_string()))?;
        Arguments::from_json(&id, &self.data)
    }
}

/// Formats the reply to a request. `value` is JSON text as written by Python.
pub(super) fn result(value: &[u8], correlation_id: &str) -> String {
    let value = String::from_utf8_lossy(value);
    let id = serialization::python(correlation_id);
    format!(
        "{{\"type\": \"result\", \"success\": true, \"data\": {value}, \"correlation_id\": {id}}}"
    )
}

/// Formats the reply to a failed request.
pub(super) fn error(fault: &Fault, correlation_id: &str) -> String {
    let fault = serialization::to_vec(fault).unwrap_or_else(|_| b"{}".to_vec());
    let fault = String::from_utf8_lossy(&fault);
    let id = serialization::python(correlation_id);
    format!(
        "{{\"type\": \"result\", \"success\": false, \"error\": {fault}, \"correlation_id\": {id}}}"
    )
}

/// Formats an event.
///
/// # Errors
/// If JSON cannot represent the data.
pub(super) fn event(event: &str, data: &(impl Serialize + ?Sized)) -> Result<String> {
    let event = serialization::to_vec(event)?;
    let data = serialization::to_vec(data)?;
    Ok(format!(
        "{{\"type\": \"event\", \"event\": {}, \"data\": {}}}",
        String::from_utf8_lossy(&event),
        String::from_utf8_lossy(&data)
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_has_a_method_and_optional_data_and_id() {
        for (text, method, data, id) in [
            (r#"{"method": "m"}"#, "m", "{}", "null"),
            (
                r#"{"method": "m", "data": null, "correlation_id": null}"#,
                "m",
                "{}",
                "null",
            ),
            (
                r#"{"method": "m", "data": [], "more": 1}"#,
                "m",
                "{}",
                "null",
            ),
            (
                r#" {"correlation_id": {"n": 1}, "data": {"a": [1]}, "method": "m"}"#,
                "m",
                r#"{"a": [1]}"#,
                r#"{"n": 1}"#,
            ),
            (r#"{"method": null}"#, "", "{}", "null"),
            (r#"{"method": 7, "correlation_id": 8}"#, "", "{}", "8"),
        ] {
            let request = Request::read(text.as_bytes()).expect(text);
            assert_eq!(
                (
                    request.method.as_str(),
                    request.data.as_str(),
                    request.correlation_id.as_str()
                ),
                (method, data, id),
                "{text}"
            );
        }
    }

    #[test]
    fn invalid_requests_are_malformed() {
        for text in [
            "",
            "x",
            "null",
            "[]",
            "7",
            "\"m\"",
            "{}",
            r#"["m", null, null]"#,
            r#"{"data": {}}"#,
            "{\"method\": \"m\"",
        ] {
            let fault = Request::read(text.as_bytes()).expect_err(text);
            assert_eq!(
                (fault.exc_type.as_str(), fault.value.as_str()),
                ("MalformedRequest", "Invalid JSON data")
            );
        }
        assert!(Request::read(b"\xff\xfe").is_err());
    }

    #[test]
    fn data_must_be_an_object() {
        for data in ["[1]", "1", "\"x\"", "true"] {
            let text = format!("{{\"method\": \"m\", \"data\": {data}}}");
            let request = Request::read(text.as_bytes()).expect("a request");
            assert!(matches!(
                request.arguments("id"),
                Err(Error::IncorrectSignature(_))
            ));
        }
    }

    #[test]
    fn replies_and_events_have_namekos_format() {
        assert_eq!(
            result(b"[1, 2]", "\"c\""),
            r#"{"type": "result", "success": true, "data": [1, 2], "correlation_id": "c"}"#
        );
        assert_eq!(
            error(
                &Fault::nameko("MalformedRequest", "Invalid JSON data"),
                "null"
            ),
            r#"{"type": "result", "success": false, "error": {"exc_type": "MalformedRequest", "exc_path": "nameko.exceptions.MalformedRequest", "exc_args": ["Invalid JSON data"], "value": "Invalid JSON data"}, "correlation_id": null}"#
        );
        assert_eq!(
            event("mail", &("é", 1.0)).expect("an event"),
            r#"{"type": "event", "event": "mail", "data": ["\u00e9", 1.0]}"#
        );
    }

    proptest! {
        #[test]
        fn no_message_panics(message in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Request::read(&message).map(|request| request.arguments("id"));
        }
    }
}
