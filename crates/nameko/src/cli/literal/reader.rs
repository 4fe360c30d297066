//! Parser of literals.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::Literal;
use crate::cli::scanner::{Fault, Scanner};

/// Parses the literal at the cursor.
pub(in crate::cli) fn value(scanner: &mut Scanner<'_>) -> Result<Literal, Fault> {
    scanner.space();
    let start = scanner.offset();
    match scanner.peek() {
        None => Err(scanner.expected("a value")),
        Some('[') => Ok(Literal::List(items(scanner, '[', ']')?.0)),
        Some('(') => {
            let (mut items, trailing_comma) = items(scanner, '(', ')')?;
            match items.pop() {
                Some(only) if items.is_empty() && !trailing_comma => Ok(only),
                Some(last) => {
                    items.push(last);
                    Ok(Literal::Tuple(items))
                }
                None => Ok(Literal::Tuple(items)),
            }
        }
        Some('{') => dict(scanner),
        Some(c) if c.is_ascii_digit() || matches!(c, '+' | '-' | '.') => number(scanner),
        Some('\'' | '"') => text(scanner),
        Some(c) if c.is_alphabetic() || c == '_' => {
            if string_prefix(scanner).is_some() {
                return text(scanner);
            }
            let word = scanner.word();
            named(word).ok_or_else(|| {
                Fault::new(
                    start,
                    format!("`{word}` is not a value; text needs quotes: '{word}'"),
                )
            })
        }
        Some('*') => Err(Fault::new(
            start,
            "`*` is not supported here: write the arguments out",
        )),
        Some(c) => Err(Fault::new(start, format!("expected a value, not `{c}`"))),
    }
}

fn named(word: &str) -> Option<Literal> {
    Some(match word {
        "None" | "null" => Literal::None,
        "True" | "true" => Literal::Bool(true),
        "False" | "false" => Literal::Bool(false),
        "NaN" => Literal::Float(f64::NAN),
        "Infinity" => Literal::Float(f64::INFINITY),
        _ => return None,
    })
}

/// Parses values between brackets; also returns whether there is a trailing comma.
fn items(
    scanner: &mut Scanner<'_>,
    open: char,
    close: char,
) -> Result<(Vec<Literal>, bool), Fault> {
    scanner.open(open)?;
    let mut items = Vec::new();
    let mut trailing_comma = false;
    while !scanner.closed(close) {
        items.push(value(scanner)?);
        trailing_comma = scanner.comma_or(close)?;
    }
    Ok((items, trailing_comma))
}

fn dict(scanner: &mut Scanner<'_>) -> Result<Literal, Fault> {
    let start = scanner.offset();
    scanner.open('{')?;
    let mut entries: Vec<(Literal, Literal)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    while !scanner.closed('}') {
        scanner.space();
        let key_start = scanner.offset();
        let key = value(scanner)?;
        scanner.space();
        if matches!(scanner.peek(), Some(',' | '}')) && entries.is_empty() {
            return Err(Fault::new(
                start,
                "sets cannot be sent: JSON has lists ([...]) and mappings ({key: value})",
            ));
        }
        scanner.take(':')?;
        if matches!(key, Literal::List(_) | Literal::Tuple(_) | Literal::Dict(_)) {
            return Err(Fault::new(
                key_start,
                "a key must be a string, a number, True, False or None",
            ));
        }
        let value = value(scanner)?;
        // As in Python, a duplicate key keeps the first position and the last value.
        match places.entry(key.to_string()) {
            Entry::Occupied(place) => entries[*place.get()].1 = value,
            Entry::Vacant(place) => {
                place.insert(entries.len());
                entries.push((key, value));
            }
        }
        scanner.comma_or('}')?;
    }
    Ok(Literal::Dict(entries))
}

