//! Configuration: a YAML file with environment variables in it, as upstream's files are, or values set in code.
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
//! `!env_var "..."` replaces within quotes too. A variable that is not set and has no default is an error;
//! `${NAME:}` asks for nothing instead.

mod connect;
mod emit;
mod environment;
mod scalar;
#[cfg(test)]
mod tests;
mod yaml;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Where clients connect when nothing is configured.
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
    /// Where the value of a key was written, for keys that came from a text.
    places: HashMap<String, Place>,
}

impl Config {
    /// A configuration that sets nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads YAML text, with the process's environment variables. `origin` is what errors call the text.
    ///
    /// # Errors
    /// The text is not YAML or not a mapping, or refers to a variable that is not set; each with its place.
    pub fn from_yaml(text: &str, origin: &str) -> Result<Self, ConfigError> {
        let document = yaml::load(text, origin, &yaml::process_environment)?;
        Ok(Self(Arc::new(Inner {
            values: document.entries,
            places: document.places,
        })))
    }

    /// Reads a YAML file, as [`from_yaml`](Self::from_yaml).
    ///
    /// # Errors
    /// As there; or the file can't be read.
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

    /// Reads `KEY=VALUE`, where the value is YAML: `max_workers=4`, `AMQP_URI=amqp://localhost`, `feature={on: true}`.
    ///
    /// # Errors
    /// There is no `=`, the key is empty, or the value is not YAML.
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

    /// The value of a key.
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

    /// Sets a key, in a chain of calls.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.set(key, value);
        self
    }

    /// Takes over every key of `other`; where both have one, `other`'s value stays.
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

    /// All keys and values.
    pub fn values(&self) -> &Map<String, Value> {
        &self.0.values
    }

    /// Text under a key; `None` when the key is absent or null.
    ///
    /// # Errors
    /// The value is something else.
    pub fn str(&self, key: &str) -> Result<Option<&str>, ConfigError> {
        self.typed(key, "text", Value::as_str)
    }

    /// A whole number under a key; `None` when the key is absent or null.
    ///
    /// # Errors
    /// The value is something else, or does not fit in 64 signed bits.
    pub fn int(&self, key: &str) -> Result<Option<i64>, ConfigError> {
        self.typed(key, "a whole number", Value::as_i64)
    }

    /// A number under a key; `None` when the key is absent or null.
    ///
    /// # Errors
    /// The value is something else.
    pub fn float(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        self.typed(key, "a number", Value::as_f64)
    }

    /// A yes or no under a key; `None` when the key is absent or null.
    ///
    /// # Errors
    /// The value is something else.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        self.typed(key, "true or false", Value::as_bool)
    }

    /// The value of a key as a type of yours: a struct that derives `serde::Deserialize`, for a section of the file. A key that
    /// is absent reads as null, so an `Option` is `None` then.
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
    /// assert_eq!(error.to_string(), "config.yaml:1:11: payments is wrong: invalid type: map, expected a sequence");
    /// # Ok::<(), nameko::config::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// The key is absent and the type needs it, or its value is not what the type expects.
    pub fn read<T: DeserializeOwned>(&self, key: &str) -> Result<T, ConfigError> {
        let value = self.get(key).unwrap_or(&Value::Null);
        T::deserialize(value).map_err(|error| match self.get(key) {
            None => self.invalid(key, "is not set, and has to be"),
            Some(_) => self.invalid(key, format!("is wrong: {error}")),
        })
    }

    /// All of it as a type of yours. Keys that the type does not know are left out.
    ///
    /// # Errors
    /// A key that the type needs is absent, or the value of one is not what the type expects.
    pub fn read_all<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        T::deserialize(&self.0.values).map_err(|error| ConfigError::Whole {
            message: error.to_string(),
        })
    }

    /// The broker's address as it is configured (`AMQP_URI`), when it is text and not empty.
    pub fn amqp_uri(&self) -> Option<&str> {
        self.get("AMQP_URI")
            .and_then(Value::as_str)
            .filter(|uri| !uri.is_empty())
    }

    /// The configuration as a YAML text that reads back as the same values. Passwords are not hidden.
    pub fn to_yaml(&self) -> String {
        emit::mapping(&self.0.values)
    }

    /// An error about a key's value that says where the value was written.
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

/// Values may hold passwords: only the keys are shown.
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

/// A place in a configuration text. Shown as `config.yaml:3:12`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Place {
    /// What the text is called: the file's path.
    pub origin: Arc<str>,
    /// The line, counted from one.
    pub line: usize,
    /// The column in characters, counted from one.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.origin, self.line, self.column)
    }
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file does not exist, is not readable, or is not UTF-8.
    #[error("can't read the configuration file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The text is not YAML, or YAML that a configuration can't hold.
    #[error("{at}: {message}")]
    Yaml {
        /// Where.
        at: Place,
        /// What is wrong there.
        message: String,
    },
    /// The text refers to an environment variable that is not set, without a default.
    #[error(
        "{at}: the environment variable {name} is not set; set it, or write a default: ${{{name}:default}}"
    )]
    MissingVariable {
        /// Where.
        at: Place,
        /// The variable.
        name: String,
    },
    /// A key holds a value that it can't have.
    #[error("{at}{key} {message}")]
    Invalid {
        /// The key.
        key: String,
        /// Where its value was written, if in a text.
        at: MaybePlace,
        /// What is wrong: continues a sentence that begins with the key.
        message: String,
    },
    /// The configuration as a whole is not what a type expects.
    #[error("the configuration is wrong: {message}")]
    Whole {
        /// What is wrong.
        message: String,
    },
    /// A `-d` argument that is not `KEY=VALUE`.
    #[error("`{definition}` does not define anything; write KEY=VALUE")]
    Definition {
        /// The argument.
        definition: String,
    },
}

/// A [`Place`], or none for a value that was set in code. Shown with a colon and a space after it, or as nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MaybePlace(pub Option<Place>);

impl From<Option<Place>> for MaybePlace {
    fn from(place: Option<Place>) -> Self {
        Self(place)
    }
}

impl fmt::Display for MaybePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(place) => write!(f, "{place}: "),
            None => Ok(()),
        }
    }
}

/// What a value is, in a sentence.
fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".into(),
        Value::Bool(value) => format!("{value}"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) if text.chars().count() <= 40 => format!("the text {text:?}"),
        Value::String(_) => "text".into(),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "a mapping".into(),
    }
}
