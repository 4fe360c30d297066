//! The error type of all commands.

use std::fmt;

use super::scanner::Fault;
use crate::config::ConfigError;
use crate::{error::Error, error_chain::ErrorChain};

/// A failed command, displayed as `RemoteError: ValueError bad`.
#[derive(Debug)]
pub(super) struct Failure {
    kind: &'static str,
    message: String,
    hint: Option<String>,
    /// Number of the failed process under a supervisor.
    process: Option<u16>,
}

impl Failure {
    pub(super) fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
            process: None,
        }
    }

    /// Adds a remedy.
    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// Adds the number of the process.
    #[cfg(unix)]
    pub(super) fn in_process(self, number: u16) -> Self {
        Self {
            process: Some(number),
            ..self
        }
    }

    /// Creates an error about a text typed by the user.
    pub(super) fn in_text(fault: &Fault, text: &str) -> Self {
        // `point_at` includes the kind.
        Self::new("", fault.point_at(text))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(number) = self.process {
            write!(f, "[{number}] ")?;
        }
        if !self.kind.is_empty() {
            write!(f, "{}: ", self.kind)?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  {hint}"),
            None => Ok(()),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let mut cause = &error;
        while let Error::Extension { reason, .. } = cause {
            cause = reason;
        }
        let kind = match cause {
            Error::Remote(_) => "RemoteError",
            Error::UnknownService(_) => "UnknownService",
            Error::MethodNotFound(_) => "MethodNotFound",
            Error::IncorrectSignature(_) => "IncorrectSignature",
            Error::MalformedRequest(_) => "MalformedRequest",
            Error::Timeout { .. } => "RpcTimeout",
            Error::ReplyLost { .. } | Error::Amqp(_) | Error::Publish(_) => "ConnectionError",
            Error::Serialization(_) => "SerializationError",
            Error::InvalidContext { .. } => "ContextError",
            Error::Config(_) => "ConfigurationError",
            _ => "Error",
        };
        Self::new(kind, ErrorChain(&error).to_string())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::from(Error::from(error))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new("Error", error.to_string())
    }
}
