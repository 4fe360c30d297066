//! Publishing of a reply, and settlement of its request.
//!
//! A request is acknowledged after the broker has confirmed the reply, so that a crash in between
//! has it delivered again instead of losing the reply.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    amqp::{Acker, Error, Properties, Publish, PublishError, PublishOptions, Publisher, Table},
    protocol::{self, Fault},
    serialization::Format,
};

/// Delay between the rounds of attempts to send a kept reply.
const KEPT_REPLY_DELAY: Duration = Duration::from_secs(1);

/// How long a reply is kept after the connection of its request was lost: as long as the queue of
/// its caller outlives the caller's connection.
const KEPT_REPLY_LIFETIME: Duration = Duration::from_secs(300);

async fn attempt(publisher: &Publisher, reply: &Publish) -> Result<(), PublishError> {
    let options = PublishOptions::default();
    publisher.publish_with(reply, options).await
}

/// Keeps a reply while the broker cannot take it, and publishes it when the broker is back: the
/// method does not run again meanwhile, because its request stays unacknowledged.
///
/// Once the connection of the request is lost as well, the broker delivers the request again, and
/// the reply is kept for five minutes more.
///
/// `published` is the result of the first attempt.
async fn keep(
    mut published: Result<(), PublishError>,
    publisher: &Publisher,
    method: &str,
    reply: &Publish,
    acker: Option<&Acker>,
) -> Result<(), PublishError> {
    let mut lost_at = None;
    let mut kept = false;
    loop {
        let error = match (Settlement::of(&published), published) {
            (Settlement::Requeue, Err(error)) => error,
            (_, published) => {
                if kept && published.is_ok() {
                    tracing::info!("sent the reply to `{method}` that was kept");
                }
                return published;
            }
        };
        if !acker.is_some_and(Acker::is_pending) {
            let lost_at = *lost_at.get_or_insert_with(Instant::now);
            if lost_at.elapsed() >= KEPT_REPLY_LIFETIME {
                return Err(error);
            }
        }
        if !kept {
            tracing::warn!(
                "the reply to `{method}` cannot be sent and is kept until the broker takes it: \
                 {error}"
            );
        }
        kept = true;
        sleep(KEPT_REPLY_DELAY).await;
        published = attempt(publisher, reply).await;
    }
}

/// Delay before requeueing an unanswered request, since the broker may redeliver it at once.
const REQUEUE_DELAY: Duration = Duration::from_secs(1);

/// The end of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// The reply was confirmed, or the broker refused the reply itself, so that running the method
    /// again would not help.
    Acknowledge,
    /// The reply was not confirmed: the request is redelivered.
    Requeue,
}

impl Settlement {
    /// Returns the settlement for the result of publishing the reply.
    pub fn of(published: &Result<(), PublishError>) -> Self {
        match published {
            Ok(())
            | Err(PublishError::Refused(Error::ChannelClosed { .. } | Error::Unsendable { .. })) => {
                Self::Acknowledge
            }
            Err(_) => Self::Requeue,
        }
    }

    /// Settles the request: acknowledges it at once, or requeues it after a delay of a second.
    pub async fn apply(self, acker: &Acker) {
        match self {
            Self::Acknowledge => acker.ack(),
            Self::Requeue => {
                tokio::time::sleep(REQUEUE_DELAY).await;
                acker.reject(true);
            }
        }
    }
}

/// Publishes the reply to a request for `method`, and keeps it while the broker cannot take it.
/// `acker` is that of the request, if it is to be settled.
///
/// If the broker refuses the reply itself, for example as it is too large, the caller gets an error
/// in its place.
///
/// # Errors
/// If the broker has confirmed neither the reply nor the error.
pub async fn publish_reply(
    publisher: &Publisher,
    method: &str,
    reply: &Publish,
    acker: Option<&Acker>,
) -> Result<(), PublishError> {
    let published = attempt(publisher, reply).await;
    if published.is_ok() {
        return published;
    }
    // Boxed, as it is rare and larger than the rest of the future.
    Box::pin(publish_failed(published, publisher, method, reply, acker)).await
}

/// Continues [`publish_reply`] after the first attempt has failed.
async fn publish_failed(
    first: Result<(), PublishError>,
    publisher: &Publisher,
    method: &str,
    reply: &Publish,
    acker: Option<&Acker>,
) -> Result<(), PublishError> {
    let published = keep(first, publisher, method, reply, acker).await;
    let Err(error) = &published else {
        return published;
    };
    if Settlement::of(&published) == Settlement::Requeue {
        return published;
    }
    let refused = refusal(reply, error);
    let first = attempt(publisher, &refused).await;
    if keep(first, publisher, method, &refused, acker)
        .await
        .is_err()
    {
        return published;
    }
    tracing::error!("the broker refused the reply to {method}, its caller gets an error: {error}");
    Ok(())
}

/// Returns the reply for a caller whose actual reply the broker refused.
fn refusal(reply: &Publish, error: &PublishError) -> Publish {
    let content_type = reply.properties.content_type.as_deref();
    let format = content_type
        .and_then(Format::of_content_type)
        .unwrap_or(Format::Json);
    let fault = Fault::unserializable(&format!("the broker refused the reply: {error}"));
    let (properties, body) =
        protocol::message(protocol::encode_fault(&format, &fault), Table::new());
    Publish {
        properties: Properties {
            correlation_id: reply.properties.correlation_id.clone(),
            ..properties
        },
        body,
        ..reply.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refused_reply_is_not_sent_again() {
        let refused = Error::Unsendable {
            reason: "too large".to_owned(),
        };
        let nacked = PublishError::Nacked {
            exchange: "nameko-rpc".to_owned(),
            routing_key: "x".to_owned(),
        };
        for (published, settlement) in [
            (Ok(()), Settlement::Acknowledge),
            (Err(PublishError::Refused(refused)), Settlement::Acknowledge),
            (
                Err(PublishError::Refused(Error::Stopped)),
                Settlement::Requeue,
            ),
            (Err(PublishError::Lost(Error::Stopped)), Settlement::Requeue),
            (Err(nacked), Settlement::Requeue),
        ] {
            assert_eq!(Settlement::of(&published), settlement, "{published:?}");
        }
    }
}
