//! Connection options from configuration keys.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::{
    Config, DEFAULT_AMQP_URI,
    error::{ConfigError, describe},
};
use crate::amqp::{ConnectOptions, Login, Tls, Uri, Verify};

/// Client property `product` of the framework's connections.
pub const PRODUCT: &str = "nameko";

impl Config {
    /// Returns the options for connecting to the broker.
    ///
    /// Reads `AMQP_URI` (default: [`DEFAULT_AMQP_URI`]), `AMQP_SSL`, `HEARTBEAT` in seconds
    /// (default: 60; 0 or null disables it) and `LOGIN_METHOD`.
    ///
    /// # Errors
    /// If one of these keys has an invalid value.
    pub fn connect_options(&self) -> Result<ConnectOptions, ConfigError> {
        let uri = self
            .str("AMQP_URI")?
            .filter(|uri| !uri.is_empty())
            .unwrap_or(DEFAULT_AMQP_URI);
        let uris = Uri::parse_list(uri)
            .map_err(|error| self.invalid("AMQP_URI", format!("is wrong: {error}")))?;
        let tls = self.tls()?;
        if !cfg!(feature = "tls") {
            let needs = "TLS, which needs the feature `tls` of the crate nameko";
            if uris.iter().any(|uri| uri.tls) {
                return Err(self.invalid("AMQP_URI", format!("asks for {needs}")));
            }
            if tls.is_some() {
                return Err(self.invalid("AMQP_SSL", format!("asks for {needs}")));
            }
        }
        Ok(ConnectOptions {
            heartbeat: self.heartbeat()?,
            login: self.login()?,
            tls,
            product: PRODUCT.into(),
            ..ConnectOptions::new(uris)
        })
    }

    fn heartbeat(&self) -> Result<u16, ConfigError> {
        match (self.get("HEARTBEAT"), self.int("HEARTBEAT")?) {
            (None, _) => Ok(60),
            (Some(_), None) => Ok(0),
            (Some(_), Some(seconds)) => u16::try_from(seconds).map_err(|_| {
                self.invalid(
                    "HEARTBEAT",
                    format!("must be from 0 to 65535 seconds, not {seconds}"),
                )
            }),
        }
    }

    fn login(&self) -> Result<Login, ConfigError> {
        match self.str("LOGIN_METHOD")? {
            None | Some("PLAIN") => Ok(Login::Plain),
            Some("AMQPLAIN") => Ok(Login::AmqPlain),
            Some("EXTERNAL") => Ok(Login::External),
            Some(other) => Err(self.invalid(
                "LOGIN_METHOD",
                format!("must be PLAIN, AMQPLAIN or EXTERNAL, not `{other}`"),
            )),
        }
    }

    fn tls(&self) -> Result<Option<Tls>, ConfigError> {
        match self.get("AMQP_SSL") {
            None | Some(Value::Null | Value::Bool(false)) => Ok(None),
            Some(Value::Bool(true)) => Ok(Some(Tls::default())),
            Some(Value::Object(options)) => self.tls_options(options).map(Some),
            Some(other) => {
                let found = describe(other);
                Err(self.invalid(
                    "AMQP_SSL",
                    format!("must be true, false or a mapping of options, not {found}"),
                ))
            }
        }
    }

    /// Converts the options of Python's `ssl.wrap_socket`, which upstream's `AMQP_SSL` holds.
    fn tls_options(&self, options: &Map<String, Value>) -> Result<Tls, ConfigError> {
        let wrong = |name: &str, expected: &str, found: &Value| {
            self.invalid(
                "AMQP_SSL",
                format!(
                    "has {name} that must be {expected}, not {}",
                    describe(found)
                ),
            )
        };
        let path = |name: &str, value: &Value| match value {
            Value::Null => Ok(None),
            Value::String(path) => Ok(Some(PathBuf::from(path))),
            other => Err(wrong(name, "the path of a PEM file", other)),
        };
        let mut tls = Tls::default();
        for (name, value) in options {
            match name.as_str() {
                "ca_certs" => tls.ca_certs = path(name, value)?,
                "certfile" => tls.certfile = path(name, value)?,
                "keyfile" => tls.keyfile = path(name, value)?,
                "check_hostname" => {
                    tls.check_hostname = value
                        .as_bool()
                        .ok_or_else(|| wrong(name, "true or false", value))?;
                }
                // Python's constants, by number (as in upstream's files) or by name.
                "cert_reqs" => {
                    tls.verify = match (value.as_i64(), value.as_str()) {
                        (Some(0), _) | (_, Some("CERT_NONE")) => Verify::None,
                        (Some(1), _) | (_, Some("CERT_OPTIONAL")) => Verify::Optional,
                        (Some(2), _) | (_, Some("CERT_REQUIRED")) => Verify::Required,
                        _ => {
                            return Err(wrong(
                                name,
                                "0 (CERT_NONE), 1 (CERT_OPTIONAL) or 2 (CERT_REQUIRED)",
                                value,
                            ));
                        }
                    }
                }
                other => {
                    let known = "ca_certs, certfile, keyfile, cert_reqs and check_hostname";
                    return Err(self.invalid(
                        "AMQP_SSL",
                        format!("has the unknown option `{other}`; known are {known}"),
                    ));
                }
            }
        }
        Ok(tls)
    }
}
