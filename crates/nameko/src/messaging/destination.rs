//! Destinations of messages: the broker, or a mock.

use std::{fmt, future::ready, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::Serialize;

use super::options::Options;
use crate::{
    amqp::{Declarations, Exchange, Publish, PublishOptions, Publisher, Retry, Table, Value},
    caller::Caller,
    config::Config,
    error::{Error, Result},
    serialization::{BINARY, Codec, Encoded, RAW},
};

/// Time limit of an attempt to publish, unless `publish_timeout` is configured.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(20);

/// Returns the time limit of a publish without a configured one.
pub fn publish_time_limit(retry: Option<&Retry>) -> Option<Duration> {
    match retry {
        Some(retry) => retry.time_limit(PUBLISH_TIMEOUT),
        None => Some(PUBLISH_TIMEOUT),
    }
}

/// An AMQP publisher with the codec, the options and the declarations of its owner.
pub(crate) struct ConfiguredPublisher {
    publisher: Publisher,
    codec: Arc<Codec>,
    options: Options,
    declarations: Declarations,
}

impl ConfiguredPublisher {
    /// Declares `exchange`, and what the options declare.
    pub(crate) fn new(
        config: &Config,
        exchange: Option<Exchange>,
        mut options: Options,
    ) -> Result<Self> {
        let exchanges = std::mem::take(&mut options.exchanges);
        let queues = std::mem::take(&mut options.queues);
        let exchanges = exchanges.into_iter().chain(exchange).collect();
        options.timeout = match options.timeout {
            None => config.publish_timeout()?,
            given => given,
        };
        Ok(Self {
            publisher: Publisher::shared(&config.connect_options()?),
            codec: match &options.serializer {
                Some(name) => Codec::named(name)?,
                None => Codec::of(config)?,
            },
            options,
            declarations: Declarations::new(exchanges, queues),
        })
    }

    /// Declares exchanges and queues, waiting for the broker.
    pub(crate) async fn declare(&self) -> Result<()> {
        Ok(self.publisher.ensure_declared(&self.declarations).await?)
    }

    async fn send(&self, message: Publish, options: Options) -> Result<()> {
        let confirm = options.use_confirms != Some(false);
        if message.mandatory && !confirm {
            tracing::warn!(
                "a mandatory message is published without confirms: unroutable messages are not reported"
            );
        }
        let own = Declarations::new(options.exchanges, options.queues);
        let retry = options.retry.unwrap_or_else(|| Some(Retry::default()));
        let options = PublishOptions {
            retry,
            confirm,
            timeout: options
                .timeout
                .unwrap_or_else(|| publish_time_limit(retry.as_ref())),
            declarations: &[&self.declarations, &own],
        };
        Ok(self.publisher.publish_with(&message, options).await?)
    }
}

/// The destination of a publisher's messages.
#[derive(Clone)]
pub(crate) enum Destination {
    /// The broker.
    Broker {
        publisher: Arc<ConfiguredPublisher>,
        exchange: Arc<str>,
        caller: Caller,
    },
    /// A callback of a test.
    Mock(Arc<dyn Fn(Publish) -> Result<()> + Send + Sync>),
}

impl Destination {
    /// Returns a copy whose messages carry more context data.
    pub(crate) fn with_context(&self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        let mut destination = self.clone();
        if let Self::Broker { caller, .. } = &mut destination {
            *caller = caller.with_context(key, value);
        }
        destination
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker { exchange, .. } => f.write_str(exchange),
            Self::Mock(_) => f.write_str("mock"),
        }
    }
}

/// The body of a message to publish.
pub(crate) enum Body<'a, T: ?Sized> {
    /// A value to serialize.
    Value(&'a T),
    /// Bytes, sent unchanged.
    Bytes(Bytes),
}

/// Publishes a message. Serializes the body eagerly, before the future is polled.
pub(crate) fn publish<T: Serialize + ?Sized>(
    destination: Destination,
    body: Body<'_, T>,
    call: Options,
) -> BoxFuture<'static, Result<()>> {
    match destination {
        Destination::Mock(publish) => {
            let published = Codec::of(&Config::default())
                .map_err(Error::from)
                .and_then(|codec| message("", &codec, body, &call, Table::new()))
                .and_then(|message| publish(message));
            Box::pin(ready(published))
        }
        Destination::Broker {
            publisher,
            exchange,
            caller,
        } => {
            let options = publisher.options.and(call);
            let prepared = caller
                .headers()
                .and_then(|headers| message(&exchange, &publisher.codec, body, &options, headers));
            Box::pin(async move { publisher.send(prepared?, options).await })
        }
    }
}

fn message<T: Serialize + ?Sized>(
    exchange: &str,
    codec: &Codec,
    body: Body<'_, T>,
    options: &Options,
    extra: Table,
) -> Result<Publish> {
    let encoded = match (body, &options.serializer) {
        (Body::Value(value), Some(name)) => Codec::named(name)?.encode(value)?,
        (Body::Value(value), None) => codec.encode(value)?,
        (Body::Bytes(body), _) => Encoded {
            body: body.into(),
            content_type: RAW.into(),
            content_encoding: BINARY.into(),
            compression: None,
        },
    };
    let encoded = match options.compression {
        Some(compression) => encoded.compress(compression)?,
        None => encoded,
    };
    let (properties, body) = options.message(encoded, extra);
    Ok(Publish {
        exchange: exchange.to_owned(),
        routing_key: options.routing_key.clone().unwrap_or_default(),
        mandatory: options.mandatory == Some(true),
        properties,
        body,
    })
}
