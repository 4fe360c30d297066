//! Configuration from a YAML file with environment variables, in upstream's format, or from code.
//!
//! A file is a mapping of keys. Plain values may refer to environment variables:
//!
//! ```yaml
//! AMQP_URI: pyamqp://${RABBIT_USER:guest}:${RABBIT_PASSWORD:guest}@${RABBIT_HOST:localhost}
//! max_workers: ${MAX_WORKERS:10}       # filled in, then read as YAML again: a number
//! greeting: "${NOT_REPLACED}"          # quoted: stays as it is
//! token: !raw_env_var "${TOKEN}"       # always text, whatever the variable holds
//! ```
//!
//! `!env_var "..."` substitutes inside quotes too. An unset variable without a default is an error;
//! `${NAME:}` has an empty default.

pub(crate) mod connect;
#[cfg(feature = "yaml")]
mod emit;
#[cfg(feature = "yaml")]
mod environment;
mod error;
#[cfg(feature = "yaml")]
mod scalar;
#[cfg(all(test, feature = "yaml"))]
mod tests;
#[cfg(feature = "yaml")]
mod yaml;

use std::collections::HashMap;
use std::fmt;
#[cfg(feature = "yaml")]
use std::io;
#[cfg(feature = "yaml")]
use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use self::error::describe;
pub use self::error::{ConfigError, MaybePlace, Place};

/// Broker URI used if none is configured.
pub const DEFAULT_AMQP_URI: &str = "pyamqp://guest:guest@localhost";

/// A configuration: keys and JSON values, cheap to clone.
///
/// ```
/// use nameko::config::Config;
///
/// let config = Config::from_yaml("max_workers: ${MAX_WORKERS_OF_THE_EXAMPLE:4}", "config.yaml")?;
/// assert_eq!(config.int("max_workers")?, Some(4));
/// # Ok::<(), nameko::config::ConfigError>(())
/// ```
#[derive(Clone, Default)]
pub struct Config(Arc<Inner>);

#[derive(Clone, Default)]
struct Inner {
    values: Map<String, Value>,
    /// Source positions of values from a text, by key.
    places: HashMap<String, Place>,
}

impl Config {
    /// Creates an empty configuration.
    pub fn new() -> Self {
        Self::default()
    }

    /// Parses YAML text and substitutes the process's environment variables.
    ///
    /// `origin` names the text in errors.
    ///
    /// # Errors
    /// If the text is not YAML or not a mapping, or refers to an unset variable. The error holds
    /// the position.
    #[cfg(feature = "yaml")]
    pub fn from_yaml(text: &str, origin: &str) -> Result<Self, ConfigError> {
        let document = yaml::load(text, origin, &yaml::process_environment)?;
        Ok(Self(Arc::new(Inner {
            values: document.entries,
            places: document.places,
        })))
    }

    /// Parses a YAML file, see [`from_yaml`](Self::from_yaml).
    ///
    /// # Errors
    /// If the file cannot be read, or as for [`from_yaml`](Self::from_yaml).
    #[cfg(feature = "yaml")]
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text = std::fs::read(path)
            .and_then(|bytes| {
                String::from_utf8(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
            })
            .map_err(|source| ConfigError::Read {
                path: path.into(),
                source,
            })?;
        Self::from_yaml(
            text.trim_start_matches('\u{feff}'),
            &path.display().to_string(),
        )
    }

    /// Parses `KEY=VALUE` with a YAML value: `max_workers=4`, `AMQP_URI=amqp://localhost`,
    /// `feature={on: true}`.
    ///
    /// # Errors
    /// If the `=` is missing, the key is empty, or the value is not YAML.
    #[cfg(feature = "yaml")]
    pub fn from_definition(definition: &str) -> Result<Self, ConfigError> {
        let origin = format!("-d {}", definition.split('=').next().unwrap_or_default());
        let Some((key, value)) = definition
            .split_once('=')
            .filter(|(key, _)| !key.is_empty())
        else {
            return Err(ConfigError::Definition {
                definition: definition.into(),
            });
        };
        let value = yaml::load_value(value, &origin, &yaml::process_environment)?;
        Ok(Self::new().with(key, value))
    }

