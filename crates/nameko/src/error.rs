//! What can go wrong in a call, and how it reads.

use std::{any::Any, error::Error as StdError, fmt, sync::Arc, time::Duration};

use serde_json::Value;

use crate::{
    amqp::{self, PublishError},
    config::ConfigError,
    exceptions::{self, Exception},
    protocol::Fault,
    remote_error::RemoteError,
    serialization,
};

/// The result of a call, or of an entrypoint method.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed, or why a method gives up.
///
/// A method may return any `E: std::error::Error`; this is the one to use where nothing more is to be said.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The remote method raised.
    #[error("{0}")]
    Remote(#[from] RemoteError),
    /// No service of that name is listening: its request queue does not exist.
    #[error("Unknown service `{0}`")]
    UnknownService(String),
    /// The service has no method of that name.
    #[error("{0}")]
    MethodNotFound(String),
    /// The arguments do not fit the method.
    #[error("{0}")]
    IncorrectSignature(String),
    /// The request was not what a service can read.
    #[error("{0}")]
    MalformedRequest(String),
    /// The request was sent, but no reply came in time. The method may still run, or have run.
    #[error("no reply to {service}.{method} within {timeout:?}")]
    Timeout {
        /// The service called.
        service: String,
        /// The method called.
        method: String,
        /// How long the caller waited.
        timeout: Duration,
    },
    /// The reply can no longer come: the reply queue was lost with the connection. The method may have run.
    #[error("the reply to {service}.{method} is lost: {reason}")]
    ReplyLost {
        /// The service called.
        service: String,
        /// The method called.
        method: String,
        /// What happened to the connection.
        reason: String,
    },
    /// The broker could not be reached, refused us, or closed the connection.
    #[error(transparent)]
    Amqp(#[from] amqp::Error),
    /// A message could not be published.
    #[error(transparent)]
    Publish(#[from] amqp::PublishError),
    /// A value could not be written to, or read from, a message.
    #[error(transparent)]
    Serialization(#[from] serialization::Error),
    /// The configuration does not hold what is needed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An entrypoint or a dependency is declared in a way that cannot work. Says which, and what to do.
    #[error("{0}")]
    Declaration(String),
    /// The container is stopping or was killed: it takes no more work.
    #[error("the container of {0} is stopping")]
    ContainerStopping(String),
    /// The container was killed.
    #[error("{service} was killed: {reason}")]
    Killed {
        /// The service it ran.
        service: String,
        /// Why.
        #[source]
        reason: Arc<Error>,
    },
    /// A dependency or an entrypoint was named that the service does not have.
    #[error("{0}")]
    ExtensionNotFound(String),
    /// An extension could not be set up or started, or does not fit where it was put.
    #[error("{service} cannot start: {extension}: {reason}")]
    Extension {
        /// The service it belongs to.
        service: String,
        /// Which one: "dependency `db`".
        extension: String,
        /// What it failed with.
        #[source]
        reason: Box<Error>,
    },
    /// A managed task of an extension failed.
    #[error("task `{name}` failed: {reason}")]
    Task {
        /// The task's name.
        name: String,
        /// What it failed with.
        #[source]
        reason: Box<Error>,
    },
    /// An error that is only a class name and a text, as callers see it.
    #[error("{0}")]
    Raised(Fault),
    /// An error of a type of your own or of another library. [`downcast_ref`](Self::downcast_ref) gives it back.
    #[error(transparent)]
    Custom(CustomError),
}

impl Error {
    /// An error that callers see as `exc_type`, with `value` as its only argument.
    ///
    /// ```
    /// let error = nameko::Error::raise("NotFound", "no order 17");
    /// assert_eq!(error.to_string(), "no order 17");
    /// ```
    pub fn raise(exc_type: impl Into<String>, value: impl Into<String>) -> Self {
        Self::Raised(Fault::new(exc_type, value))
    }

    /// The error for an unknown name, which lists the known ones.
    pub(crate) fn extension_not_found<'a>(
        service: &str,
        kind: &str,
        name: &str,
        known: impl Iterator<Item = &'a str>,
    ) -> Self {
        let mut known: Vec<_> = known.collect();
        known.sort_unstable();
        known.dedup();
        let known = match known.as_slice() {
            [] => "it has none".to_owned(),
            known => format!("there are: {}", known.join(", ")),
        };
        Self::ExtensionNotFound(format!("{service} has no {kind} `{name}`; {known}"))
    }

    /// Any error. Callers see the name of its type, or what it says of itself if it is
    /// [registered](crate::exceptions::register).
    pub fn from_error(error: impl StdError + Send + Sync + 'static) -> Self {
        let fault = Fault::of(&error);
        match (Box::new(error) as Box<dyn StdError + Send + Sync>).downcast::<Self>() {
            Ok(own) => *own,
            Err(other) => Self::custom(fault, other),
        }
    }

    /// An error that says itself what callers see of it, registered or not.
    pub fn from_exception(error: impl Exception) -> Self {
        Self::custom(error.to_fault(), Box::new(error))
    }

    pub(crate) fn custom(fault: Fault, error: Box<dyn StdError + Send + Sync>) -> Self {
        Self::Custom(CustomError(Box::new((fault, error))))
    }

    /// The error of type `E` that this is: one that a method returned, or that a remote method raised and that is
    /// [registered](crate::exceptions::register) here.
    pub fn downcast_ref<E: StdError + 'static>(&self) -> Option<&E> {
        match self {
            Self::Custom(CustomError(kept)) => kept.1.downcast_ref(),
            _ => None,
        }
    }

    /// As [`downcast_ref`](Self::downcast_ref), by value.
    ///
    /// ```
    /// #[derive(Debug, thiserror::Error)]
    /// #[error("no order {0}")]
    /// struct NotFound(u64);
    ///
    /// #[derive(Debug)]
    /// enum ShopError { NotFound(NotFound), Other(nameko::Error) }
    ///
    /// impl From<nameko::Error> for ShopError {
    ///     fn from(error: nameko::Error) -> Self {
    ///         error.downcast().map_or_else(Self::Other, Self::NotFound)
    ///     }
    /// }
    ///
    /// let error = nameko::Error::from_error(NotFound(17));
    /// assert!(matches!(ShopError::from(error), ShopError::NotFound(NotFound(17))));
    /// ```
    ///
    /// # Errors
    /// The error itself, if it is something else.
    pub fn downcast<E: StdError + 'static>(self) -> Result<E, Self> {
        match self {
            Self::Custom(CustomError(kept)) => {
                let (fault, error) = *kept;
                match error.downcast() {
                    Ok(error) => Ok(*error),
                    Err(error) => Err(Self::custom(fault, error)),
                }
            }
            other => Err(other),
        }
    }

    /// Whether [`downcast_ref`](Self::downcast_ref) finds an `E`.
    pub fn is<E: StdError + 'static>(&self) -> bool {
        self.downcast_ref::<E>().is_some()
    }

    /// No reply came in time, or the broker did not answer in time.
    pub fn is_timeout(&self) -> bool {
        match self {
            Self::Timeout { .. } => true,
            Self::Amqp(error)
            | Self::Publish(PublishError::Lost(error) | PublishError::Refused(error)) => {
                error.is_timeout()
            }
            _ => false,
        }
    }

    /// Nobody listens under the service's name.
    pub fn is_unknown_service(&self) -> bool {
        matches!(self, Self::UnknownService(_))
    }

    /// The method ran and raised.
    pub fn as_remote(&self) -> Option<&RemoteError> {
        match self {
            Self::Remote(error) => Some(error),
            _ => None,
        }
    }
}

