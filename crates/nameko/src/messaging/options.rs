//! Options of publishers and messages.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    amqp::{Exchange, Properties, Queue, Retry, Table, Text},
    protocol,
    serialization::{Compression, Encoded},
};

/// Options of a publisher or a message. `None` selects the publisher's option or the default.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    pub(crate) routing_key: Option<String>,
    pub(crate) use_confirms: Option<bool>,
    pub(crate) mandatory: Option<bool>,
    /// `Some(None)` for no retries.
    pub(crate) retry: Option<Option<Retry>>,
    /// `Some(None)` for no time limit.
    pub(crate) timeout: Option<Option<Duration>>,
    /// Name of a registered serializer.
    pub(crate) serializer: Option<String>,
    pub(crate) compression: Option<Compression>,
    pub(crate) content_type: Option<Text>,
    pub(crate) content_encoding: Option<Text>,
    pub(crate) persistent: Option<bool>,
    pub(crate) priority: Option<u8>,
    pub(crate) expiration: Option<Duration>,
    pub(crate) headers: Table,
    pub(crate) correlation_id: Option<Text>,
    pub(crate) reply_to: Option<Text>,
    pub(crate) message_id: Option<Text>,
    pub(crate) timestamp: Option<u64>,
    pub(crate) message_type: Option<Text>,
    pub(crate) user_id: Option<Text>,
    pub(crate) app_id: Option<Text>,
    pub(crate) cluster_id: Option<Text>,
    pub(crate) exchanges: Vec<Exchange>,
    pub(crate) queues: Vec<Queue>,
}

impl Options {
    /// Merges the options of a message, which win. Headers are merged, declarations added.
    pub(crate) fn and(&self, call: Options) -> Options {
        let mut headers = self.headers.clone();
        headers.extend(call.headers);
        let both = |mine: &Option<Text>, its: Option<Text>| its.or_else(|| mine.clone());
        Options {
            routing_key: call.routing_key.or_else(|| self.routing_key.clone()),
            use_confirms: call.use_confirms.or(self.use_confirms),
            mandatory: call.mandatory.or(self.mandatory),
            retry: call.retry.or(self.retry),
            timeout: call.timeout.or(self.timeout),
            serializer: call.serializer.or_else(|| self.serializer.clone()),
            compression: call.compression.or(self.compression),
            content_type: both(&self.content_type, call.content_type),
            content_encoding: both(&self.content_encoding, call.content_encoding),
            persistent: call.persistent.or(self.persistent),
            priority: call.priority.or(self.priority),
            expiration: call.expiration.or(self.expiration),
            headers,
            correlation_id: both(&self.correlation_id, call.correlation_id),
            reply_to: both(&self.reply_to, call.reply_to),
            message_id: both(&self.message_id, call.message_id),
            timestamp: call.timestamp.or(self.timestamp),
            message_type: both(&self.message_type, call.message_type),
            user_id: both(&self.user_id, call.user_id),
            app_id: both(&self.app_id, call.app_id),
            cluster_id: both(&self.cluster_id, call.cluster_id),
            exchanges: call.exchanges,
            queues: call.queues,
        }
    }

    /// Returns the properties and the body of a message. The framework's headers, `extra`, override
    /// the others, as in Nameko.
    pub(crate) fn message(&self, encoded: Encoded, extra: Table) -> (Properties, Bytes) {
        // Collected in one pass: `extra` may hold many headers of a peer, and single insertions are
        // linear.
        let headers = self.headers.clone().into_iter().chain(extra).collect();
        let (properties, body) = protocol::message(encoded, headers);
        let properties = Properties {
            content_type: self.content_type.clone().or(properties.content_type),
            content_encoding: self
                .content_encoding
                .clone()
                .or(properties.content_encoding),
            delivery_mode: match self.persistent {
                Some(false) => Some(1),
                _ => properties.delivery_mode,
            },
            priority: self.priority.or(properties.priority),
            expiration: self
                .expiration
                .map(|expiration| expiration.as_millis().to_string().into()),
            correlation_id: self.correlation_id.clone(),
            reply_to: self.reply_to.clone(),
            message_id: self.message_id.clone(),
            timestamp: self.timestamp,
            type_: self.message_type.clone(),
            user_id: self.user_id.clone(),
            app_id: self.app_id.clone(),
            cluster_id: self.cluster_id.clone(),
            headers: properties.headers,
        };
        (properties, body)
    }
}
