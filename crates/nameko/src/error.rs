//! Errors of calls and of entrypoint methods.

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

/// An error of a call or of an entrypoint method.
///
/// Methods may return any other `E: std::error::Error` as well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The remote method raised an error.
    #[error("{0}")]
    Remote(#[from] RemoteError),
    /// No service of that name is running: its request queue does not exist.
    #[error("Unknown service `{0}`")]
    UnknownService(String),
    /// The service has no method of that name.
    #[error("{0}")]
    MethodNotFound(String),
    /// The arguments do not match the parameters of the method.
    #[error("{0}")]
    IncorrectSignature(String),
    /// The service could not parse the request.
    #[error("{0}")]
    MalformedRequest(String),
    /// The request was sent, but no reply arrived in time. The method may be running, or have run.
    #[error("no reply to {service}.{method} within {timeout:?}")]
    Timeout {
        /// Name of the called service.
        service: String,
        /// Name of the called method.
        method: String,
        /// Timeout of the call.
        timeout: Duration,
    },
    /// The reply cannot arrive, since the reply queue was lost with the connection. The method may
    /// have run.
    #[error("the reply to {service}.{method} is lost: {reason}")]
    ReplyLost {
        /// Name of the called service.
        service: String,
        /// Name of the called method.
        method: String,
        /// The error of the connection.
        reason: String,
    },
    /// The broker is unreachable, rejected the connection, or closed it.
    #[error(transparent)]
    Amqp(#[from] amqp::Error),
    /// Publishing a message failed.
    #[error(transparent)]
    Publish(#[from] amqp::PublishError),
    /// A value could not be serialized or deserialized.
    #[error(transparent)]
    Serialization(#[from] serialization::Error),
    /// A value of the context data cannot be a header.
    #[error("the context value `{key}` cannot be sent: {reason}")]
    InvalidContext {
        /// Key of the value.
        key: String,
        /// The cause.
        reason: String,
    },
    /// The configuration is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The declaration of an entrypoint or a dependency is invalid. The message contains the
    /// solution.
    #[error("{0}")]
    Declaration(String),
    /// The container is stopping or was killed, and accepts no more work.
    #[error("the container of {0} is stopping")]
    ContainerStopping(String),
    /// The container was killed.
    #[error("{service} was killed: {reason}")]
    Killed {
        /// Name of its service.
        service: String,
        /// Reason of the kill.
        #[source]
        reason: Arc<Error>,
    },
    /// The service has no dependency or entrypoint of that name. The message lists the existing
    /// ones.
    #[error("{0}")]
    ExtensionNotFound(String),
    /// The setup or start of an extension failed, or it has the wrong type.
    #[error("{service} cannot start: {extension}: {reason}")]
    Extension {
        /// Name of its service.
        service: String,
        /// Description of the extension: "dependency `db`".
        extension: String,
        /// The cause.
        #[source]
        reason: Box<Error>,
    },
    /// A managed task of an extension failed.
    #[error("task `{name}` failed: {reason}")]
    Task {
        /// Name of the task.
        name: String,
        /// The cause.
        #[source]
        reason: Box<Error>,
    },
    /// An error of a provider's hook that also kills the container. Created by
    /// [`fatal`](Self::fatal).
    #[error(transparent)]
    Fatal(Box<Error>),
    /// An error with a class name and a message, for callers.
    #[error("{0}")]
    Raised(Box<Fault>),
    /// An error of a custom type. [`downcast_ref`](Self::downcast_ref) returns it.
    #[error(transparent)]
    Custom(CustomError),
}

impl Error {
    /// Creates an error that callers receive as class `exc_type` with the argument `value`.
    ///
    /// ```
    /// let error = nameko::Error::raise("NotFound", "no order 17");
    /// assert_eq!(error.to_string(), "no order 17");
    /// ```
    pub fn raise(exc_type: impl Into<String>, value: impl Into<String>) -> Self {
        Self::raised(Fault::new(exc_type, value))
    }

    /// Creates an error that kills the container if a hook of a dependency provider returns it, for
    /// a provider that cannot work any more. The messages of its workers are requeued, and a
    /// supervisor can restart the service. Elsewhere, it is the same as `error`.
    #[must_use]
    pub fn fatal(error: impl Into<Self>) -> Self {
        Self::Fatal(Box::new(error.into()))
    }

    pub(crate) fn raised(fault: Fault) -> Self {
        Self::Raised(Box::new(fault))
    }

    /// Creates an error about an unknown name that lists the known ones.
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

    /// Wraps any error. Callers receive the name of its type, or its exception if the type is
    /// [registered](crate::exceptions::register).
    pub fn from_error(error: impl StdError + Send + Sync + 'static) -> Self {
        let fault = Fault::of(&error);
        match (Box::new(error) as Box<dyn StdError + Send + Sync>).downcast::<Self>() {
            Ok(own) => *own,
            Err(other) => Self::custom(fault, other),
        }
    }

    /// Wraps an exception, which callers receive as such even if its type is not registered.
    pub fn from_exception(error: impl Exception) -> Self {
        let fault = error.to_fault().with_causes_of(&error);
        Self::custom(fault, Box::new(error))
    }

    pub(crate) fn custom(fault: Fault, error: Box<dyn StdError + Send + Sync>) -> Self {
        Self::Custom(CustomError(Box::new((fault, error))))
    }

    /// Returns the error as an `E`, if a method returned it as such, or if a remote method raised
    /// it and the type is [registered](crate::exceptions::register) in this process.
    pub fn downcast_ref<E: StdError + 'static>(&self) -> Option<&E> {
        match self {
            Self::Custom(CustomError(kept)) => kept.1.downcast_ref(),
            Self::Fatal(error) => error.downcast_ref(),
            _ => None,
        }
    }

    /// Like [`downcast_ref`](Self::downcast_ref), by value.
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
    /// The unchanged error if it is not an `E`.
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

    /// Returns `true` if [`downcast_ref`](Self::downcast_ref) returns an `E`.
    pub fn is<E: StdError + 'static>(&self) -> bool {
        self.downcast_ref::<E>().is_some()
    }

    /// Returns `true` if a reply, or a response of the broker, did not arrive in time.
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

    /// Returns `true` if no service of the called name is running.
    pub fn is_unknown_service(&self) -> bool {
        matches!(self, Self::UnknownService(_))
    }

    /// Returns the error raised by the remote method, if it is one.
    pub fn as_remote(&self) -> Option<&RemoteError> {
        match self {
            Self::Remote(error) => Some(error),
            _ => None,
        }
    }
}

/// An error of a custom type, with its error object for callers.
///
/// Displays as the custom error and has its sources.
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

/// An error type of entrypoint methods: any type that implements `std::error::Error`, and with the
/// feature `anyhow` also `anyhow::Error`. `M` distinguishes the two.
#[diagnostic::on_unimplemented(
    message = "an entrypoint cannot fail with `{Self}`",
    label = "this is not an error type",
    note = "an entrypoint's error implements `std::error::Error + Send + Sync + 'static`; use `nameko::Error` if no custom type is needed"
)]
#[cfg_attr(
    not(feature = "anyhow"),
    diagnostic::on_unimplemented(
        note = "for `anyhow::Result`, enable the feature `anyhow` of the crate `nameko`"
    )
)]
pub trait Raise<M = ErrorTrait>: Send + 'static {
    /// Returns the error object for callers.
    fn fault(&self) -> Fault;
}