/// An error of another type, with what callers see of it.
///
/// Shows as that error does, and has its sources.
pub struct CustomError(Box<(Fault, Box<dyn StdError + Send + Sync>)>);

impl fmt::Display for CustomError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.1.fmt(f)
    }
}

impl fmt::Debug for CustomError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0.1, f)
    }
}

impl StdError for CustomError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.1.source()
    }
}

/// An error that an entrypoint method can return: whatever implements `std::error::Error`.
#[diagnostic::on_unimplemented(
    message = "an entrypoint cannot fail with `{Self}`",
    label = "this is not an error type",
    note = "an entrypoint's error implements `std::error::Error + Send + Sync + 'static`; use `nameko::Error` where nothing more is to be said"
)]
pub trait Raise: Send + 'static {
    /// The error object that callers receive.
    fn fault(&self) -> Fault;
}

impl<E: StdError + Send + Sync + 'static> Raise for E {
    fn fault(&self) -> Fault {
        match (self as &dyn Any).downcast_ref::<Error>() {
            Some(error) => nameko_fault(error),
            None => exceptions::fault_of(self)
                .unwrap_or_else(|| Fault::from_type(std::any::type_name::<E>(), self.to_string())),
        }
    }
}

impl Fault {
    /// Returns the error object of any error that a method can return.
    pub fn of(error: &impl Raise) -> Self {
        error.fault()
    }

