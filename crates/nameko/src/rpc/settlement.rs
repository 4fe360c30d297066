//! Settlement of a request once its reply was published.
//!
//! A request is acknowledged after the broker has confirmed the reply, so that a crash in between
//! has it delivered again instead of losing the reply.

use std::time::Duration;

use crate::amqp::{Acker, Error, PublishError};

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
