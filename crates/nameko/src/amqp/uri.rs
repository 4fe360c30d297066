//! Where a broker is: AMQP URIs in kombu's spelling.

use std::fmt;

use percent_encoding::percent_decode_str;

use super::error::Error;

/// One broker to connect to, and as whom.
///
/// `Debug` and `Display` hide the password.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Uri {
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
    /// A host name or an IP address (IPv6 without brackets).
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// The virtual host.
    pub vhost: String,
    /// `amqps`: TLS even where no TLS options are given.
    pub tls: bool,
}

impl Uri {
    /// Reads one URI or several with `;` between them, to be tried in that order.
    ///
    /// `amqp://`, `pyamqp://` and `amqps://` (also `pyamqps://`); what is left out is guest, guest, localhost, 5672 (5671 with TLS) and `/`. What
    /// follows the first `/` after the host is the vhost, percent-decoded, and `/` when nothing follows (as kombu reads it).
    ///
    /// # Errors
    ///
    /// [`Error::BadUri`].
    pub fn parse_list(text: &str) -> Result<Vec<Uri>, Error> {
        let uris: Vec<Uri> = text
            .split(';')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(Uri::parse)
            .collect::<Result<_, _>>()?;
        if uris.is_empty() {
            return Err(bad(text, "it is empty"));
        }
        Ok(uris)
    }

    fn parse(text: &str) -> Result<Uri, Error> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("amqp", text));
        let tls = match scheme {
            "amqp" | "pyamqp" | "librabbitmq" => false,
            "amqps" | "pyamqps" => true,
            _ => {
                return Err(bad(
                    text,
                    format!("`{scheme}` is no scheme of an AMQP broker"),
                ));
            }
        };
        let (authority, path) = match rest.find(['/', '?', '#']) {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if path.contains(['?', '#']) {
            return Err(bad(
                text,
                "options after `?` are not understood, set them in the configuration; in a password or vhost write `?` as %3F and `#` as %23",
            ));
        }
        let (login, place) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let (host, port) = split_port(text, place)?;
        let decoded = |part: &str, default: &str| -> Result<String, Error> {
            let part = percent_decode_str(part)
                .decode_utf8()
                .map_err(|_| bad(text, "a percent-encoded part is not UTF-8"))?;
            Ok(if part.is_empty() { default } else { &part }.to_owned())
        };
        Ok(Uri {
            user: decoded(user, "guest")?,
            password: decoded(password, "guest")?,
            host: decoded(host, "localhost")?,
            port: port.unwrap_or(if tls { 5671 } else { 5672 }),
            vhost: decoded(path.strip_prefix('/').unwrap_or(path), "/")?,
            tls,
        })
    }
}

/// `host:port`, `[::1]:port`, either part may be missing.
fn split_port<'a>(text: &str, place: &'a str) -> Result<(&'a str, Option<u16>), Error> {
    let (host, port) = if let Some(bracketed) = place.strip_prefix('[') {
        let (host, rest) = bracketed
            .split_once(']')
            .ok_or_else(|| bad(text, "`[` without `]`"))?;
        match rest.strip_prefix(':') {
            Some(port) => (host, port),
            None if rest.is_empty() => (host, ""),
            None => return Err(bad(text, "unexpected text after `]`")),
        }
    } else {
        match place.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err(bad(
                    text,
                    "an IPv6 address needs brackets, as in amqp://[::1]:5672",
                ));
            }
            Some(parts) => parts,
            None => (place, ""),
        }
    };
    if port.is_empty() {
        return Ok((host, None));
    }
    match port.parse() {
        Ok(port) if port > 0 => Ok((host, Some(port))),
        _ => Err(bad(
            text,
            format!("`{port}` is no port, a number from 1 to 65535"),
        )),
    }
}

fn bad(text: &str, reason: impl Into<String>) -> Error {
    Error::BadUri {
        uri: sanitize(text),
        reason: reason.into(),
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "amqps" } else { "amqp" };
        let (open, close) = if self.host.contains(':') {
            ("[", "]")
        } else {
            ("", "")
        };
        write!(
            f,
            "{scheme}://{}:{REDACTED}@{open}{}{close}:{}/{}",
            self.user, self.host, self.port, self.vhost
        )
    }
}

impl fmt::Debug for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const REDACTED: &str = "********";

/// The same URI, or list of them, with `********` for each password: for logs and messages.
pub fn sanitize(url: &str) -> String {
    let mut clean = String::with_capacity(url.len());
    for (at, part) in url.split(';').enumerate() {
        if at > 0 {
            clean.push(';');
        }
        let start = part.find("://").map_or(0, |at| at + 3);
        let end = part[start..]
            .find(['/', '?', '#'])
            .map_or(part.len(), |at| start + at);
        let authority = &part[start..end];
        // A `/`, `?` or `#` in a password that should have been percent-encoded must not show the rest of it.
        let (authority, end) = match (authority.rfind('@'), part.rfind('@')) {
            (None, Some(at)) => (&part[start..=at], at + 1),
            _ => (authority, end),
        };
        match authority
            .rsplit_once('@')
            .map(|(login, host)| (login.split_once(':'), host))
        {
            Some((Some((user, _)), host)) => {
                clean.push_str(&part[..start]);
                clean.push_str(user);
                clean.push(':');
                clean.push_str(REDACTED);
                clean.push('@');
                clean.push_str(host);
                clean.push_str(&part[end..]);
            }
            _ => clean.push_str(part),
        }
    }
    clean
}
