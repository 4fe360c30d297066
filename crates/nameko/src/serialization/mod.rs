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
mod writer;

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

pub use self::non_finite::{python, standard};
use self::python_text::Dialect;
pub(crate) use self::python_text::python_float;

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
    let text = String::from_utf8(write(value, Dialect::Standard)?).map_err(Error::write)?;
    RawValue::from_string(text).map_err(Error::write)
}

/// Reads a value from JSON text, Python's or [`standard`].
///
/// A `f32` or `f64` takes `NaN` and `Infinity`; a [`serde_json::Value`], which can't hold them, takes null in their place;
/// other types refuse them.
///
/// # Errors
/// The text is not JSON, or not what `T` expects.
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> Result<T, Error> {
    let text = std::str::from_utf8(text)
        .map_err(|error| Error::read(format_args!("it is not UTF-8 text: {error}")))?;
    from_str(text)
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
        serde_json::from_str(&text).map_err(Error::of)
    }
}

fn write<T: Serialize + ?Sized>(value: &T, dialect: Dialect) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(128);
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, dialect);
    value
        .serialize(writer::Floats(&mut serializer))
        .map_err(Error::write)?;
    Ok(out)
}

/// A value could not be turned into JSON, or JSON not into a value.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Read,
    Mismatch,
    Write,
    ContentType,
}

impl Error {
    /// A text could not be read; `detail` says why.
    pub fn read(detail: impl fmt::Display) -> Self {
        Self {
            kind: Kind::Read,
            detail: detail.to_string(),
        }
    }

    /// What serde_json says about a text.
    fn of(error: serde_json::Error) -> Self {
        if !error.is_data() {
            return Self::read(error);
        }
        let text = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        Self {
            kind: Kind::Mismatch,
            detail: text.strip_suffix(&place).unwrap_or(&text).to_owned(),
        }
    }

    /// A value could not be written; `detail` says why.
    pub fn write(detail: impl fmt::Display) -> Self {
        Self {
            kind: Kind::Write,
            detail: detail.to_string(),
        }
    }

    /// A message is of a content type that is not JSON.
    pub fn content_type(content_type: &str) -> Self {
        Self {
            kind: Kind::ContentType,
            detail: content_type.to_owned(),
        }
    }

    /// Whether it was a value of ours that has no JSON form, not a text of a peer's.
    pub fn is_write(&self) -> bool {
        self.kind == Kind::Write
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let detail = &self.detail;
        match self.kind {
            Kind::Write => write!(f, "the value can't be written as JSON: {detail}"),
            Kind::Read if detail.contains("hex escape") => {
                write!(
                    f,
                    "the JSON holds half of a surrogate pair (like \\ud800), which is no text: {detail}"
                )
            }
            Kind::Read => write!(f, "the JSON can't be read: {detail}"),
            // "invalid type: integer `1`, expected a string"
            Kind::Mismatch => f.write_str(detail),
            Kind::ContentType => write!(
                f,
                "a message of content type `{detail}` can't be read: send application/json"
            ),
        }
    }
}

impl std::error::Error for Error {}
