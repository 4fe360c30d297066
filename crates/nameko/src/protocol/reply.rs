//! Replies: `{"result": ..., "error": ...}`, in the format of the request.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::fault::Fault;
use crate::{
    amqp::Properties,
    error::Result,
    reply::Reply,
    serialization::{self, Codec, Content, Encoded, Format, JSON, Payload},
};

/// Both keys are always present. Source: `Responder` of Nameko 2.14.1.
#[derive(Serialize)]
struct Envelope<R, E> {
    result: R,
    error: E,
}

/// Encodes the reply `{"result": <value>, "error": null}`.
pub(crate) fn encode_result(format: &Format, value: &dyn Reply) -> Result<Encoded> {
    let Format::Json = format else {
        let (result, error) = (value.as_serialize(), ());
        return Ok(format.encode(&Envelope { result, error })?);
    };
    let value = value.to_json()?;
    let mut body = Vec::with_capacity(value.len() + 27);
    body.extend_from_slice(b"{\"result\": ");
    body.extend_from_slice(&value);
    body.extend_from_slice(b", \"error\": null}");
    Ok(format.encoded(body))
}

/// Encodes the reply `{"result": null, "error": {...}}`, in JSON if the format cannot represent it.
pub(crate) fn encode_fault(format: &Format, error: &Fault) -> Encoded {
    let envelope = Envelope { result: (), error };
    format
        .encode(&envelope)
        .or_else(|_| Format::Json.encode(&envelope))
        .unwrap_or_else(|_| Format::Json.encoded(b"{}".to_vec()))
}

/// Decodes a reply into its result or error.
pub(crate) fn decode_reply(
    codec: &Codec,
    properties: &Properties,
    body: &Bytes,
) -> Result<Payload> {
    let content_type = properties.content_type.as_deref().unwrap_or(JSON);
    let format = codec.accepted(content_type)?;
    let body = codec.plain(format, properties, body)?;
    if let Format::Json = format {
        return from_json(&serialization::received(&body)?);
    }
    let payload = format.decode(&body)?;
    match payload.content() {
        Content::Json(text) => from_json(text.get()),
        #[cfg(feature = "msgpack")]
        Content::MessagePack(_) => from_message_pack(&payload),
    }
}

fn from_json(text: &str) -> Result<Payload> {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow)]
        result: Option<&'a RawValue>,
        #[serde(borrow)]
        error: Option<&'a RawValue>,
    }

    let envelope: Envelope<'_> =
        serde_json::from_str(text).map_err(serialization::Error::json_read)?;
    match envelope.error.map(RawValue::get) {
        // A falsy error means success.
        None | Some("null" | "{}" | "false" | "0" | "\"\"" | "[]") => {
            let result = envelope.result.unwrap_or(RawValue::NULL);
            Ok(Payload::json(result.to_owned()))
        }
        Some(error) => {
            let fault: Fault =
                serde_json::from_str(error).map_err(serialization::Error::json_read)?;
            Err(fault.into_error())
        }
    }
}

#[cfg(feature = "msgpack")]
fn from_message_pack(payload: &Payload) -> Result<Payload> {
    use crate::serialization::Parts;

    let Parts::Map(pairs) = payload.parts() else {
        return Err(serialization::Error::read(format_args!(
            "a reply must be a map, not {}",
            payload.kind()
        ))
        .into());
    };
    let (mut result, mut error) = (None, None);
    for (key, value) in pairs {
        match key.read::<String>().as_deref() {
            Ok("result") => result = Some(value),
            Ok("error") => error = Some(value),
            _ => {}
        }
    }
    match error.filter(|error| !error.is_falsy()) {
        Some(error) => Err(error.read::<Fault>()?.into_error()),
        None => Ok(result.unwrap_or_else(Payload::null)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    /// Source: `safe_for_serialization` of Nameko 2.14.1, which converts iterables to lists.
    #[test]
    fn an_iterable_exception_is_a_remote_error() {
        let body = br#"{"result": null, "error": {"exc_type": "Many", "value": ["a", "b"]}}"#;
        let codec = Codec::of(&Config::default()).expect("the default");
        let reply = decode_reply(&codec, &Properties::default(), &Bytes::from_static(body));
        let error = reply.expect_err("an error");
        assert_eq!(error.to_string(), r#"Many ["a","b"]"#);
    }
}
