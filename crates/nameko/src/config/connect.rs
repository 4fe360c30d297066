//! Connection options from configuration keys.

use std::{path::PathBuf, time::Duration};

use serde_json::Value;

use super::{
    Config, DEFAULT_AMQP_URI,
    error::{ConfigError, describe},
};
use crate::amqp::{ConnectOptions, Login, Tls, Verify};

/// Client property `product` of the framework's connections.
pub const PRODUCT: &str = "nameko";

impl Config {
    /// Returns the options for connecting to the broker.
    ///
    /// Reads `AMQP_URI` (default: [`DEFAULT_AMQP_URI`]) with its parameters, see
    /// [`ConnectOptions::from_uri`], then `AMQP_SSL`, `HEARTBEAT` in seconds (default: 60; 0 or
    /// null disables it) and `LOGIN_METHOD`, which override the parameters.
    ///
    /// # Errors
    /// If one of these keys has an invalid value.
    pub fn connect_options(&self) -> Result<ConnectOptions, ConfigError> {
        let uri = self
            .str("AMQP_URI")?
            .filter(|uri| !uri.is_empty())
            .unwrap_or(DEFAULT_AMQP_URI);
        let mut options = ConnectOptions::from_uri(uri)
            .map_err(|error| self.invalid("AMQP_URI", format!("is wrong: {error}")))?;
        let uri_has_tls = options.tls.is_some() || options.uris.iter().any(|uri| uri.tls);
        match self.get("AMQP_SSL") {
            None | Some(Value::Null) => {}
            // The scheme amqps still means TLS.
            Some(Value::Bool(false)) if options.uris.iter().any(|uri| uri.tls) => {}
            Some(Value::Bool(false)) => options.tls = None,
            Some(given) => self.set_tls(given, options.tls.get_or_insert_default())?,
        }
        if !cfg!(feature = "tls") {
            let needs = "TLS, which needs the feature `tls` of the crate nameko";
            if uri_has_tls {
                return Err(self.invalid("AMQP_URI", format!("asks for {needs}")));
            }
            if options.tls.is_some() {
                return Err(self.invalid("AMQP_SSL", format!("asks for {needs}")));
            }
        }
        self.set_heartbeat(&mut options)?;
        self.set_login(&mut options)?;
        options.product = PRODUCT.into();
        Ok(options)
    }

    /// Returns `publish_timeout` in seconds: `Some(None)` for 0, no limit.
    pub(crate) fn publish_timeout(&self) -> Result<Option<Option<Duration>>, ConfigError> {
        match self.float("publish_timeout")? {
            None => Ok(None),
            Some(0.0) => Ok(Some(None)),
            Some(seconds) => match Duration::try_from_secs_f64(seconds) {
                Ok(timeout) => Ok(Some(Some(timeout))),
                Err(_) => Err(self.invalid(
                    "publish_timeout",
                    "must be a number of seconds, 0 for no limit",
                )),
            },
        }
    }

    fn set_heartbeat(&self, options: &mut ConnectOptions) -> Result<(), ConfigError> {
        options.heartbeat = match (self.get("HEARTBEAT"), self.int("HEARTBEAT")?) {
            (None, _) => return Ok(()),
            (Some(_), None) => 0,
            (Some(_), Some(seconds)) => u16::try_from(seconds).map_err(|_| {
                self.invalid(
                    "HEARTBEAT",
                    format!("must be from 0 to 65535 seconds, not {seconds}"),
                )
            })?,
        };
        Ok(())
    }

    fn set_login(&self, options: &mut ConnectOptions) -> Result<(), ConfigError> {
        if let Some(name) = self.str("LOGIN_METHOD")? {
            options.login = Login::from_name(name).ok_or_else(|| {
                self.invalid(
                    "LOGIN_METHOD",
                    format!("must be PLAIN, AMQPLAIN or EXTERNAL, not `{name}`"),
                )
            })?;
        }
        Ok(())
    }

    /// Sets the options of Python's `ssl.wrap_socket`, which upstream's `AMQP_SSL` holds.
    fn set_tls(&self, given: &Value, tls: &mut Tls) -> Result<(), ConfigError> {
        let given = match given {
            Value::Bool(true) => return Ok(()),
            Value::Object(given) => given,
            other => {
                let found = describe(other);
                return Err(self.invalid(
                    "AMQP_SSL",
                    format!("must be true, false or a mapping of options, not {found}"),
                ));
            }
        };
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
        for (name, value) in given {
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
                    let verify = match value {
                        Value::String(name) => Verify::from_name(name),
                        value => value.as_i64().and_then(Verify::from_value),
                    };
                    tls.verify = verify.ok_or_else(|| {
                        wrong(
                            name,
                            "0 (CERT_NONE), 1 (CERT_OPTIONAL) or 2 (CERT_REQUIRED)",
                            value,
                        )
                    })?;
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
        Ok(())
    }
}
