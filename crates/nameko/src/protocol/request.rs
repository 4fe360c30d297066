//! Requests: `{"args": [...], "kwargs": {...}}`, in the format of the caller.

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use super::{argument_shape::is_single, fault::Fault};
use crate::{
    amqp::Properties,
    arguments::Arguments,
    error::Result as CallResult,
    serialization::{self, Codec, Content, Encoded, Error, Format, JSON, Payload, RAW, TEXT},
};

/// The serialized arguments of a call.
#[derive(Debug)]
pub(crate) enum Call {
    /// JSON text.
    Json {
        args: Cow<'static, [u8]>,
        kwargs: Cow<'static, [u8]>,
    },
    /// For other formats.
    Packed { args: Payload, kwargs: Payload },
}

/// Key names and order are those of `RpcProxy`, Nameko 2.14.1.
#[derive(Serialize)]
struct Envelope<A, K> {
    args: A,
    kwargs: K,
}

impl Call {
    /// Serializes positional arguments from a list or tuple, or named ones from a map or struct.
    /// Any other value is one positional argument, except `()`, which is none.
    pub(crate) fn new<T: Serialize + ?Sized>(
        format: &Format,
        arguments: &T,
    ) -> Result<Self, Error> {
        const LIST: Cow<'static, [u8]> = Cow::Borrowed(b"[]");
        const MAP: Cow<'static, [u8]> = Cow::Borrowed(b"{}");
        if let Format::Json = format {
            let (args, kwargs) = if is_single(arguments) {
                (serialization::to_vec(&[arguments])?.into(), MAP)
            } else {
                let json = serialization::to_vec(arguments)?;
                match json.first() {
                    Some(b'[') => (json.into(), MAP),
                    Some(b'{') => (LIST, json.into()),
                    Some(b'n') => (LIST, MAP),
                    // A value in the form of JSON text.
                    _ => ([b"[", &*json, b"]"].concat().into(), MAP),
                }
            };
            return Ok(Self::Json { args, kwargs });
        }
        let map = || Payload::packed(&serde_json::Map::new());
        if is_single(arguments) {
            let args = Payload::packed(&[arguments])?;
            return Ok(Self::Packed {
                args,
                kwargs: map()?,
            });
        }
        let packed = Payload::packed(arguments)?;
        let list = || Payload::packed::<[(); 0]>(&[]);
        let (args, kwargs) = match packed.kind() {
            "a list" => (packed, map()?),
            "a map" => (list()?, packed),
            "null" => (list()?, map()?),
            _ => (Payload::packed(&[packed])?, map()?),
        };
        Ok(Self::Packed { args, kwargs })
    }

    /// Converts the arguments for a call in this process.
    #[cfg(feature = "testing")]
    pub(crate) fn bindable<T: Serialize + ?Sized>(arguments: &T) -> CallResult<Arguments> {
        match Self::new(&Format::Json, arguments)? {
            Self::Json { args, kwargs } => Arguments::from_json(
                &serialization::received(&args)?,
                &serialization::received(&kwargs)?,
            ),
            Self::Packed { args, kwargs } => {
                Arguments::from_json(args.to_json()?.get(), kwargs.to_json()?.get())
            }
        }
    }

    /// Serializes positional and named arguments.
    pub(crate) fn of<A, K>(format: &Format, args: &A, kwargs: &K) -> Result<Self, Error>
    where
        A: Serialize + ?Sized,
        K: Serialize + ?Sized,
    {
        Ok(match format {
            Format::Json => Self::Json {
                args: serialization::to_vec(args)?.into(),
                kwargs: serialization::to_vec(kwargs)?.into(),
            },
            _ => Self::Packed {
                args: Payload::packed(args)?,
                kwargs: Payload::packed(kwargs)?,
            },
        })
    }

    /// Encodes the request in the format of the arguments.
    pub(crate) fn encode(&self, format: &Format) -> Result<Encoded, Error> {
        match self {
            Self::Json { args, kwargs } => {
                let mut body = Vec::with_capacity(args.len() + kwargs.len() + 22);
                body.extend_from_slice(b"{\"args\": ");
                body.extend_from_slice(args);
                body.extend_from_slice(b", \"kwargs\": ");
                body.extend_from_slice(kwargs);
                body.push(b'}');
                Ok(Format::Json.encoded(body))
            }
            Self::Packed { args, kwargs } => format.encode(&Envelope { args, kwargs }),
        }
    }

