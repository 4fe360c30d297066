//! Values of YAML tags without a counterpart in JSON.

use serde_json::Value;

/// Decodes the base64 text of `!!binary` to a list of bytes. Ignores line ends and other characters
/// outside of the alphabet, as Python does.
pub(super) fn binary(text: &str) -> Result<Value, String> {
    let wrong = || "a !!binary value must be base64".to_owned();
    let mut bytes: Vec<Value> = Vec::new();
    let (mut buffer, mut bits, mut digits) = (0u32, 0, 0usize);
    for c in text.bytes().take_while(|c| *c != b'=') {
        let digit = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        digits += 1;
        buffer = (buffer << 6 | u32::from(digit)) & 0xfff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((buffer >> bits & 0xff).into());
        }
    }
    let padding = text.bytes().filter(|c| *c == b'=').count();
    match (digits + padding) % 4 == 0 && digits % 4 != 1 {
        true => Ok(Value::Array(bytes)),
        false => Err(wrong()),
    }
}

/// Converts the items of `!!omap` or `!!pairs` from mappings of one entry to lists of key and
/// value.
pub(super) fn pairs(items: Vec<Value>) -> Result<Value, String> {
    let pairs = items.into_iter().map(|item| match item {
        Value::Object(entry) if entry.len() == 1 => Ok(entry
            .into_iter()
            .map(|(key, value)| Value::Array(vec![key.into(), value]))
            .collect::<Vec<_>>()),
        _ => Err("the items of !!omap and !!pairs must be mappings of one entry".to_owned()),
    });
    let pairs: Result<Vec<Vec<Value>>, String> = pairs.collect();
    Ok(pairs?.into_iter().flatten().collect())
}
