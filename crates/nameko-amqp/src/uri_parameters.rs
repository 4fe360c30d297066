//! Parameters in the query of an AMQP URI: those of kombu and of RabbitMQ's URI specification.

use std::{path::PathBuf, time::Duration};

use percent_encoding::percent_decode_str;

use crate::options::{ConnectOptions, Login, Tls, Verify};

/// Names for messages, in the order of the documentation.
const KNOWN: &str = "heartbeat, connect_timeout (seconds), connection_timeout (milliseconds), \
     channel_max, frame_max, login_method, auth_mechanism, ssl, ssl_ca_certs, ssl_certfile, \
     ssl_keyfile, ssl_cert_reqs, ssl_check_hostname, cacertfile, certfile, keyfile, verify, \
     server_name_indication, name";

/// A parameter of a URI.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Parameter {
    Heartbeat(u16),
    ConnectTimeout(Duration),
    ChannelMax(u16),
    FrameMax(u32),
    Login(Login),
    Ssl(bool),
    CaCerts(PathBuf),
    Certfile(PathBuf),
    Keyfile(PathBuf),
    Verify(Verify),
    CheckHostname(bool),
    ServerName(String),
    Name(String),
}

impl Parameter {
    /// Parses a query.
    ///
    /// # Errors
    ///
    /// The reason, if a parameter is unknown or its value is invalid.
    pub(crate) fn parse_query(query: &str) -> Result<Vec<Self>, String> {
        query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                Self::parse(&decode(name)?, &decode(value)?)
            })
            .collect()
    }

    fn parse(name: &str, value: &str) -> Result<Self, String> {
        let wrong = |expected: &str| format!("`{name}` must be {expected}, not `{value}`");
        let file = || match value {
            "" => Err(wrong("the path of a PEM file")),
            path => Ok(PathBuf::from(path)),
        };
        Ok(match name {
            "heartbeat" => Self::Heartbeat(
                value
                    .parse()
                    .map_err(|_| wrong("from 0 to 65535 seconds"))?,
            ),
            "connect_timeout" => Self::ConnectTimeout(
                value
                    .parse()
                    .ok()
                    .filter(|seconds| *seconds > 0.0)
                    .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                    .ok_or_else(|| wrong("a number of seconds above 0"))?,
            ),
            "connection_timeout" => Self::ConnectTimeout(
                value
                    .parse()
                    .ok()
                    .filter(|milliseconds| *milliseconds > 0)
                    .map(Duration::from_millis)
                    .ok_or_else(|| wrong("a whole number of milliseconds above 0"))?,
            ),
            "channel_max" => Self::ChannelMax(value.parse().map_err(|_| wrong("from 0 to 65535"))?),
            "frame_max" => Self::FrameMax(
                value
                    .parse()
                    .ok()
                    .filter(|bytes| *bytes == 0 || *bytes >= 4096)
                    .ok_or_else(|| wrong("0 or at least 4096 bytes"))?,
            ),
            "login_method" | "auth_mechanism" => Self::Login(
                Login::from_name(&value.to_ascii_uppercase())
                    .ok_or_else(|| wrong("PLAIN, AMQPLAIN or EXTERNAL"))?,
            ),
            "ssl" => Self::Ssl(boolean(value).ok_or_else(|| wrong("true or false"))?),
            "ssl_ca_certs" | "cacertfile" => Self::CaCerts(file()?),
            "ssl_certfile" | "certfile" => Self::Certfile(file()?),
            "ssl_keyfile" | "keyfile" => Self::Keyfile(file()?),
            "verify" => Self::Verify(match value {
                "verify_peer" => Verify::Required,
                "verify_none" => Verify::None,
                _ => return Err(wrong("verify_peer or verify_none")),
            }),
            "ssl_cert_reqs" => Self::Verify(
                Verify::from_name(&format!(
                    "CERT_{}",
                    value.to_ascii_uppercase().trim_start_matches("CERT_")
                ))
                .ok_or_else(|| wrong("CERT_NONE, CERT_OPTIONAL or CERT_REQUIRED"))?,
            ),
            "ssl_check_hostname" => {
                Self::CheckHostname(boolean(value).ok_or_else(|| wrong("true or false"))?)
            }
            "server_name_indication" => Self::ServerName(value.to_owned()),
            "name" => Self::Name(value.to_owned()),
            _ => {
                return Err(format!(
                    "the parameter `{name}` is unknown; known are {KNOWN}"
                ));
            }
        })
    }

    /// Returns whether both set the same option.
    pub(crate) fn sets_the_same(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    /// Sets the option. A parameter for TLS enables TLS.
    pub(crate) fn apply(self, options: &mut ConnectOptions) {
        match self {
            Self::Heartbeat(seconds) => options.heartbeat = seconds,
            Self::ConnectTimeout(timeout) => options.connect_timeout = timeout,
            Self::ChannelMax(channels) => options.channel_max = channels,
            Self::FrameMax(bytes) => options.frame_max = bytes,
            Self::Login(login) => options.login = login,
            Self::Name(name) => options.connection_name = Some(name),
            Self::Ssl(false) => options.tls = None,
            tls => tls.apply_tls(options.tls.get_or_insert_default()),
        }
    }

    fn apply_tls(self, tls: &mut Tls) {
        match self {
            Self::CaCerts(path) => tls.ca_certs = Some(path),
            Self::Certfile(path) => tls.certfile = Some(path),
            Self::Keyfile(path) => tls.keyfile = Some(path),
            Self::Verify(verify) => tls.verify = verify,
            Self::CheckHostname(check) => tls.check_hostname = check,
            Self::ServerName(name) => tls.server_name = Some(name),
            _ => {}
        }
    }
}

/// Decodes a name or value as a form does: `+` is a space.
fn decode(text: &str) -> Result<String, String> {
    percent_decode_str(&text.replace('+', " "))
        .decode_utf8()
        .map(Into::into)
        .map_err(|_| "a percent-encoded part is not UTF-8".to_owned())
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Some(true),
        "0" | "false" | "no" | "off" => Some(false),
        _ => None,
    }
}
