//! JSON as Python's `json` module writes and reads it, since that is what every Nameko peer speaks.
//!
//! Written text is that of `json.dumps`: `", "` and `": "`, everything but ASCII escaped, floats as Python's `repr`
//! (`1.0`, `1e+16`), `NaN` and `Infinity` for numbers that JSON does not have. Reading takes all of that.
//!
//! serde_json does the work. What it does not know are the three numbers: within this crate they travel as
//! spellings of ordinary numbers that nobody else uses, so that a
//! [`RawValue`] can hold any text a peer sends. [`standard`] and [`python`] lead
//! from one form to the other, at the two edges where messages come in and go out.

mod non_finite;
mod python_text;
mod reader;
mod tagged;
mod writer;

use serde::de::DeserializeOwned;
use std::borrow::Cow;

use serde::{Serialize, Serializer, ser::Error as _};
use serde_json::value::RawValue;

pub use self::non_finite::{python, standard};
use self::python_text::Dialect;
pub(crate) use self::python_text::python_float;
use super::{Error, Payload};

/// The value as Python's `json.dumps` writes it.
///
/// ```
/// let text = nameko::serialization::to_vec(&("é", 1.0, f64::NAN))?;
/// assert_eq!(text, br#"["\u00e9", 1.0, NaN]"#);
/// # Ok::<(), nameko::serialization::Error>(())
/// ```
///
/// # Errors
/// The value has no JSON form: a map whose keys are neither text nor plain values, or its own `Serialize` fails.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    write(value, Dialect::Python)
}

/// The value as JSON text in the [`standard`] form, which can stand as a part of a larger message.
///
/// # Errors
/// As of [`to_vec`].
pub fn to_raw<T: Serialize + ?Sized>(value: &T) -> Result<Box<RawValue>, Error> {
    let text = String::from_utf8(write(value, Dialect::Standard)?).map_err(Error::json_write)?;
    RawValue::from_string(text).map_err(Error::json_write)
}

/// What a JSON text is, by how it begins: for errors about it.
pub(crate) fn json_kind(text: &str) -> &'static str {
    match text.as_bytes().first() {
        Some(b'[') => "a list",
        Some(b'{') => "a map",
        Some(b'"') => "text",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// Reads a value from JSON text, Python's or [`standard`].
///
/// A `f32` or `f64` takes `NaN` and `Infinity`; a [`serde_json::Value`], which can't hold them, takes null in their place;
/// other types refuse them.
///
/// # Errors
/// The text is not JSON, or not what `T` expects.
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> Result<T, Error> {
    from_str(utf_8(text)?)
}

/// As [`from_slice`].
///
/// # Errors
/// As there.
pub fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    let text = standard(text)?;
    if non_finite::occurs_in(&text) {
        reader::read(&text)
    } else {
        serde_json::from_str(&text).map_err(Error::of_json)
    }
}

/// The text of a message's body in the [`standard`] form, whatever kombu made of it. Not yet checked to be JSON.
pub(crate) fn received(body: &[u8]) -> Result<Cow<'_, str>, Error> {
    if body.is_empty() {
        return Err(Error::read("its body is empty"));
    }
    let text = utf_8(body)?;
    Ok(match tagged::plain(text) {
        Cow::Borrowed(text) => standard(text)?,
        Cow::Owned(text) => standard(&text)?.into_owned().into(),
    })
}

fn utf_8(text: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(text)
        .map_err(|error| Error::json_read(format_args!("it is not UTF-8 text: {error}")))
}

/// The one value that a body holds.
pub(super) fn decode(body: &[u8]) -> Result<Payload, Error> {
    RawValue::from_string(received(body)?.into_owned())
        .map(Payload::json)
        .map_err(Error::json_read)
}

/// Writes the value of a standard text in another format.
pub(super) fn transcode<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    // serde_json would make floats of them.
    match non_finite::huge_integer(text) {
        Some(digits) => Err(S::Error::custom(format_args!(
            "the integer {digits} takes more than 64 bits"
        ))),
        None => reader::transcode(text, serializer),
    }
}

fn write<T: Serialize + ?Sized>(value: &T, dialect: Dialect) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(128);
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, dialect);
    value
        .serialize(writer::Floats(&mut serializer))
        .map_err(Error::json_write)?;
    Ok(out)
}
