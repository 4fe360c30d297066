//! Dependencies on the context of a call and on the configuration.
//!
//! Context data is propagated through calls in headers: a value set with [`WorkerContext::set`] or
//! [`Cluster::connect_with`](crate::Cluster::connect_with) is available to all services called from
//! there, directly or indirectly.

use std::{borrow::Cow, fmt, marker::PhantomData, sync::OnceLock};

use serde::de::DeserializeOwned;

use crate::{
    amqp::Value,
    config::Config,
    container::Container,
    error::{Error, Result},
    extension::DependencyProvider,
    protocol,
    worker::WorkerContext,
};

/// Injects the worker's [`WorkerContext`].
///
/// ```
/// use nameko::prelude::*;
///
/// #[derive(Dependencies)]
/// struct Greeter {
///     #[dependency(CurrentWorker)]
///     worker: WorkerContext,
/// }
///
/// #[service("greeter")]
/// impl Greeter {
///     #[rpc]
///     async fn who_asks(&self) -> Result<Vec<String>> {
///         Ok(self.worker.call_id_stack())
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct CurrentWorker;

impl DependencyProvider for CurrentWorker {
    type Dependency = WorkerContext;

    async fn get_dependency(&self, ctx: &WorkerContext) -> Result<WorkerContext> {
        Ok(ctx.clone())
    }
}

/// Injects a value of the context data, or `None` if the call has no such value.
///
/// The type of the field determines the type of the value: `Option<String>`, `Option<u64>`, or an
/// `Option` of a struct that derives `serde::Deserialize`. Numbers and booleans also deserialize as
/// `String`.
///
/// ```
/// use nameko::prelude::*;
///
/// #[derive(Dependencies)]
/// struct Orders {
///     #[dependency(ContextData::new("tenant"))]
///     tenant: Option<String>,
/// }
///
/// #[service("orders")]
/// impl Orders {
///     #[rpc]
///     async fn tenant(&self) -> Result<String> {
///         self.tenant.clone().ok_or_else(|| "no tenant".into())
///     }
/// }
/// ```
///
/// A value of another type fails the call with [`Error::MalformedRequest`].
pub struct ContextData<T = String> {
    key: Cow<'static, str>,
    value: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> ContextData<T> {
    /// Creates a provider of the value with this key.
    pub fn new(key: impl Into<Cow<'static, str>>) -> Self {
        Self {
            key: key.into(),
            value: PhantomData,
        }
    }
}

impl<T: DeserializeOwned + Send + 'static> DependencyProvider for ContextData<T> {
    type Dependency = Option<T>;

    async fn get_dependency(&self, ctx: &WorkerContext) -> Result<Option<T>> {
        read(ctx, &self.key)
    }
}

impl<T> fmt::Debug for ContextData<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<ContextData [{}]>", self.key)
    }
}

macro_rules! well_known {
    ($($(#[$doc:meta])* $name:ident: $key:expr;)*) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $name;

        impl DependencyProvider for $name {
            type Dependency = Option<String>;

            async fn get_dependency(&self, ctx: &WorkerContext) -> Result<Option<String>> {
                read(ctx, $key)
            }
        }
    )* };
}

well_known! {
    /// Injects the language of the caller as an `Option<String>`: context data `language`.
    Language: protocol::LANGUAGE;
    /// Injects the user id of the caller as an `Option<String>`: context data `user_id`.
    UserId: protocol::USER_ID;
    /// Injects the user agent of the caller as an `Option<String>`: context data `user_agent`.
    UserAgent: protocol::USER_AGENT;
    /// Injects the token of the caller as an `Option<String>`: context data `auth_token`.
    AuthToken: protocol::AUTH_TOKEN;
}

/// Deserializes a value of the context data.
fn read<T: DeserializeOwned>(ctx: &WorkerContext, key: &str) -> Result<Option<T>> {
    let value = match ctx.get(key) {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => json(value),
    };
    let text = match &value {
        serde_json::Value::Bool(_) | serde_json::Value::Number(_) => Some(value.to_string()),
        _ => None,
    };
    T::deserialize(value)
        .or_else(|error| match text {
            Some(text) => T::deserialize(serde_json::Value::String(text)).map_err(|_| error),
            None => Err(error),
        })
        .map(Some)
        .map_err(|error| Error::MalformedRequest(format!("context data `{key}`: {error}")))
}

/// Converts a header value for deserialization.
fn json(value: Value) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(it) => it.into(),
        Value::Int(it) => it.into(),
        Value::Timestamp(it) => it.into(),
        Value::Double(it) => it.into(),
        Value::Decimal { scale, value } => (f64::from(value) / 10f64.powi(scale.into())).into(),
        Value::String(it) => it.into(),
        Value::Bytes(it) => it.to_vec().into(),
        Value::List(items) => items.into_iter().map(json).collect(),
        Value::Table(table) => table.into_iter().map(|(k, v)| (k, json(v))).collect(),
    }
}

