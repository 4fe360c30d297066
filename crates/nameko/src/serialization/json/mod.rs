//! JSON as written and read by Python's `json` module, the format of Nameko peers.
//!
//! The output is that of `json.dumps`: separators `", "` and `": "`, non-ASCII escaped, floats as
//! by Python's `repr` (`1.0`, `1e+16`), `NaN` and `Infinity` for the numbers that JSON lacks. The
//! reader accepts all of it.
//!
//! serde_json does the work, but rejects `NaN`, `Infinity` and `-Infinity`. Inside this crate they
//! are replaced by reserved spellings of ordinary numbers, so that a [`RawValue`] can hold any text
//! of a peer. [`standard`] and [`python`] convert between the two forms where messages enter and
//! leave.

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
#[cfg(feature = "msgpack")]
pub(super) use self::reader::read_checked;
use super::Error;

/// Serializes a value as Python's `json.dumps` does.
///
/// ```
/// let text = nameko::serialization::to_vec(&("é", 1.0, f64::NAN))?;
/// assert_eq!(text, br#"["\u00e9", 1.0, NaN]"#);
/// # Ok::<(), nameko::serialization::Error>(())
/// ```
///
/// # Errors
/// If JSON cannot represent the value (a map with compound keys), or its `Serialize` fails.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    write(value, Dialect::Python)
}

/// Serializes a value as JSON text in the [`standard`] form, for embedding in a larger message.
///
/// # Errors
/// As for [`to_vec`].
pub fn to_raw<T: Serialize + ?Sized>(value: &T) -> Result<Box<RawValue>, Error> {
    let text = String::from_utf8(write(value, Dialect::Standard)?).map_err(Error::json_write)?;
    RawValue::from_string(text).map_err(Error::json_write)
}

/// Returns the kind of a JSON text by its first character, as a phrase for error messages.
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

/// Deserializes a value from JSON text, Python's or [`standard`].
///
/// `NaN` and `Infinity` deserialize as `f32` or `f64`. Other types return an error; so does a
/// [`serde_json::Value`], also for an integer that takes more than 64 bits, since it cannot hold
/// them. Fields with `#[serde(flatten)]` and untagged enums are not checked, since serde buffers
/// their values itself.
///
/// # Errors
/// If the text is not JSON, or not a `T`.
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> Result<T, Error> {
    from_str(utf_8(text)?)
}

/// Like [`from_slice`], for a `str`.
///
/// # Errors
/// As for [`from_slice`].
pub fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    let text = standard(text)?;
    if non_finite::occurs_in(&text) || non_finite::may_hold_huge_integer(&text) {
        reader::read(&text)
    } else {
        serde_json::from_str(&text).map_err(Error::of_json)
    }
}

/// Reads JSON text in the [`standard`] form for logs: null in place of numbers that a
/// [`serde_json::Value`] cannot hold.
pub(crate) fn approximate_value(text: &str) -> Option<serde_json::Value> {
    reader::read_approximately(text).ok()
}

/// Converts a message body to the [`standard`] form, including kombu's tagged values. Does not
/// validate the JSON.
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

/// Transcodes standard JSON text to another serde format.
pub(super) fn transcode<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    // serde_json would convert larger integers to floats.
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
