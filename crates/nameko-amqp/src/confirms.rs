//! Which published messages the broker has yet to confirm.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use crate::{
    error::{Error, PublishError},
    message::Publish,
};

/// What became of a message.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The broker has it.
    Acked,
    /// The broker could not take charge of it.
    Nacked,
    /// It was mandatory and reached no queue.
    Returned {
        /// AMQP's reply code.
        code: u16,
        /// What the broker said.
        text: String,
    },
    /// Channel or connection ended first.
    Ended(Error),
}

impl Outcome {
    /// What the publisher of `message` is told.
    pub(crate) fn of(self, message: &Publish) -> Result<(), PublishError> {
        let (exchange, routing_key) = (&message.exchange, &message.routing_key);
        match self {
            Outcome::Acked => Ok(()),
            Outcome::Nacked => Err(PublishError::Nacked {
                exchange: exchange.clone(),
                routing_key: routing_key.clone(),
            }),
            Outcome::Returned { code, text } => Err(PublishError::Unroutable {
                code,
                text,
                exchange: exchange.clone(),
                routing_key: routing_key.clone(),
            }),
            Outcome::Ended(error) => Err(error.into()),
        }
    }
}

/// What a `basic.return` and the publish that it answers have in common.
///
/// The return comes before the confirm, but says nothing of the publish's number.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Route {
    exchange: String,
    routing_key: String,
    correlation_id: Option<String>,
}

impl Route {
    pub(crate) fn new(exchange: &str, routing_key: &str, correlation_id: Option<&str>) -> Self {
        Self {
            exchange: exchange.to_owned(),
            routing_key: routing_key.to_owned(),
            correlation_id: correlation_id.map(str::to_owned),
        }
    }

    fn of(message: &Publish) -> Self {
        Self::new(
            &message.exchange,
            &message.routing_key,
            message.properties.correlation_id.as_deref(),
        )
    }
}

/// Whom to tell of an outcome.
enum Waiter {
    Future(oneshot::Sender<Outcome>),
    Call(Box<dyn FnOnce(Outcome) + Send>),
}

/// A call that is due to somebody who does not wait in a future.
pub(crate) struct Completion(Box<dyn FnOnce(Outcome) + Send>, Outcome);

impl Completion {
    pub(crate) fn tell(self) {
        (self.0)(self.1);
    }
}

struct Pending {
    waiter: Waiter,
    /// Only of a mandatory message.
    route: Option<Route>,
    /// Code and text, when the message came back.
    returned: Option<(u16, String)>,
}

/// The unconfirmed messages of one channel, in the order of publishing.
pub(crate) struct Confirms {
    /// The number that the broker gives the first of `pending`. Numbers start at 1.
    first: u64,
    /// `None` for those that were confirmed out of order.
    pending: VecDeque<Option<Pending>>,
}

impl Confirms {
    pub(crate) fn new() -> Self {
        Self {
            first: 1,
            pending: VecDeque::new(),
        }
    }

    /// Notes a message that goes out next.
    pub(crate) fn published(&mut self, message: &Publish) -> oneshot::Receiver<Outcome> {
        let (outcome, receiver) = oneshot::channel();
        self.pending.push_back(Some(Pending {
            waiter: Waiter::Future(outcome),
            route: message.mandatory.then(|| Route::of(message)),
            returned: None,
        }));
        receiver
    }

    /// As [`published`](Self::published), with a call for the outcome.
    pub(crate) fn put(
        &mut self,
        message: Publish,
        then: impl FnOnce(Publish, Result<(), PublishError>) + Send + 'static,
    ) {
        let route = message.mandatory.then(|| Route::of(&message));
        let call = move |outcome: Outcome| {
            let published = outcome.of(&message);
            then(message, published);
        };
        self.pending.push_back(Some(Pending {
            waiter: Waiter::Call(Box::new(call)),
            route,
            returned: None,
        }));
    }

    /// Forgets the message noted last: it could not be encoded.
    pub(crate) fn unpublished(&mut self) {
        self.pending.pop_back();
    }

    /// A mandatory message came back: the oldest one with that route that is still waiting.
    pub(crate) fn returned(&mut self, route: &Route, code: u16, text: String) {
        let mut waiting = self.pending.iter_mut().flatten();
        if let Some(pending) =
            waiting.find(|p| p.returned.is_none() && p.route.as_ref() == Some(route))
        {
            pending.returned = Some((code, text));
        }
    }