    /// Returns the error that a caller sees: Nameko's own and registered classes as themselves, all others as a
    /// [`RemoteError`].
    pub(crate) fn into_error(self) -> Error {
        let argument = || match self.exc_args.first() {
            Some(Value::String(text)) => text.clone(),
            _ => self.value.clone(),
        };
        match self.exc_path.as_str() {
            "nameko.exceptions.MalformedRequest" => Error::MalformedRequest(argument()),
            "nameko.exceptions.MethodNotFound" => Error::MethodNotFound(argument()),
            "nameko.exceptions.IncorrectSignature" => Error::IncorrectSignature(argument()),
            _ => {
                let remote = RemoteError::from(self);
                match exceptions::from_remote(&remote) {
                    Some(error) => Error::custom(remote.into(), error),
                    None => Error::Remote(remote),
                }
            }
        }
    }
}

/// The error object of one of our own errors, under the name Nameko gives it.
fn nameko_fault(error: &Error) -> Fault {
    let text = error.to_string();
    match error {
        Error::Raised(fault) => fault.clone(),
        Error::Custom(CustomError(kept)) => kept.0.clone(),
        Error::Remote(_) => Fault::nameko("RemoteError", text),
        Error::UnknownService(name) => Fault {
            exc_args: vec![name.clone().into()],
            ..Fault::nameko("UnknownService", text)
        },
        Error::MethodNotFound(_) => Fault::nameko("MethodNotFound", text),
        Error::IncorrectSignature(_) => Fault::nameko("IncorrectSignature", text),
        Error::MalformedRequest(_) => Fault::nameko("MalformedRequest", text),
        Error::Timeout { .. } => Fault::nameko("RpcTimeout", text),
        Error::ReplyLost { .. } => Fault::nameko("ReplyQueueExpiredWithPendingReplies", text),
        Error::Config(_) | Error::Declaration(_) => Fault::nameko("ConfigurationError", text),
        Error::ExtensionNotFound(_) => Fault::nameko("ExtensionNotFound", text),
        Error::Extension { reason, .. } | Error::Task { reason, .. } => Fault {
            value: text,
            ..nameko_fault(reason)
        },
        Error::ContainerStopping(_) | Error::Killed { .. } => {
            Fault::nameko("ContainerBeingKilled", text)
        }
        Error::Publish(error) if error.is_unroutable() => Fault {
            exc_path: "nameko.amqp.publish.UndeliverableMessage".to_owned(),
            ..Fault::nameko("UndeliverableMessage", text)
        },
        Error::Amqp(_) | Error::Publish(_) => Fault::from_type("nameko::amqp::Error", text),
        Error::Serialization(_) => Fault::from_type("nameko::serialization::Error", text),
    }
}

macro_rules! from_std {
    ($($error:ty),* $(,)?) => { $(
        impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self::from_error(error)
            }
        }
    )* };
}

// So that `?` works on what methods meet most. Other errors: `map_err(Error::from_error)`, or an error type of your own.
from_std!(
    std::io::Error,
    std::fmt::Error,
    std::num::ParseIntError,
    std::num::ParseFloatError,
    std::num::TryFromIntError,
    std::str::Utf8Error,
    std::string::FromUtf8Error,
    std::env::VarError,
    serde_json::Error,
    tokio::task::JoinError,
    tokio::time::error::Elapsed,
);

/// What callers see of an error that is only a text: the class `Error`.
impl From<&str> for Error {
    fn from(text: &str) -> Self {
        Self::raise("Error", text)
    }
}

/// As for `&str`.
impl From<String> for Error {
    fn from(text: String) -> Self {
        Self::raise("Error", text)
    }
}

impl From<Box<dyn StdError + Send + Sync>> for Error {
    fn from(error: Box<dyn StdError + Send + Sync>) -> Self {
        match error.downcast() {
            Ok(own) => *own,
            Err(error) => {
                let fault = exceptions::fault_of(&*error)
                    .unwrap_or_else(|| Fault::new("Error", error.to_string()));
                Self::custom(fault, error)
            }
        }
    }
}
