//! Protocol errors: reply codes and texts that close a channel or a connection.
//!
//! The codes are defined by AMQP 0-9-1. The texts, and the choice between channel and connection,
//! are RabbitMQ's, which clients and their tests rely on.

use amq_protocol::types::ShortString;

/// Reply codes that this broker sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// An unroutable mandatory message; only sent with `basic.return`.
    NoRoute,
    ConnectionForced,
    AccessRefused,
    NotFound,
    ResourceLocked,
    PreconditionFailed,
    FrameError,
    SyntaxError,
    CommandInvalid,
    ChannelError,
    UnexpectedFrame,
    ResourceError,
    NotAllowed,
    NotImplemented,
    InternalError,
}

impl Code {
    /// Returns the numeric code.
    pub(crate) fn id(self) -> u16 {
        match self {
            Code::NoRoute => 312,
            Code::ConnectionForced => 320,
            Code::AccessRefused => 403,
            Code::NotFound => 404,
            Code::ResourceLocked => 405,
            Code::PreconditionFailed => 406,
            Code::FrameError => 501,
            Code::SyntaxError => 502,
            Code::CommandInvalid => 503,
            Code::ChannelError => 504,
            Code::UnexpectedFrame => 505,
            Code::ResourceError => 506,
            Code::NotAllowed => 530,
            Code::NotImplemented => 540,
            Code::InternalError => 541,
        }
    }

    /// Returns the name that starts the reply text.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Code::NoRoute => "NO_ROUTE",
            Code::ConnectionForced => "CONNECTION_FORCED",
            Code::AccessRefused => "ACCESS_REFUSED",
            Code::NotFound => "NOT_FOUND",
            Code::ResourceLocked => "RESOURCE_LOCKED",
            Code::PreconditionFailed => "PRECONDITION_FAILED",
            Code::FrameError => "FRAME_ERROR",
            Code::SyntaxError => "SYNTAX_ERROR",
            Code::CommandInvalid => "COMMAND_INVALID",
            Code::ChannelError => "CHANNEL_ERROR",
            Code::UnexpectedFrame => "UNEXPECTED_FRAME",
            Code::ResourceError => "RESOURCE_ERROR",
            Code::NotAllowed => "NOT_ALLOWED",
            Code::NotImplemented => "NOT_IMPLEMENTED",
            Code::InternalError => "INTERNAL_ERROR",
        }
    }

    /// Returns whether the code closes the whole connection (a "hard" error in the specification).
    pub(crate) fn closes_connection(self) -> bool {
        !matches!(
            self,
            Code::NoRoute
                | Code::AccessRefused
                | Code::NotFound
                | Code::ResourceLocked
                | Code::PreconditionFailed
        )
    }
}

/// The reason for closing a channel or a connection, as sent to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AmqpError {
    pub(crate) code: Code,
    /// Reply text without the name of the code.
    pub(crate) text: String,
    /// Class and method id of the failed method; (0, 0) if there is none.
    pub(crate) method: (u16, u16),
}

/// Result of a client's method.
pub(crate) type Result<T, E = AmqpError> = std::result::Result<T, E>;

impl AmqpError {
    pub(crate) fn new(code: Code, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
            method: (0, 0),
        }
    }

    pub(crate) fn access_refused(text: impl Into<String>) -> Self {
        Self::new(Code::AccessRefused, text)
    }

    pub(crate) fn not_found(text: impl Into<String>) -> Self {
        Self::new(Code::NotFound, text)
    }

    pub(crate) fn precondition_failed(text: impl Into<String>) -> Self {
        Self::new(Code::PreconditionFailed, text)
    }

    pub(crate) fn not_allowed(text: impl Into<String>) -> Self {
        Self::new(Code::NotAllowed, text)
    }

    pub(crate) fn unexpected_frame(text: impl Into<String>) -> Self {
        Self::new(Code::UnexpectedFrame, text)
    }

    pub(crate) fn not_implemented(text: impl Into<String>) -> Self {
        Self::new(Code::NotImplemented, text)
    }

    /// The error for a method that clients may not send or that does not exist.
    pub(crate) fn unknown_method() -> Self {
        Self::new(Code::CommandInvalid, "unimplemented method")
    }

    /// Sets the failed method, unless an inner layer has set it.
    pub(crate) fn in_method(mut self, method: (u16, u16)) -> Self {
        if self.method == (0, 0) {
            self.method = method;
        }
        self
    }

    /// Returns the reply text `NAME - text`, truncated to the 255 bytes of a short string.
    pub(crate) fn reply_text(&self) -> ShortString {
        let mut text = format!("{} - {}", self.code.name(), self.text);
        if text.len() > 255 {
            let mut cut = 252;
            while !text.is_char_boundary(cut) {
                cut -= 1;
            }
            text.truncate(cut);
            text.push_str("...");
        }
        ShortString::try_new(text).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_truncated_at_a_character_boundary() {
        let short = AmqpError::not_found("no queue 'q' in vhost '/'");
        assert_eq!(
            short.reply_text().as_str(),
            "NOT_FOUND - no queue 'q' in vhost '/'"
        );
        let long = AmqpError::not_found("é".repeat(300)).reply_text();
        assert!(
            long.as_str().len() <= 255 && long.as_str().ends_with("é..."),
            "{long}"
        );
    }

    #[test]
    fn the_innermost_failed_method_is_kept() {
        let error = AmqpError::not_allowed("x")
            .in_method((60, 20))
            .in_method((10, 10));
        assert_eq!(error.method, (60, 20));
    }
}
