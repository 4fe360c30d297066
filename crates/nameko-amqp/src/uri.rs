//! AMQP URIs in kombu's syntax.

use std::fmt;

use percent_encoding::percent_decode_str;

use crate::{error::Error, peer::Peer, uri_parameters::Parameter};

/// Address of a broker and credentials. `Debug` and `Display` redact the password.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Uri {
    /// User name.
    pub user: String,
    /// Password.
    pub password: String,
    /// Host name or IP address (IPv6 without brackets).
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Virtual host.
    pub vhost: String,
    /// Whether the scheme is `amqps`: TLS even without TLS options.
    pub tls: bool,
}

impl Uri {
    /// Parses one URI or several, separated by `;`, to be tried in order.
    ///
    /// The schemes are `amqp`, `pyamqp`, `librabbitmq`, `amqps` and `pyamqps`. Defaults are the
    /// user guest, the password guest, localhost, port 5672 (5671 with TLS) and the virtual host
    /// `/`. As in kombu, the virtual host is the percent-decoded text after the first `/` behind
    /// the host, and `/` if that is empty. A fragment is ignored. Parameters are checked and left
    /// to [`ConnectOptions::from_uri`](crate::ConnectOptions::from_uri).
    ///
    /// # Errors
    ///
    /// [`Error::BadUri`] if a URI or a parameter is invalid.
    pub fn parse_list(text: &str) -> Result<Vec<Uri>, Error> {
        Self::parse_with_parameters(text).map(|(uris, _)| uris)
    }

    /// Parses URIs and their parameters, which apply to all of them.
    pub(crate) fn parse_with_parameters(text: &str) -> Result<(Vec<Uri>, Vec<Parameter>), Error> {
        let mut uris = Vec::new();
        let mut parameters: Vec<Parameter> = Vec::new();
        for part in text.split(';').map(str::trim) {
            if part.is_empty() {
                continue;
            }
            let (uri, given) = Uri::parse(part)?;
            for parameter in given {
                match parameters
                    .iter()
                    .find(|known| known.sets_the_same(&parameter))
                {
                    Some(known) if *known != parameter => {
                        return Err(bad(
                            text,
                            format!(
                                "it gives two values, {known:?} and {parameter:?}, for parameters \
                                 that apply to all nodes"
                            ),
                        ));
                    }
                    Some(_) => {}
                    None => parameters.push(parameter),
                }
            }
            uris.push(uri);
        }
        if uris.is_empty() {
            return Err(bad(text, "it is empty"));
        }
        if parameters.contains(&Parameter::Ssl(false)) && uris.iter().any(|uri| uri.tls) {
            return Err(bad(text, "`ssl` is off and the scheme is that of TLS"));
        }
        // Turns TLS off after the others have turned it on.
        parameters.sort_by_key(|parameter| *parameter == Parameter::Ssl(false));
        Ok((uris, parameters))
    }

    fn parse(text: &str) -> Result<(Uri, Vec<Parameter>), Error> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("amqp", text));
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "amqp" | "pyamqp" | "librabbitmq" => false,
            "amqps" | "pyamqps" => true,
            _ => {
                return Err(bad(text, format!("`{scheme}` is not an AMQP scheme")));
            }
        };
        let (authority, path) = match rest.find(['/', '?', '#']) {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if let Some(at) = path.find(['?', '#'])
            && path[at..].contains('@')
        {
            return Err(bad(
                text,
                "in a password or vhost write `?` as %3F and `#` as %23; in a parameter, `@` as %40",
            ));
        }
        let path = path.split_once('#').map_or(path, |(path, _)| path);
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let parameters = Parameter::parse_query(query).map_err(|reason| bad(text, reason))?;
        let (login, place) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let (host, port) = split_port(text, place)?;
        let decoded = |part: &str, default: &str| -> Result<String, Error> {
            let part = percent_decode_str(part)
                .decode_utf8()
                .map_err(|_| bad(text, "a percent-encoded part is not UTF-8"))?;
            Ok(if part.is_empty() { default } else { &part }.to_owned())
        };
        let uri = Uri {
            user: decoded(user, "guest")?,
            password: decoded(password, "guest")?,
            host: decoded(host, "localhost")?,
            port: port.unwrap_or(if tls { 5671 } else { 5672 }),
            vhost: decoded(path.strip_prefix('/').unwrap_or(path), "/")?,
            tls,
        };
        Ok((uri, parameters))
    }
}

/// Splits `host:port` or `[::1]:port`; either part may be missing.
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
            format!("`{port}` is not a port, a number from 1 to 65535"),
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

impl From<&Uri> for Peer {
    fn from(uri: &Uri) -> Self {
        Self::new(&uri.host, uri.port, &uri.vhost, &uri.user)
    }
}

const REDACTED: &str = "********";