/// Marks the types that implement `std::error::Error`.
#[derive(Debug)]
pub struct ErrorTrait;

#[cfg(feature = "anyhow")]
mod anyhow_errors {
    use super::{Error, Fault, Raise, nameko_fault};
    use crate::exceptions;

    /// Marks `anyhow::Error`.
    #[derive(Debug)]
    pub struct AnyhowError;

    impl Raise<AnyhowError> for anyhow::Error {
        fn fault(&self) -> Fault {
            let error: &(dyn std::error::Error + 'static) = self.as_ref();
            let typed = match self.downcast_ref::<Error>() {
                Some(error) => Some(nameko_fault(error)),
                None => self.chain().find_map(exceptions::fault_of),
            };
            typed
                .unwrap_or_else(|| Fault::new("Error", self.to_string()))
                .with_causes_of(error)
        }
    }

    /// Callers receive a [registered](crate::exceptions::register) error of the chain, else an
    /// error of class `Error` with the outermost text. The log shows the chain.
    impl From<anyhow::Error> for Error {
        fn from(error: anyhow::Error) -> Self {
            match error.downcast::<Self>() {
                Ok(own) => own,
                Err(error) => {
                    let fault = error.fault();
                    Self::custom(fault, error.into())
                }
            }
        }
    }
}

impl<E: StdError + Send + Sync + 'static> Raise for E {
    fn fault(&self) -> Fault {
        let fault = match (self as &dyn Any).downcast_ref::<Error>() {
            Some(error) => nameko_fault(error),
            None => exceptions::fault_of(self)
                .unwrap_or_else(|| Fault::from_type(std::any::type_name::<E>(), self.to_string())),
        };
        fault.with_causes_of(self)
    }
}

impl Fault {
    /// Returns the error object of any error that a method can return.
    pub fn of<M>(error: &impl Raise<M>) -> Self {
        error.fault()
    }

    /// Returns the error for the caller: an [`Error`] or registered type for known classes, else a
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

/// For layers and hooks that return an [`Outcome`](crate::Outcome).
impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::of(&error)
    }
}

/// Returns the error object of a framework error, with the class name of Nameko.
fn nameko_fault(error: &Error) -> Fault {
    let text = error.to_string();
    match error {
        Error::Raised(fault) => (**fault).clone(),
        Error::Fatal(error) => nameko_fault(error),
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
        Error::InvalidContext { .. } => Fault::python("ValueError", text),
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

// For `?` on the most common errors. For others: `map_err(Error::from_error)` or a custom error
// type.
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

/// Callers receive a text as an error of class `Error`.
impl From<&str> for Error {
    fn from(text: &str) -> Self {
        Self::raise("Error", text)
    }
}

/// Like `From<&str>`.
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
                    .unwrap_or_else(|| Fault::new("Error", error.to_string()))
                    .with_causes_of(&*error);
                Self::custom(fault, error)
            }
        }
    }
}