    /// Returns the positional and the named arguments, for mocks.
    pub(crate) fn values(&self) -> Result<(Value, Value), Error> {
        match self {
            Self::Json { args, kwargs } => Ok((
                serialization::from_slice(args)?,
                serialization::from_slice(kwargs)?,
            )),
            Self::Packed { args, kwargs } => Ok((args.read()?, kwargs.read()?)),
        }
    }
}

/// Decodes a request. Errors for malformed bodies are those of Nameko. Without a content type, the
/// body is JSON.
pub(crate) fn decode_request(
    codec: &Codec,
    properties: &Properties,
    body: &Bytes,
) -> Result<Arguments, Fault> {
    let content_type = properties.content_type.as_deref().unwrap_or(JSON);
    let payload = if [RAW, TEXT].contains(&content_type) {
        codec.decode(properties, body).map_err(unreadable)?
    } else {
        let format = codec.accepted(content_type).map_err(unreadable)?;
        let body = codec.plain(format, properties, body).map_err(unreadable)?;
        if let Format::Json = format {
            return from_json(&serialization::received(&body).map_err(unreadable)?);
        }
        format.decode(&body).map_err(unreadable)?
    };
    match payload.content() {
        Content::Json(text) => from_json(text.get()),
        #[cfg(feature = "msgpack")]
        Content::MessagePack(_) => from_message_pack(&payload),
    }
}

fn unreadable(error: Error) -> Fault {
    Fault::nameko(
        "MalformedRequest",
        format!("cannot read a request: {error}"),
    )
}

fn not_json(error: impl fmt::Display) -> Fault {
    Fault::nameko(
        "MalformedRequest",
        format!("request is not valid JSON: {error}"),
    )
}

fn from_json(text: &str) -> Result<Arguments, Fault> {
    if !text.trim_start().starts_with('{') {
        let other: &RawValue = serde_json::from_str(text).map_err(not_json)?;
        return Err(not_a_mapping(serialization::json_kind(other.get())));
    }

    #[derive(Deserialize)]
    struct Request<'a> {
        #[serde(borrow)]
        args: Option<&'a RawValue>,
        #[serde(borrow)]
        kwargs: Option<&'a RawValue>,
    }

    let request: Request<'_> = serde_json::from_str(text).map_err(not_json)?;
    match (request.args, request.kwargs) {
        (Some(args), Some(kwargs)) => arguments(Arguments::from_json(args.get(), kwargs.get())),
        // An explicit null deserializes as absent; Nameko distinguishes them and reports that null
        // is not a list.
        _ => {
            let keys: serde_json::Map<String, Value> =
                serde_json::from_str(text).unwrap_or_default();
            Err(missing_half(
                keys.get("args").map(Value::is_null),
                keys.get("kwargs").map(Value::is_null),
            ))
        }
    }
}

#[cfg(feature = "msgpack")]
fn from_message_pack(payload: &Payload) -> Result<Arguments, Fault> {
    use crate::serialization::Parts;

    let Parts::Map(pairs) = payload.parts() else {
        return Err(not_a_mapping(payload.kind()));
    };
    let (mut args, mut kwargs) = (None, None);
    for (key, value) in pairs {
        match key.read::<String>().as_deref() {
            Ok("args") => args = Some(value),
            Ok("kwargs") => kwargs = Some(value),
            _ => {}
        }
    }
    let is_null = |it: &Payload| it.kind() == "null";
    match (args, kwargs) {
        (Some(args), Some(kwargs)) if !is_null(&args) && !is_null(&kwargs) => {
            arguments(Arguments::from_message_pack(&args, &kwargs))
        }
        (args, kwargs) => Err(missing_half(
            args.as_ref().map(is_null),
            kwargs.as_ref().map(is_null),
        )),
    }
}

fn arguments(arguments: CallResult<Arguments>) -> Result<Arguments, Fault> {
    arguments.map_err(|error| Fault::of(&error))
}

/// Creates the error for a missing half: `None` if absent, else whether it is null.
fn missing_half(args: Option<bool>, kwargs: Option<bool>) -> Fault {
    let (Some(args), Some(_)) = (args, kwargs) else {
        return Fault::nameko("MalformedRequest", "Message missing `args` or `kwargs`");
    };
    let what = if args { "args" } else { "kwargs" };
    Fault::nameko(
        "IncorrectSignature",
        format!("`{what}` of the request is null"),
    )
}

/// Creates the error for a request that is no mapping but of another `kind` of value. Nameko 2 has
/// the `TypeError` of Python's `body["args"]` by accident; both fronts name the fault.
fn not_a_mapping(kind: &str) -> Fault {
    Fault::nameko(
        "MalformedRequest",
        format!("the request is not an object with `args` and `kwargs`: it is {kind}"),
    )
}
