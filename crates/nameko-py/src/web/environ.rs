//! The WSGI environ of a request. Source: PEP 3333.

use std::borrow::Cow;
use std::net::SocketAddr;

use nameko::web::http::request::Parts;
use nameko::web::http::{Version, header};
use nameko::web::{HeaderName, HeaderValue};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

/// Adds the variables of a request to `environ`. `length` is that of a buffered body.
pub(super) fn fill(
    environ: &Bound<'_, PyDict>,
    head: &Parts,
    peer: SocketAddr,
    length: Option<usize>,
) -> PyResult<()> {
    let py = environ.py();
    let path = head.uri.path();
    environ.set_item(intern!(py, "REQUEST_METHOD"), head.method.as_str())?;
    environ.set_item(intern!(py, "PATH_INFO"), unquote(path))?;
    environ.set_item(intern!(py, "RAW_PATH_INFO"), wsgi(path))?;
    let query = head.uri.query().unwrap_or_default();
    environ.set_item(intern!(py, "QUERY_STRING"), wsgi(query))?;
    environ.set_item(intern!(py, "REQUEST_URI"), target(head))?;
    environ.set_item(intern!(py, "REMOTE_ADDR"), peer.ip().to_string())?;
    environ.set_item(intern!(py, "REMOTE_PORT"), peer.port().to_string())?;
    environ.set_item(intern!(py, "SERVER_PROTOCOL"), protocol(head))?;
    for name in head.headers.keys() {
        let Some(key) = key(py, name) else { continue };
        environ.set_item(key, value(head, name))?;
    }
    // The authority of an absolute target replaces `Host`. Source: RFC 9112, section 3.2.2.
    if let Some(authority) = head.uri.authority() {
        let host = authority.as_str().rsplit('@').next();
        environ.set_item(intern!(py, "HTTP_HOST"), host)?;
    }
    // A buffered body has a length even if it was chunked.
    if let Some(length) = length
        && (length > 0 || head.headers.contains_key(header::TRANSFER_ENCODING))
    {
        environ.set_item(intern!(py, "CONTENT_LENGTH"), length.to_string())?;
    }
    Ok(())
}

/// Returns the target of a request as a WSGI string, without the authority.
pub(super) fn target(head: &Parts) -> Cow<'_, str> {
    let target = head.uri.path_and_query();
    wsgi(target.map_or(head.uri.path(), |target| target.as_str()))
}

/// Returns the version of HTTP.
pub(super) fn protocol(head: &Parts) -> &'static str {
    match head.version {
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

/// Returns the addresses of the client and its proxies, separated by commas.
pub(super) fn client(head: &Parts, peer: SocketAddr) -> String {
    let forwarded = HeaderName::from_static("x-forwarded-for");
    let mut text = value(head, &forwarded).replace(' ', "");
    if !text.is_empty() {
        text.push(',');
    }
    text.push_str(&peer.ip().to_string());
    text
}

/// Returns the variable of a header. None for a name with an underscore: its variable would be that
/// of the name with a dash, which a proxy may have set.
fn key<'py>(py: Python<'py>, name: &HeaderName) -> Option<Bound<'py, PyString>> {
    Some(match name.as_str() {
        "host" => intern!(py, "HTTP_HOST").clone(),
        "user-agent" => intern!(py, "HTTP_USER_AGENT").clone(),
        "accept" => intern!(py, "HTTP_ACCEPT").clone(),
        "accept-encoding" => intern!(py, "HTTP_ACCEPT_ENCODING").clone(),
        "accept-language" => intern!(py, "HTTP_ACCEPT_LANGUAGE").clone(),
        "authorization" => intern!(py, "HTTP_AUTHORIZATION").clone(),
        "connection" => intern!(py, "HTTP_CONNECTION").clone(),
        "cookie" => intern!(py, "HTTP_COOKIE").clone(),
        "content-length" => intern!(py, "CONTENT_LENGTH").clone(),
        "content-type" => intern!(py, "CONTENT_TYPE").clone(),
        other if other.contains('_') => return None,
        other => {
            let upper = other.to_ascii_uppercase().replace('-', "_");
            PyString::new(py, &format!("HTTP_{upper}"))
        }
    })
}

/// Returns the value of a header, with repeated headers joined.
fn value(head: &Parts, name: &HeaderName) -> String {
    let separator = if name == header::COOKIE { "; " } else { "," };
    let mut text = String::new();
    for (number, value) in head.headers.get_all(name).iter().enumerate() {
        if number > 0 {
            text.push_str(separator);
        }
        text.push_str(&latin1(HeaderValue::as_bytes(value)));
    }
    text
}

/// Converts a part of a URL to a WSGI string, percent-encoding kept.
fn wsgi(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(latin1(text.as_bytes()))
    }
}

/// Converts bytes to a WSGI string: one character per byte.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// Converts a path to a WSGI string, percent-encoding decoded.
fn unquote(path: &str) -> String {
    if !path.contains('%') {
        return wsgi(path).into_owned();
    }
    latin1(&decode(path))
}

/// Decodes the percent-encoding of a path. None if the result is not UTF-8.
pub(super) fn path_text(path: &str) -> Option<Cow<'_, str>> {
    if !path.contains('%') {
        return Some(Cow::Borrowed(path));
    }
    String::from_utf8(decode(path)).ok().map(Cow::Owned)
}

/// Decodes percent-encoding. Invalid encodings stay as they are.
fn decode(path: &str) -> Vec<u8> {
    let mut bytes = path.bytes();
    let mut decoded = Vec::with_capacity(path.len());
    while let Some(byte) = bytes.next() {
        let mut ahead = bytes.clone();
        let value = (byte == b'%')
            .then(|| Some(digit(ahead.next()?)? << 4 | digit(ahead.next()?)?))
            .flatten();
        if value.is_some() {
            bytes = ahead;
        }
        decoded.push(value.unwrap_or(byte));
    }
    decoded
}

fn digit(byte: u8) -> Option<u8> {
    let digit = char::from(byte).to_digit(16)?;
    u8::try_from(digit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_a_path_byte_by_byte() {
        for (path, text) in [
            ("/", "/"),
            ("/a%20b", "/a b"),
            ("/%C3%a9", "/\u{c3}\u{a9}"),
            ("/é", "/\u{c3}\u{a9}"),
            ("/a%2Fb", "/a/b"),
            ("/%25%41", "/%A"),
            ("/%2541", "/%41"),
            // Invalid encodings stay as they are.
            ("/%", "/%"),
            ("/%4", "/%4"),
            ("/%zz%41", "/%zzA"),
            ("/%%41", "/%A"),
            ("/%+1", "/%+1"),
        ] {
            assert_eq!(unquote(path), text, "{path}");
        }
    }
}