    /// The broker confirms `tag`, with `multiple` all up to it, with tag 0 all. `None` when it never was published, else
    /// the calls that are due.
    pub(crate) fn confirmed(
        &mut self,
        tag: u64,
        multiple: bool,
        ack: bool,
    ) -> Option<Vec<Completion>> {
        let mut due = Vec::new();
        let next = self.first + self.pending.len() as u64;
        let last = if tag == 0 && multiple { next - 1 } else { tag };
        if last >= next {
            return None;
        }
        if multiple {
            while self.first <= last {
                self.first += 1;
                due.extend(settle(self.pending.pop_front().flatten(), ack));
            }
        } else if let Some(at) = last.checked_sub(self.first)
            && let Some(slot) = usize::try_from(at)
                .ok()
                .and_then(|at| self.pending.get_mut(at))
        {
            due.extend(settle(slot.take(), ack));
        }
        while let Some(None) = self.pending.front() {
            self.pending.pop_front();
            self.first += 1;
        }
        Some(due)
    }

    /// The channel ended.
    pub(crate) fn end(&mut self, error: &Error) {
        for pending in self.pending.drain(..).flatten() {
            if let Some(due) = pending.tell(Outcome::Ended(error.clone())) {
                due.tell();
            }
        }
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }
}

impl Pending {
    fn tell(self, outcome: Outcome) -> Option<Completion> {
        match self.waiter {
            Waiter::Future(sender) => {
                // Who waited may have given up.
                let _ = sender.send(outcome);
                None
            }
            Waiter::Call(call) => Some(Completion(call, outcome)),
        }
    }
}

fn settle(pending: Option<Pending>, ack: bool) -> Option<Completion> {
    let mut pending = pending?;
    let outcome = match pending.returned.take() {
        Some((code, text)) => Outcome::Returned { code, text },
        None if ack => Outcome::Acked,
        None => Outcome::Nacked,
    };
    pending.tell(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(key: &str, mandatory: bool) -> Publish {
        Publish {
            routing_key: key.to_owned(),
            mandatory,
            ..Publish::default()
        }
    }

    #[test]
    fn confirms_one_many_and_out_of_order() {
        let mut confirms = Confirms::new();
        let mut waits: Vec<_> = (0..5)
            .map(|_| confirms.published(&message("k", false)))
            .collect();
        assert!(confirms.confirmed(2, false, true).is_some());
        assert!(matches!(waits[1].try_recv(), Ok(Outcome::Acked)));
        assert!(waits[0].try_recv().is_err());
        assert!(confirms.confirmed(3, true, false).is_some());
        assert!(matches!(waits[0].try_recv(), Ok(Outcome::Nacked)));
        assert!(matches!(waits[2].try_recv(), Ok(Outcome::Nacked)));
        assert!(
            confirms.confirmed(2, false, true).is_some(),
            "a second time is ignored"
        );
        assert!(
            confirms.confirmed(6, false, true).is_none(),
            "6 was never published"
        );
        assert!(confirms.confirmed(u64::MAX, true, true).is_none());
        assert!(confirms.confirmed(0, true, true).is_some());
        assert!(matches!(waits[4].try_recv(), Ok(Outcome::Acked)));
        assert!(confirms.is_empty());
    }

    #[test]
    fn who_does_not_wait_is_called() {
        let mut confirms = Confirms::new();
        let (told, outcomes) = std::sync::mpsc::channel();
        for key in ["a", "b", "c"] {
            let told = told.clone();
            confirms.put(message(key, false), move |message, outcome| {
                let _ = told.send((message.routing_key, outcome.is_ok()));
            });
        }
        let due = confirms.confirmed(2, true, true).unwrap_or_default();
        assert_eq!(due.len(), 2, "told by the caller, without its lock");
        due.into_iter().for_each(Completion::tell);
        confirms.end(&Error::Stopped);
        let outcomes: Vec<_> = outcomes.try_iter().collect();
        let expected = [("a", true), ("b", true), ("c", false)];
        assert_eq!(
            outcomes,
            expected.map(|(key, acked)| (key.to_owned(), acked))
        );
    }

    #[test]
    fn a_return_belongs_to_the_oldest_mandatory_message_of_its_route() {
        let mut confirms = Confirms::new();
        let mut waits: Vec<_> = [("a", true), ("b", false), ("b", true), ("b", true)]
            .map(|(key, mandatory)| confirms.published(&message(key, mandatory)))
            .into();
        confirms.returned(&Route::new("", "b", None), 312, "NO_ROUTE".into());
        confirms.returned(&Route::new("", "c", None), 312, "NO_ROUTE".into());
        assert!(confirms.confirmed(4, true, true).is_some());
        let acked: Vec<bool> = waits
            .iter_mut()
            .map(|wait| matches!(wait.try_recv(), Ok(Outcome::Acked)))
            .collect();
        assert_eq!(acked, [true, true, false, true]);
    }
}