    /// Returns the value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.values.get(key)
    }

    /// Sets a key.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        let key = key.into();
        let inner = Arc::make_mut(&mut self.0);
        inner.places.remove(&key);
        inner.values.insert(key, value.into());
    }

    /// Sets a key; for chained calls.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.set(key, value);
        self
    }

    /// Merges `other` into this configuration. Values of `other` win.
    pub fn merge(&mut self, other: &Self) {
        let inner = Arc::make_mut(&mut self.0);
        for (key, value) in &other.0.values {
            inner.values.insert(key.clone(), value.clone());
            match other.0.places.get(key) {
                Some(place) => inner.places.insert(key.clone(), place.clone()),
                None => inner.places.remove(key),
            };
        }
    }

    /// Returns all keys and values.
    pub fn values(&self) -> &Map<String, Value> {
        &self.0.values
    }

    /// Returns the string value of a key, or `None` if the key is absent or null.
    ///
    /// # Errors
    /// If the value has another type.
    pub fn str(&self, key: &str) -> Result<Option<&str>, ConfigError> {
        self.typed(key, "text", Value::as_str)
    }

    /// Returns the integer value of a key, or `None` if the key is absent or null.
    ///
    /// # Errors
    /// If the value has another type or does not fit in an `i64`.
    pub fn int(&self, key: &str) -> Result<Option<i64>, ConfigError> {
        self.typed(key, "a whole number", Value::as_i64)
    }

    /// Returns the number value of a key, or `None` if the key is absent or null.
    ///
    /// # Errors
    /// If the value has another type.
    pub fn float(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        self.typed(key, "a number", Value::as_f64)
    }

    /// Returns the boolean value of a key, or `None` if the key is absent or null.
    ///
    /// # Errors
    /// If the value has another type.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        self.typed(key, "true or false", Value::as_bool)
    }

    /// Deserializes the value of a key, such as a section of the file into a struct that derives
    /// `serde::Deserialize`.
    ///
    /// An absent key deserializes as null, so an `Option` is `None`.
    ///
    /// ```
    /// # use nameko::Config;
    /// #[derive(serde::Deserialize)]
    /// struct Payments { url: String, #[serde(default)] retries: u32 }
    ///
    /// let text = "payments: {url: 'https://pay.example', retries: 3}";
    /// let config = Config::from_yaml(text, "config.yaml")?;
    /// let payments: Payments = config.read("payments")?;
    /// assert_eq!((payments.url.as_str(), payments.retries), ("https://pay.example", 3));
    ///
    /// let error = config.read::<Vec<u8>>("payments").unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "config.yaml:1:11: payments is wrong: invalid type: map, expected a sequence"
    /// );
    /// # Ok::<(), nameko::config::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// If a required key is absent, or its value is not a `T`.
    pub fn read<T: DeserializeOwned>(&self, key: &str) -> Result<T, ConfigError> {
        let value = self.get(key).unwrap_or(&Value::Null);
        T::deserialize(value).map_err(|error| match self.get(key) {
            None => self.invalid(key, "is required but not set"),
            Some(_) => self.invalid(key, format!("is wrong: {error}")),
        })
    }

    /// Deserializes the whole configuration. Keys unknown to the type are ignored.
    ///
    /// # Errors
    /// If a required key is absent, or a value has the wrong type.
    pub fn read_all<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        T::deserialize(&self.0.values).map_err(|error| ConfigError::Whole {
            message: error.to_string(),
        })
    }

    /// Returns the configured broker URI (`AMQP_URI`) if it is a non-empty string.
    pub fn amqp_uri(&self) -> Option<&str> {
        self.get("AMQP_URI")
            .and_then(Value::as_str)
            .filter(|uri| !uri.is_empty())
    }

    /// Returns the configuration as YAML text that parses to the same values. Passwords are not
    /// redacted.
    #[cfg(feature = "yaml")]
    pub fn to_yaml(&self) -> String {
        emit::mapping(&self.0.values)
    }

    /// Creates an error about the value of a key, with the position of the value.
    pub fn invalid(&self, key: &str, message: impl Into<String>) -> ConfigError {
        ConfigError::Invalid {
            key: key.into(),
            at: self.0.places.get(key).cloned().into(),
            message: message.into(),
        }
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        match self.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match read(value) {
                Some(value) => Ok(Some(value)),
                None => {
                    Err(self.invalid(key, format!("must be {expected}, not {}", describe(value))))
                }
            },
        }
    }
}

/// Shows the keys only: values may hold passwords.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Config")
            .field(&self.0.values.keys().collect::<Vec<_>>())
            .finish()
    }
}

impl PartialEq for Config {
    fn eq(&self, other: &Self) -> bool {
        self.0.values == other.0.values
    }
}

impl<K: Into<String>, V: Into<Value>> FromIterator<(K, V)> for Config {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut config = Self::new();
        for (key, value) in pairs {
            config.set(key, value);
        }
        config
    }
}
