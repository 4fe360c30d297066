//! One call: a request, and the reply to it.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::replies::{Pending, Replies};
use crate::{
    amqp::{self, Properties, Publish, PublishError, Publisher, Retry, Table},
    config::Config,
    error::{Error, Result},
    protocol,
    serialization::{Codec, Compression, Encoded, Payload},
};

/// How long a call waits for its reply, unless the proxy or the config key `rpc_timeout` (seconds, 0: for ever) says otherwise.
pub(crate) const RPC_TIMEOUT: Duration = Duration::from_secs(60);

/// Calls over one publisher and one reply queue.
#[derive(Clone)]
pub(crate) struct Client {
    exchange: Arc<str>,
    publisher: Publisher,
    replies: Arc<Replies>,
}

/// How a call is made.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// How long to wait for the reply, `None` for ever.
    pub(crate) timeout: Option<Duration>,
    /// What the request is written in, and what the reply may be written in.
    pub(crate) codec: Arc<Codec>,
    /// How the request is made smaller.
    pub(crate) compression: Option<Compression>,
}

impl Options {
    /// The options that the configuration asks for.
    pub(crate) fn new(config: &Config) -> Result<Self> {
        let timeout = match config.float("rpc_timeout")? {
            None => Some(RPC_TIMEOUT),
            Some(0.0) => None,
            Some(seconds) => Some(Duration::try_from_secs_f64(seconds).map_err(|_| {
                config.invalid(
                    "rpc_timeout",
                    "must be a number of seconds, 0 for no timeout",
                )
            })?),
        };
        Ok(Self {
            timeout,
            codec: Codec::of(config)?,
            compression: None,
        })
    }
}

impl Client {
    pub(crate) fn new(exchange: &str, publisher: Publisher, replies: Arc<Replies>) -> Self {
        Self {
            exchange: exchange.into(),
            publisher,
            replies,
        }
    }

    /// Calls `service.method` with an encoded request, and returns the result.
    pub(crate) async fn call(
        &self,
        service: &str,
        method: &str,
        request: Encoded,
        headers: Table,
        options: &Options,
    ) -> Result<Payload> {
        let mut pending = self.replies.expect();
        let start = Instant::now();
        let publish = self.publisher.publish(
            self.request(service, method, request, headers, &pending),
            Some(Retry::default()),
        );
        tokio::pin!(publish);
        let deadline = async {
            match options.timeout {
                Some(timeout) => sleep(timeout).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(deadline);
        let mut published = false;
        loop {
            tokio::select! {
                biased;
                answer = pending.answer() => {
                    let lost = |reason| Error::ReplyLost { service: service.to_owned(), method: method.to_owned(), reason };
                    let reply = answer.map_err(lost)?;
                    return protocol::decode_reply(&options.codec, &reply.properties, &reply.body);
                }
                confirm = &mut publish, if !published => match confirm {
                    Ok(()) => published = true,
                    Err(PublishError::Unroutable { .. }) => return Err(Error::UnknownService(service.to_owned())),
                    Err(PublishError::Refused(error)) if error.is_not_found() => {
                        // No exchange: nobody who serves RPC was ever here.
                        return Err(Error::UnknownService(service.to_owned()));
                    }
                    Err(error) => return Err(error.into()),
                },
                () = &mut deadline => {
                    let timeout = options.timeout.unwrap_or_default();
                    return Err(match self.unsent(start, timeout).filter(|_| !published) {
                        Some(error) => PublishError::Lost(error).into(),
                        None => Error::Timeout { service: service.to_owned(), method: method.to_owned(), timeout },
                    });
                }
            }
        }
    }

    /// Why a request is not with the broker yet: what its publisher met since `start`, or that the broker says nothing.
    fn unsent(&self, start: Instant, timeout: Duration) -> Option<amqp::Error> {
        self.publisher.failure_since(start).or_else(|| {
            Some(amqp::Error::Timeout {
                peer: self.publisher.peer()?,
                after: timeout,
                doing: "sending a request",
            })
        })
    }

    fn request(
        &self,
        service: &str,
        method: &str,
        request: Encoded,
        headers: Table,
        pending: &Pending,
    ) -> Publish {
        let (properties, body) = protocol::message(request, headers);
        Publish {
            exchange: self.exchange.to_string(),
            routing_key: protocol::request_key(service, method),
            mandatory: true,
            properties: Properties {
                correlation_id: Some(pending.correlation_id().to_owned().into()),
                reply_to: Some(self.replies.reply_to.clone().into()),
                ..properties
            },
            body,
        }
    }
}
