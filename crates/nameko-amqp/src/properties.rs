//! The properties of a message.

use std::borrow::Cow;

use crate::table::Table;

/// A short text that is often a constant, such as a content type: constants are not copied for each message.
///
/// At most 255 bytes on the wire.
pub type Text = Cow<'static, str>;

/// What travels with a message's body: AMQP's basic properties.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Properties {
    /// MIME type of the body, e.g. `application/json`.
    pub content_type: Option<Text>,
    /// Encoding of the body, e.g. `utf-8` or `binary`.
    pub content_encoding: Option<Text>,
    /// Headers. Always sent, also when there are none.
    pub headers: Table,
    /// 1: may be lost when the broker stops; 2: kept on disk in a durable queue.
    pub delivery_mode: Option<u8>,
    /// Priority, 0 to 9, in queues that have priorities.
    pub priority: Option<u8>,
    /// Tells which request a reply answers.
    pub correlation_id: Option<Text>,
    /// Where replies go.
    pub reply_to: Option<Text>,
    /// When the message expires: milliseconds, as text.
    pub expiration: Option<Text>,
    /// The application's name for the message.
    pub message_id: Option<Text>,
    /// Seconds since 1970-01-01 00:00 UTC.
    pub timestamp: Option<u64>,
    /// The application's name for the kind of message.
    pub type_: Option<Text>,
    /// The user who published; the broker checks it.
    pub user_id: Option<Text>,
    /// The application that published.
    pub app_id: Option<Text>,
    /// Deprecated in AMQP 0-9-1, passed through.
    pub cluster_id: Option<Text>,
}
