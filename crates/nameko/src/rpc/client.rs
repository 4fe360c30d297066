//! A single call: a request and its reply.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::replies::{Pending, Replies};
use crate::{
    amqp::{Properties, Publish, PublishError, Publisher, Retry, Table},
    config::Config,
    error::{Error, Result},
    protocol,
    serialization::{Codec, Compression, Encoded, Payload},
};

/// Default timeout of calls. Config key: `rpc_timeout`, in seconds, 0 disables it.
pub(crate) const RPC_TIMEOUT: Duration = Duration::from_secs(60);

/// Makes calls over one publisher and one reply queue.
#[derive(Clone)]
pub(crate) struct Client {
    exchange: Arc<str>,
    publisher: Publisher,
    replies: Arc<Replies>,
}

/// Options of a call.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Timeout for the reply; `None` waits forever.
    pub(crate) timeout: Option<Duration>,
    /// Format of the request, and accepted formats of the reply.
    pub(crate) codec: Arc<Codec>,
    /// Compression of the request.
    pub(crate) compression: Option<Compression>,
}

impl Options {
    /// Reads the options from the configuration.
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
                        // No exchange: no RPC service has ever run on this broker.
                        return Err(Error::UnknownService(service.to_owned()));
                    }
                    Err(error) => return Err(error.into()),
                },
                () = &mut deadline => {
                    let timeout = options.timeout.unwrap_or_default();
                    return Err(match published {
                        false => PublishError::Lost(self.publisher.overdue(start, timeout, "sending a request")).into(),
                        true => Error::Timeout { service: service.to_owned(), method: method.to_owned(), timeout },
                    });
                }
            }
        }
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
