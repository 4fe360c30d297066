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
//! `!env_var "..."` substitutes inside quotes too. An unset variable without a default is empty,
//! with a warning; `${NAME:}` has an empty default.
//!
//! A file has the same meaning in Rust and Python. Where JSON has no such value, it becomes: the
//! text of a number that is not finite or needs more than 64 bits (`.inf`, see [`Config::float`]),
//! the text of a date, a list of bytes for `!!binary`, a list of the items of `!!set`, and a list
//! of lists for `!!omap` and `!!pairs`. Keys are text.

pub(crate) mod connect;
#[cfg(feature = "yaml")]
mod definition;
#[cfg(feature = "yaml")]
mod emit;
#[cfg(feature = "yaml")]
mod environment;
mod error;
// Exported by `internal`.
pub(crate) mod known_keys;
#[cfg(feature = "yaml")]
mod scalar;
#[cfg(feature = "yaml")]
mod tags;
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
use std::sync::atomic::{AtomicBool, Ordering};

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
    details: HashMap<String, Detail>,
    /// Probable mistakes in the texts.
    warnings: Vec<String>,
    is_reported: Flag,
}

/// Further information on the value of a key.
#[derive(Clone, Default)]
struct Detail {
    /// Position of the value, if it came from a text.
    place: Option<Place>,
    /// Set once the key has been read, and so belongs to the framework, an extension or a service.
    is_read: Flag,
}

/// A flag that can be set through a shared reference.
#[derive(Default)]
struct Flag(AtomicBool);

impl Flag {
    /// Sets the flag and returns its previous value.
    fn set(&self) -> bool {
        // Loads first, since configurations are shared and read often.
        self.0.load(Ordering::Relaxed) || self.0.swap(true, Ordering::Relaxed)
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Clone for Flag {
    fn clone(&self) -> Self {
        Self(AtomicBool::new(self.get()))
    }
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
    /// If the text is not YAML or not a mapping. The error holds the position.
    #[cfg(feature = "yaml")]
    pub fn from_yaml(text: &str, origin: &str) -> Result<Self, ConfigError> {
        let document = yaml::load(text, origin, &yaml::process_environment)?;
        let mut config = Self::from_iter(document.entries);
        let inner = Arc::make_mut(&mut config.0);
        for (key, place) in document.places {
            inner.details.entry(key).or_default().place = Some(place);
        }
        inner.warnings = document.warnings;
        Ok(config)
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
    /// `feature={on: true}`. A dot in the key separates names of nested mappings, `\.` is a dot in
    /// a name.
    ///
    /// ```
    /// use nameko::Config;
    ///
    /// let config = Config::from_definition("smtp.host=mail.example.com")?;
    /// assert_eq!(config.get("smtp").unwrap()["host"], "mail.example.com");
    /// # Ok::<(), nameko::config::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// If the `=` is missing, the key or a name in it is empty, or the value is not YAML.
    #[cfg(feature = "yaml")]
    pub fn from_definition(definition: &str) -> Result<Self, ConfigError> {
        let mut config = Self::new();
        config.define(definition)?;
        Ok(config)
    }

    /// Sets the value of a [definition](Self::from_definition). Replaces the value of its key, and
    /// keeps the other values of the mappings that contain it.
    ///
    /// # Errors
    /// As for [`from_definition`](Self::from_definition).
    #[cfg(feature = "yaml")]
    pub fn define(&mut self, definition: &str) -> Result<(), ConfigError> {
        let definition = definition::Definition::parse(definition)?;
        let inner = Arc::make_mut(&mut self.0);
        if let Some(key) = definition.path.first() {
            inner.details.insert(key.clone(), Detail::default());
        }
        inner.warnings.extend(definition.warnings.iter().cloned());
        definition.set_in(&mut inner.values);
        Ok(())
    }

    /// Returns `true` if one is an unchanged clone of the other.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Returns the value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let value = self.0.values.get(key)?;
        if let Some(detail) = self.0.details.get(key) {
            detail.is_read.set();
        }
        Some(value)
    }

    /// Sets a key.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        let key = key.into();
        let inner = Arc::make_mut(&mut self.0);
        inner.details.insert(key.clone(), Detail::default());
        inner.values.insert(key, value.into());
    }

    /// Sets a key; for chained calls.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.set(key, value);
        self
    }