fn number(scanner: &mut Scanner<'_>) -> Result<Literal, Fault> {
    let start = scanner.offset();
    let negative = match scanner.peek() {
        Some(sign @ ('+' | '-')) => {
            scanner.skip(sign);
            scanner.space();
            sign == '-'
        }
        _ => false,
    };
    if scanner.rest().starts_with("Infinity") && scanner.word() == "Infinity" {
        return Ok(Literal::Float(if negative {
            f64::NEG_INFINITY
        } else {
            f64::INFINITY
        }));
    }
    let body_start = scanner.offset();
    let body = number_text(scanner);
    let bad = |message: String| Fault::new(body_start, message);
    let int = |digits: String| match digits.trim_start_matches('0') {
        "" => Literal::Int("0".into()),
        digits => Literal::Int(format!("{}{digits}", if negative { "-" } else { "" })),
    };
    if body.is_empty() {
        return Err(Fault::new(start, "expected a number"));
    }
    let lower = body.to_ascii_lowercase();
    let radix = match lower.get(..2) {
        Some("0x") => Some(16),
        Some("0o") => Some(8),
        Some("0b") => Some(2),
        _ => None,
    };
    if let Some(radix) = radix {
        let digits = underscored(lower[2..].strip_prefix('_').unwrap_or(&lower[2..]), radix)
            .ok_or_else(|| bad(format!("`{body}` is not a number")))?;
        let value = u128::from_str_radix(&digits, radix).map_err(|_| {
            bad(format!(
                "`{body}` has more than 128 bits; write it in decimal digits"
            ))
        })?;
        return Ok(int(value.to_string()));
    }
    if let Some(digits) = underscored(&lower, 10) {
        if digits.len() > 1 && digits.starts_with('0') && digits.bytes().any(|b| b != b'0') {
            return Err(bad(format!(
                "`{body}`: leading zeros are not allowed; octal numbers are written 0o{}",
                digits.trim_start_matches('0')
            )));
        }
        return Ok(int(digits));
    }
    if lower.ends_with('j') {
        return Err(bad("complex numbers cannot be sent: JSON has none".into()));
    }
    match float(&lower) {
        Some(value) => Ok(Literal::Float(if negative { -value } else { value })),
        None => Err(bad(format!(
            "`{body}` is not a number; text needs quotes: '{body}'"
        ))),
    }
}

/// Takes the text of a number including letters after it, so that an error shows `12abc` as a
/// whole.
fn number_text<'a>(scanner: &mut Scanner<'a>) -> &'a str {
    let rest = scanner.rest();
    let mut before = '\0';
    let end = rest.find(|c: char| {
        let exponent_sign = matches!(c, '+' | '-')
            && matches!(before, 'e' | 'E')
            && !rest.starts_with("0x")
            && !rest.starts_with("0X");
        before = c;
        !(c.is_alphanumeric() || matches!(c, '_' | '.') || exponent_sign)
    });
    scanner.advance(end.unwrap_or(rest.len()))
}

/// Removes underscores, which are only allowed between digits.
fn underscored(digits: &str, radix: u32) -> Option<String> {
    let groups: Vec<&str> = digits.split('_').collect();
    let good = groups
        .iter()
        .all(|group| !group.is_empty() && group.chars().all(|c| c.is_digit(radix)));
    good.then(|| groups.concat())
}

fn float(text: &str) -> Option<f64> {
    let (mantissa, exponent) = match text.split_once('e') {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let part = |digits: &str| {
        if digits.is_empty() {
            Some(String::new())
        } else {
            underscored(digits, 10)
        }
    };
    let (whole, fraction) = (part(whole)?, part(fraction)?);
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let exponent = match exponent {
        None => "0".to_owned(),
        Some(exponent) => {
            let digits = underscored(exponent.strip_prefix(['+', '-']).unwrap_or(exponent), 10)?;
            format!(
                "{}{digits}",
                if exponent.starts_with('-') { "-" } else { "" }
            )
        }
    };
    format!("{whole}.{fraction}e{exponent}").parse().ok()
}

/// Returns the prefix of a string literal, if there is one at the cursor.
fn string_prefix<'a>(scanner: &Scanner<'a>) -> Option<&'a str> {
    let rest = scanner.rest();
    let letters = rest.find(|c: char| !c.is_ascii_alphabetic())?;
    let (prefix, after) = rest.split_at(letters);
    let known = matches!(
        prefix.to_ascii_lowercase().as_str(),
        "" | "r" | "u" | "b" | "br" | "rb" | "f" | "fr" | "rf"
    );
    (known && after.starts_with(['\'', '"'])).then_some(prefix)
}