/// Injects the container's [`Config`].
///
/// ```
/// use nameko::prelude::*;
///
/// #[derive(Dependencies)]
/// struct Mailer {
///     #[dependency(CurrentConfig)]
///     config: Config,
/// }
///
/// #[service("mailer")]
/// impl Mailer {
///     #[rpc]
///     async fn sender(&self) -> Result<Option<String>> {
///         Ok(self.config.str("MAIL_SENDER")?.map(str::to_owned))
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct CurrentConfig;

impl DependencyProvider for CurrentConfig {
    type Dependency = Config;

    async fn get_dependency(&self, ctx: &WorkerContext) -> Result<Config> {
        Ok(ctx.config().clone())
    }
}

/// Injects a part of the configuration as the type of the field.
///
/// Deserialized once, at the start of the container: a service with an invalid configuration does
/// not start, and the error contains the key and its position. Workers receive a clone.
///
/// ```
/// use nameko::prelude::*;
///
/// #[derive(Clone, serde::Deserialize)]
/// struct Smtp { host: String, port: u16 }
///
/// #[derive(Dependencies)]
/// struct Mailer {
///     #[dependency(ConfigValue::of("smtp"))]
///     smtp: Smtp,
///     #[dependency(ConfigValue::of("MAIL_FOOTER"))]
///     footer: Option<String>,
/// }
///
/// #[service("mailer")]
/// impl Mailer {
///     #[rpc]
///     async fn server(&self) -> Result<String> {
///         Ok(format!("{}:{}", self.smtp.host, self.smtp.port))
///     }
/// }
/// ```
pub struct ConfigValue<T> {
    /// `None` for the whole configuration.
    key: Option<Cow<'static, str>>,
    /// Set in `setup`.
    value: OnceLock<T>,
}

impl<T: DeserializeOwned> ConfigValue<T> {
    /// Creates a provider of the value of a key, deserialized with [`Config::read`]: an absent key
    /// is an error, or `None` for an `Option`.
    pub fn of(key: impl Into<Cow<'static, str>>) -> Self {
        Self {
            key: Some(key.into()),
            value: OnceLock::new(),
        }
    }

    /// Creates a provider of the whole configuration, deserialized with [`Config::read_all`].
    pub fn all() -> Self {
        Self {
            key: None,
            value: OnceLock::new(),
        }
    }

    fn read(&self, config: &Config) -> Result<T> {
        Ok(match &self.key {
            Some(key) => config.read(key)?,
            None => config.read_all()?,
        })
    }
}

impl<T: DeserializeOwned + Clone + Send + Sync + 'static> DependencyProvider for ConfigValue<T> {
    type Dependency = T;

    async fn setup(&self, container: &Container) -> Result<()> {
        let _ = self.value.set(self.read(container.config())?);
        Ok(())
    }

    async fn get_dependency(&self, ctx: &WorkerContext) -> Result<T> {
        match self.value.get() {
            Some(value) => Ok(value.clone()),
            None => self.read(ctx.config()),
        }
    }
}

impl<T> fmt::Debug for ConfigValue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "<ConfigValue [{}]>",
            self.key.as_deref().unwrap_or("all")
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::amqp::Table;

    fn context(value: impl Into<Value>) -> WorkerContext {
        let data = Table::from([("key", value.into())]);
        WorkerContext::new("shop".into(), "buy", Config::default(), 10, data)
    }

    #[test]
    fn context_data_is_deserialized_as_the_type_of_the_field() {
        assert_eq!(read(&context("en"), "key").unwrap(), Some("en".to_owned()));
        assert_eq!(read(&context(7), "key").unwrap(), Some("7".to_owned()));
        assert_eq!(
            read(&context(true), "key").unwrap(),
            Some("true".to_owned())
        );
        assert_eq!(read(&context(7), "key").unwrap(), Some(7));
        assert_eq!(read(&context(vec![1, 2]), "key").unwrap(), Some([1, 2]));
        let table = Table::from([("a", "b")]);
        let map = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        assert_eq!(read(&context(table), "key").unwrap(), Some(map));
        assert_eq!(read::<String>(&context(Value::Null), "key").unwrap(), None);
        assert_eq!(read::<String>(&context("en"), "other").unwrap(), None);
    }

    #[test]
    fn context_data_of_another_type_is_a_malformed_request() {
        let error = read::<u8>(&context("many"), "key").unwrap_err();
        assert!(matches!(error, Error::MalformedRequest(_)));
        assert_eq!(
            error.to_string(),
            "context data `key`: invalid type: string \"many\", expected u8"
        );
        assert!(read::<String>(&context(vec![1]), "key").is_err());
    }
}
