//! `AmqpError`: the Python exception for every failure of a broker or of the connection to it.

use nameko::amqp::{Error, PublishError};
use pyo3::prelude::*;

pyo3::create_exception!(
    _nameko,
    AmqpError,
    pyo3::exceptions::PyException,
    "A failure of a broker or of the connection to it. `kind` names the case, `code` is the AMQP reply code if the broker \
     sent one, `text` gives the cause and the remedy, `reply_text` is the text of a broker that closed the channel or the \
     connection, `method` the ids of the class and method that it refused."
);

/// The class and method ids of `connection.open`.
const CONNECTION_OPEN: (u16, u16) = (10, 40);

/// The contents of an `AmqpError`: created on any thread, raised on a Python one.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    kind: &'static str,
    code: Option<u16>,
    text: String,
    /// The text of a broker that closed the channel or the connection.
    reply_text: Option<String>,
    /// The class and method ids that the broker refused; (0, 0) if none.
    method: (u16, u16),
}

impl Failure {
    /// A failure of kind `lost`: no reply can arrive, or the connection is gone.
    pub(crate) fn lost(text: impl Into<String>) -> Self {
        Failure {
            kind: "lost",
            code: None,
            text: text.into(),
            reply_text: None,
            method: (0, 0),
        }
    }

    /// Converts to the exception.
    pub(crate) fn into_err(self, py: Python<'_>) -> PyErr {
        let error = AmqpError::new_err(self.text.clone());
        let value = error.value(py);
        let set = value
            .setattr(pyo3::intern!(py, "kind"), self.kind)
            .and_then(|()| value.setattr(pyo3::intern!(py, "code"), self.code))
            .and_then(|()| value.setattr(pyo3::intern!(py, "text"), self.text))
            .and_then(|()| value.setattr(pyo3::intern!(py, "reply_text"), self.reply_text))
            .and_then(|()| value.setattr(pyo3::intern!(py, "method"), self.method));
        set.err().unwrap_or(error)
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let kind = match error {
            Error::BadUri { .. } => "uri",
            Error::Io { .. } => "io",
            Error::Tls { .. } => "tls",
            Error::Timeout { .. } => "timeout",
            Error::Blocked { .. } => "blocked",
            Error::NotAmqp { .. } => "not_amqp",
            Error::Handshake { .. } => "handshake",
            Error::AccessRefused { .. } => "access_refused",
            Error::NotAllowed { .. } => "not_allowed",
            Error::ChannelClosed { .. } => "channel_closed",
            Error::ConnectionClosed { .. } => "connection_closed",
            Error::Unsendable { .. } => "unsendable",
            Error::Stopped => "stopped",
            // HeartbeatMissed, Protocol, Lost, Closed: the connection is gone.
            _ => "lost",
        };
        let (reply_text, method) = match error {
            Error::ChannelClosed {
                text,
                class,
                method,
                ..
            }
            | Error::ConnectionClosed {
                text,
                class,
                method,
                ..
            } => (Some(text.clone()), (*class, *method)),
            // Without a method, as py-amqp reports it.
            Error::AccessRefused { text, .. } => (Some(text.clone()), (0, 0)),
            Error::NotAllowed { text, .. } => (Some(text.clone()), CONNECTION_OPEN),
            _ => (None, (0, 0)),
        };
        Failure {
            kind,
            code: error.reply_code(),
            text: error.to_string(),
            reply_text,
            method,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::from(&error)
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        let kind = match &error {
            PublishError::Unroutable { .. } => "unroutable",
            PublishError::Nacked { .. } => "nacked",
            PublishError::Refused(error) | PublishError::Lost(error) => {
                return Failure::from(error);
            }
            _ => "lost",
        };
        Failure {
            kind,
            code: error.reply_code(),
            text: error.to_string(),
            reply_text: None,
            method: (0, 0),
        }
    }
}