    /// Merges `other` into this configuration. Values of `other` win; mappings are merged, lists
    /// are replaced.
    ///
    /// ```
    /// use nameko::Config;
    ///
    /// let mut config = Config::from_yaml("smtp: {host: localhost, port: 25}", "base.yaml")?;
    /// config.merge(&Config::from_yaml("smtp: {host: mail.example.com}", "production.yaml")?);
    /// let smtp = config.get("smtp").unwrap();
    /// assert_eq!((&smtp["host"], &smtp["port"]), (&"mail.example.com".into(), &25.into()));
    /// # Ok::<(), nameko::config::ConfigError>(())
    /// ```
    pub fn merge(&mut self, other: &Self) {
        let inner = Arc::make_mut(&mut self.0);
        for (key, detail) in &other.0.details {
            let mut detail = detail.clone();
            let is_mapping =
                |values: &Map<String, Value>| values.get(key).is_some_and(Value::is_object);
            if is_mapping(&inner.values) && is_mapping(&other.0.values) {
                // It has several positions.
                detail.place = None;
            }
            inner.details.insert(key.clone(), detail);
        }
        inner.warnings.extend(other.0.warnings.iter().cloned());
        merge(&mut inner.values, &other.0.values);
    }

    /// Returns the probable mistakes in this configuration, with their positions: keys that
    /// resemble one of the framework and have not been read, duplicate keys, and environment
    /// variables that are not set.
    ///
    /// Services log them when they start.
    ///
    /// ```
    /// let config = nameko::Config::from_yaml("max_worker: 7", "config.yaml")?;
    /// let unknown = &config.warnings()[0];
    /// assert!(unknown.starts_with("config.yaml:1:13: the unknown key `max_worker` "));
    /// assert!(unknown.ends_with("did you mean `max_workers`?"));
    /// # Ok::<(), nameko::config::ConfigError>(())
    /// ```
    pub fn warnings(&self) -> Vec<String> {
        let unknown = self.0.values.keys().filter_map(|key| {
            let detail = self.0.details.get(key)?;
            let meant = known_keys::misspelled(key).filter(|_| !detail.is_read.get())?;
            let at = MaybePlace(detail.place.clone());
            Some(format!(
                "{at}the unknown key `{key}` has no effect; did you mean `{meant}`?"
            ))
        });
        self.0.warnings.iter().cloned().chain(unknown).collect()
    }

    /// Logs the [warnings](Self::warnings), once per configuration.
    pub(crate) fn log_warnings(&self) {
        if !self.0.is_reported.set() {
            for warning in self.warnings() {
                tracing::warn!(target: "nameko::config", "{warning}");
            }
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

    /// Returns the number value of a key, or `None` if the key is absent or null. Reads the texts
    /// `.inf`, `-.inf` and `.nan` as numbers, since JSON values cannot hold these.
    ///
    /// # Errors
    /// If the value has another type.
    pub fn float(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        self.typed(key, "a number", |value| {
            value.as_f64().or_else(|| not_finite(value.as_str()?))
        })
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
        for detail in self.0.details.values() {
            detail.is_read.set();
        }
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
            at: MaybePlace(
                self.0
                    .details
                    .get(key)
                    .and_then(|detail| detail.place.clone()),
            ),
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

fn merge(values: &mut Map<String, Value>, others: &Map<String, Value>) {
    for (key, other) in others {
        match (values.get_mut(key), other) {
            (Some(Value::Object(inner)), Value::Object(other)) => merge(inner, other),
            _ => {
                values.insert(key.clone(), other.clone());
            }
        }
    }
}

/// Parses YAML's texts of numbers that are not finite.
fn not_finite(text: &str) -> Option<f64> {
    match text {
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Some(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => Some(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => Some(f64::NAN),
        _ => None,
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
