//! Properties of a message.

use std::borrow::Cow;

use crate::table::Table;

/// A short string of at most 255 bytes, either owned or a constant that is not copied.
pub type Text = Cow<'static, str>;

/// Properties of a message: the basic properties of AMQP 0-9-1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Properties {
    /// MIME type of the body, such as `application/json`.
    pub content_type: Option<Text>,
    /// Encoding of the body, such as `utf-8` or `binary`.
    pub content_encoding: Option<Text>,
    /// Headers. An empty table is sent, too.
    pub headers: Table,
    /// 1 for transient messages, 2 for messages that a durable queue keeps on disk.
    pub delivery_mode: Option<u8>,
    /// Priority, for queues with `x-max-priority`.
    pub priority: Option<u8>,
    /// Id that matches a reply with its request.
    pub correlation_id: Option<Text>,
    /// Routing key for replies.
    pub reply_to: Option<Text>,
    /// Time to live in a queue, in milliseconds as decimal text.
    pub expiration: Option<Text>,
    /// Application-defined message id.
    pub message_id: Option<Text>,
    /// Seconds since 1970-01-01 00:00 UTC.
    pub timestamp: Option<u64>,
    /// Application-defined message type.
    pub type_: Option<Text>,
    /// Publishing user, which the broker validates.
    pub user_id: Option<Text>,
    /// Publishing application.
    pub app_id: Option<Text>,
    /// Deprecated in AMQP 0-9-1; passed through.
    pub cluster_id: Option<Text>,
}