/// Parses a string literal, or several adjacent ones.
fn text(scanner: &mut Scanner<'_>) -> Result<Literal, Fault> {
    let mut all = String::new();
    while let Some(prefix) = string_prefix(scanner) {
        let start = scanner.offset();
        let prefix = prefix.to_ascii_lowercase();
        if prefix.contains('b') {
            return Err(Fault::new(
                start,
                "bytes cannot be sent: JSON has only text; encode them (for example as base64)",
            ));
        }
        if prefix.contains('f') {
            return Err(Fault::new(
                start,
                "f-strings are not supported here: write the text itself",
            ));
        }
        scanner.advance(prefix.len());
        string(scanner, start, prefix.contains('r'), &mut all)?;
        scanner.space();
    }
    Ok(Literal::Text(all))
}

fn string(
    scanner: &mut Scanner<'_>,
    start: usize,
    raw: bool,
    out: &mut String,
) -> Result<(), Fault> {
    let quote = if scanner.rest().starts_with('"') {
        '"'
    } else {
        '\''
    };
    let triple = if quote == '"' { "\"\"\"" } else { "'''" };
    let long = scanner.rest().starts_with(triple);
    scanner.advance(if long { 3 } else { 1 });
    loop {
        let at = scanner.offset();
        if long && scanner.rest().starts_with(triple) {
            scanner.advance(3);
            return Ok(());
        }
        match scanner.next() {
            None if long => {
                return Err(Fault::incomplete(
                    start,
                    format!("unterminated string: expected {triple}"),
                ));
            }
            None => {
                return Err(Fault::new(
                    start,
                    format!("unterminated string: expected {quote}"),
                ));
            }
            Some('\n') if !long => {
                return Err(Fault::new(
                    start,
                    format!(
                        "unterminated string at the end of the line: expected {quote}, or use {triple}"
                    ),
                ));
            }
            Some(c) if c == quote && !long => return Ok(()),
            Some('\\') if raw => {
                out.push('\\');
                // An escaped quote does not end a raw string either; the backslash is kept.
                match scanner.next() {
                    Some(c) => out.push(c),
                    None => continue,
                }
            }
            Some('\\') => escape(scanner, at, out)?,
            Some(c) => out.push(c),
        }
    }
}

/// Parses the escape after the backslash at `at`.
fn escape(scanner: &mut Scanner<'_>, at: usize, out: &mut String) -> Result<(), Fault> {
    let Some(c) = scanner.next() else {
        return Ok(());
    };
    let plain = match c {
        '\n' => return Ok(()),
        '\\' | '\'' | '"' | '/' => c,
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        '0'..='7' => {
            let mut code = c.to_digit(8).unwrap_or(0);
            for _ in 0..2 {
                let Some(digit) = scanner.peek().and_then(|c| c.to_digit(8)) else {
                    break;
                };
                scanner.next();
                code = code * 8 + digit;
            }
            character(code, at)?
        }
        'x' => character(hex(scanner, at, 2)?, at)?,
        'u' => {
            let first = hex(scanner, at, 4)?;
            if (0xd800..0xdc00).contains(&first) && scanner.rest().starts_with("\\u") {
                scanner.advance(2);
                let second = hex(scanner, at, 4)?;
                if !(0xdc00..0xe000).contains(&second) {
                    return Err(half_pair(at));
                }
                character(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00), at)?
            } else {
                character(first, at)?
            }
        }
        'U' => character(hex(scanner, at, 8)?, at)?,
        'N' => {
            return Err(Fault::new(
                at,
                "named characters are not supported here: write the character itself, or \\uXXXX",
            ));
        }
        // Python keeps unknown escapes unchanged.
        other => {
            out.push('\\');
            other
        }
    };
    out.push(plain);
    Ok(())
}

fn hex(scanner: &mut Scanner<'_>, at: usize, digits: usize) -> Result<u32, Fault> {
    let mut code: u32 = 0;
    for _ in 0..digits {
        let digit = scanner.peek().and_then(|c| c.to_digit(16));
        let digit = digit.ok_or_else(|| {
            Fault::new(
                at,
                format!("expected {digits} hexadecimal digits after this"),
            )
        })?;
        scanner.next();
        code = code << 4 | digit;
    }
    Ok(code)
}

fn character(code: u32, at: usize) -> Result<char, Fault> {
    match char::from_u32(code) {
        Some(c) => Ok(c),
        None if code < 0x11_0000 => Err(half_pair(at)),
        None => Err(Fault::new(at, "invalid character code")),
    }
}

fn half_pair(at: usize) -> Fault {
    Fault::new(at, "a lone surrogate is not a character")
}