/// Redacts the passwords of a URI, or of a list of them, as `********`, for logs and messages.
///
/// In doubt it redacts too much: also a password with `/`, `?`, `#`, `@` or `;`, which should have
/// been percent-encoded.
pub fn sanitize(url: &str) -> String {
    let mut clean = String::with_capacity(url.len());
    let mut rest = url;
    loop {
        let start = rest.find("://").map_or(0, |at| at + 3);
        // The URI ends at a `;` before the next scheme.
        let end = rest[start..]
            .find("://")
            .and_then(|next| rest[..start + next].rfind(';'))
            .filter(|end| *end >= start)
            .unwrap_or(rest.len());
        let (scheme, place) = rest[..end].split_at(start);
        clean.push_str(scheme);
        match place
            .rsplit_once('@')
            .map(|(login, host)| (login.split_once(':'), host))
        {
            Some((Some((user, _)), host)) => {
                clean.push_str(user);
                clean.push(':');
                clean.push_str(REDACTED);
                clean.push('@');
                clean.push_str(host);
            }
            _ => clean.push_str(place),
        }
        match rest.get(end + 1..) {
            Some(next) => {
                clean.push(';');
                rest = next;
            }
            None => return clean,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// user, password, host, port, vhost, tls
    fn parts(text: &str) -> (String, String, String, u16, String, bool) {
        let uri = Uri::parse_list(text).unwrap().remove(0);
        (
            uri.user,
            uri.password,
            uri.host,
            uri.port,
            uri.vhost,
            uri.tls,
        )
    }

    fn expected(
        user: &str,
        password: &str,
        host: &str,
        port: u16,
        vhost: &str,
        tls: bool,
    ) -> (String, String, String, u16, String, bool) {
        (
            user.into(),
            password.into(),
            host.into(),
            port,
            vhost.into(),
            tls,
        )
    }

    #[test]
    fn parses_uris_like_kombu() {
        for (text, uri) in [
            (
                "pyamqp://guest:guest@localhost",
                expected("guest", "guest", "localhost", 5672, "/", false),
            ),
            (
                "amqp://",
                expected("guest", "guest", "localhost", 5672, "/", false),
            ),
            (
                "amqp://h/",
                expected("guest", "guest", "h", 5672, "/", false),
            ),
            (
                "amqp://h//",
                expected("guest", "guest", "h", 5672, "/", false),
            ),
            (
                "amqp://h/v",
                expected("guest", "guest", "h", 5672, "v", false),
            ),
            (
                "amqp://h//v",
                expected("guest", "guest", "h", 5672, "/v", false),
            ),
            (
                "amqp://h/%2F",
                expected("guest", "guest", "h", 5672, "/", false),
            ),
            (
                "amqp://h/a%20b/c",
                expected("guest", "guest", "h", 5672, "a b/c", false),
            ),
            (
                "amqps://u:p%40:x@h:1/v",
                expected("u", "p@:x", "h", 1, "v", true),
            ),
            (
                "amqps://h",
                expected("guest", "guest", "h", 5671, "/", true),
            ),
            ("amqp://u@h", expected("u", "guest", "h", 5672, "/", false)),
            (
                "amqp://u:p@ss@h",
                expected("u", "p@ss", "h", 5672, "/", false),
            ),
            (
                "amqp://[::1]:7/v",
                expected("guest", "guest", "::1", 7, "v", false),
            ),
            (
                "amqp://[::1]",
                expected("guest", "guest", "::1", 5672, "/", false),
            ),
            ("h:7", expected("guest", "guest", "h", 7, "/", false)),
        ] {
            assert_eq!(parts(text), uri, "{text}");
        }
    }

    #[test]
    fn several_uris_keep_their_order() {
        let uris = Uri::parse_list("amqp://a; amqp://b:1/v;").unwrap();
        let hosts: Vec<_> = uris.iter().map(|uri| uri.host.as_str()).collect();
        assert_eq!(hosts, ["a", "b"]);
    }

    #[test]
    fn errors_name_the_invalid_part_and_redact_the_password() {
        for (text, reason) in [
            ("", "empty"),
            (";", "empty"),
            ("memory://", "`memory`"),
            ("http://u:secret@h", "`http`"),
            ("amqp://u:secret@h:x", "`x` is not a port"),
            ("amqp://u:secret@h:0", "not a port"),
            ("amqp://u:secret@h:65536", "not a port"),
            ("amqp://u:secret@h/v?heartbeats=1", "known are heartbeat, "),
            (
                "amqp://u:secret@h/v?heartbeat=-1",
                "from 0 to 65535 seconds",
            ),
            ("amqp://u:secret@h?connect_timeout=0", "above 0"),
            ("amqp://u:secret@h?connection_timeout=1.5", "milliseconds"),
            ("amqp://u:secret@h?frame_max=100", "4096"),
            ("amqp://u:secret@h?auth_mechanism=ntlm", "EXTERNAL"),
            ("amqp://u:secret@h?verify=maybe", "verify_none"),
            ("amqp://u:secret@h?certfile=", "PEM file"),
            ("amqp://u:secret@h?ssl=perhaps", "true or false"),
            ("amqps://u:secret@h?ssl=0", "scheme"),
            (
                "amqp://u:secret@h?heartbeat=1;amqp://h?heartbeat=2",
                "two values",
            ),
            ("amqp://u:sec?ret@h", "%3F"),
            ("amqp://u:sec#ret@h", "%23"),
            ("amqp://u:secret@::1", "brackets"),
            ("amqp://u:secret@[::1", "without `]`"),
            ("amqp://u:secret@[::1]x", "after `]`"),
            ("amqp://u:secret@%ff", "UTF-8"),
        ] {
            let error = Uri::parse_list(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{error} lacks {reason}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn parameters_of_kombu_and_rabbitmq_set_options() {
        use std::{path::PathBuf, time::Duration};

        use crate::options::{ConnectOptions, Login, Tls, Verify};

        let of = |text: &str| ConnectOptions::from_uri(text).unwrap();
        let path = |name: &str| Some(PathBuf::from(name));
        let options = of(
            "PYAMQP://h/v?heartbeat=10&connection_timeout=2500&channel_max=7&frame_max=8192\
             &auth_mechanism=amqplain&name=my+app#fragment",
        );
        assert_eq!(options.uris[0].vhost, "v");
        assert_eq!(options.heartbeat, 10);
        assert_eq!(options.connect_timeout, Duration::from_millis(2500));
        assert_eq!((options.channel_max, options.frame_max), (7, 8192));
        assert_eq!(options.login, Login::AmqPlain);
        assert_eq!(options.connection_name.as_deref(), Some("my app"));
        assert_eq!(options.tls, None);

        assert_eq!(
            of("amqp://h?connect_timeout=0.5")
                .connect_timeout
                .as_millis(),
            500
        );
        assert_eq!(of("amqp://h?login_method=EXTERNAL").login, Login::External);
        assert_eq!(of("amqp://h#fragment"), of("amqp://h"));
        assert_eq!(of("amqp://h?"), of("amqp://h"));
        assert_eq!(of("amqp://a?heartbeat=3;amqp://b").heartbeat, 3);

        assert_eq!(of("amqp://h?ssl=1").tls, Some(Tls::default()));
        assert_eq!(of("amqp://h?ssl=False&cacertfile=ca.pem").tls, None);
        let rabbitmq = "amqps://h?cacertfile=ca.pem&certfile=c.pem&keyfile=k.pem\
                        &verify=verify_none&server_name_indication=rabbit";
        assert_eq!(
            of(rabbitmq).tls,
            Some(Tls {
                verify: Verify::None,
                ca_certs: path("ca.pem"),
                certfile: path("c.pem"),
                keyfile: path("k.pem"),
                server_name: Some("rabbit".to_owned()),
                check_hostname: false,
            })
        );
        let kombu =
            "amqp://h?ssl_ca_certs=ca%2Fca.pem&ssl_cert_reqs=optional&ssl_check_hostname=true";
        assert_eq!(
            of(kombu).tls,
            Some(Tls {
                verify: Verify::Optional,
                ca_certs: path("ca/ca.pem"),
                check_hostname: true,
                ..Tls::default()
            })
        );
    }

    #[test]
    fn passwords_are_redacted() {
        for (text, clean) in [
            ("amqp://u:p@h:1/v", "amqp://u:********@h:1/v"),
            ("amqp://u:p@h;amqp://h2", "amqp://u:********@h;amqp://h2"),
            ("amqp://u@h", "amqp://u@h"),
            ("amqp://h/v", "amqp://h/v"),
            (
                "amqp://u:p@h/v;amqp://u:q@h;amqps://u:r@h",
                "amqp://u:********@h/v;amqp://u:********@h;amqps://u:********@h",
            ),
            ("amqp://u:p/q@h/v", "amqp://u:********@h/v"),
            ("amqp://u:p;q@h/v", "amqp://u:********@h/v"),
            ("u:p@h", "u:********@h"),
            ("", ""),
        ] {
            assert_eq!(sanitize(text), clean);
        }
        let uri = &Uri::parse_list("amqp://u:secret@h").unwrap()[0];
        assert!(!format!("{uri} {uri:?}").contains("secret"));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics_or_reveals_a_password(text in ".{0,40}", password in "[a-z0-9/?#@:;%\u{e9}]{6,12}") {
            let _ = Uri::parse_list(&text);
            sanitize(&text);
            let secret = format!("amqp://user:{password}@host/v");
            let _ = Uri::parse_list(&secret);
            prop_assert!(!sanitize(&secret).contains(&password));
        }

        #[test]
        fn percent_encoded_parts_round_trip(user in "\\PC{1,9}", password in "\\PC{1,9}", vhost in "\\PC{1,9}") {
            use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

            let encode = |part| utf8_percent_encode(part, NON_ALPHANUMERIC).to_string();
            let text = format!("amqp://{}:{}@h/{}", encode(&user), encode(&password), encode(&vhost));
            prop_assert_eq!(parts(&text), expected(&user, &password, "h", 5672, &vhost, false));
        }
    }
}
