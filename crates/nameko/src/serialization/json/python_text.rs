//! A serde_json formatter with the output of Python's `json.dumps`.

use std::fmt::{self, Write as _};
use std::io;

use serde_json::ser::Formatter;

use super::non_finite::Special;

/// The spelling of numbers that JSON lacks.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Dialect {
    /// `NaN`, `Infinity`: for messages to peers.
    Python,
    /// As stand-ins: for text inside this crate.
    Standard,
}

impl Formatter for Dialect {
    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first {
            Ok(())
        } else {
            writer.write_all(b", ")
        }
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.begin_array_value(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }

    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        match (Special::of_stand_in(value), self) {
            (None, _) => writer.write_all(python_float(value).as_bytes()),
            (Some(special), Self::Python) => writer.write_all(special.token().as_bytes()),
            (Some(special), Self::Standard) => writer.write_all(special.stand_in_text().as_bytes()),
        }
    }

    // The shortest digits of the `f32`: 0.1 stays 0.1; converted to a double it would become
    // 0.10000000149011612.
    fn write_f32<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f32) -> io::Result<()> {
        writer.write_all(python_float(value).as_bytes())
    }

    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.bytes().position(|b| !(0x20..0x7f).contains(&b)) {
            let (plain, special) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let mut chars = special.chars();
            if let Some(c) = chars.next() {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
            rest = chars.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

/// Formats a finite float as Python's `repr`: the shortest digits that round-trip, with an exponent
/// from 1e16 up and below 1e-4.
pub(crate) fn python_float(value: impl fmt::Display + fmt::LowerExp) -> String {
    // "d.ddde-x": the shortest digits and the position of the point.
    let scientific = format!("{value:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let mut text = format!("{value}");
        if !text.contains('.') {
            text.push_str(".0");
        }
        return text;
    }
    let mut text = mantissa.to_owned();
    let sign = if exponent < 0 { '-' } else { '+' };
    let _ = write!(text, "e{sign}{:02}", exponent.unsigned_abs());
    text
}
