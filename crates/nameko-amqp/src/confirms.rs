//! Publisher confirms: matches the broker's confirms and returns with published messages.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use crate::{
    error::{Error, PublishError},
    message::Publish,
};

/// Result of publishing a message in confirm mode.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The broker has accepted the message.
    Acked,
    /// The broker has not accepted the message.
    Nacked,
    /// The message was mandatory and unroutable.
    Returned {
        /// AMQP reply code.
        code: u16,
        /// Reply text.
        text: String,
    },
    /// The channel or connection ended before a confirm.
    Closed(Error),
}

impl Outcome {
    /// Converts to the result of publishing `message`.
    pub(crate) fn into_result(self, message: &Publish) -> Result<(), PublishError> {
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
            Outcome::Closed(error) => Err(error.into()),
        }
    }
}

/// Key that matches a `basic.return` with its publish.
///
/// A return precedes the confirm of the same message but does not carry its number.
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

type Callback = Box<dyn FnOnce(Outcome) + Send>;

/// Receiver of an outcome.
enum Waiter {
    Future(oneshot::Sender<Outcome>),
    Callback(Callback),
}

/// A callback with its outcome, to be called without holding a lock.
pub(crate) struct Completion(Callback, Outcome);

impl Completion {
    pub(crate) fn call(self) {
        (self.0)(self.1);
    }
}

struct Unconfirmed {
    waiter: Waiter,
    /// Set for a mandatory message.
    route: Option<Route>,
    /// Reply code and text of a `basic.return`.
    returned: Option<(u16, String)>,
}

/// The unconfirmed messages of one channel, in the order of publishing.
pub(crate) struct Confirms {
    /// Number of the first message in `unconfirmed`. The broker numbers messages from 1.
    first: u64,
    /// `None` for a message that was confirmed out of order.
    unconfirmed: VecDeque<Option<Unconfirmed>>,
}

impl Confirms {
    pub(crate) fn new() -> Self {
        Self {
            first: 1,
            unconfirmed: VecDeque::new(),
        }
    }

    /// Adds the next message to be sent.
    pub(crate) fn add(&mut self, message: &Publish) -> oneshot::Receiver<Outcome> {
        let (outcome, receiver) = oneshot::channel();
        self.unconfirmed.push_back(Some(Unconfirmed {
            waiter: Waiter::Future(outcome),
            route: message.mandatory.then(|| Route::of(message)),
            returned: None,
        }));
        receiver
    }

    /// Like [`add`](Self::add), with a callback for the outcome.
    pub(crate) fn add_with_callback(
        &mut self,
        message: Publish,
        callback: impl FnOnce(Publish, Result<(), PublishError>) + Send + 'static,
    ) {
        let route = message.mandatory.then(|| Route::of(&message));
        let callback = move |outcome: Outcome| {
            let result = outcome.into_result(&message);
            callback(message, result);
        };
        self.unconfirmed.push_back(Some(Unconfirmed {
            waiter: Waiter::Callback(Box::new(callback)),
            route,
            returned: None,
        }));
    }

    /// Removes the message added last, which could not be encoded.
    pub(crate) fn undo_add(&mut self) {
        self.unconfirmed.pop_back();
    }

    /// Records a `basic.return` for the oldest mandatory message with this route.
    pub(crate) fn returned(&mut self, route: &Route, code: u16, text: String) {
        let mut candidates = self.unconfirmed.iter_mut().flatten();
        if let Some(message) = candidates
            .find(|message| message.returned.is_none() && message.route.as_ref() == Some(route))
        {
            message.returned = Some((code, text));
        }
    }

    /// Records a confirm of message `tag`, with `multiple` of all messages up to it. Tag 0 with
    /// `multiple` confirms all messages.
    ///
    /// Returns the callbacks to call, `None` if the message was never published.
    pub(crate) fn confirmed(
        &mut self,
        tag: u64,
        multiple: bool,
        ack: bool,
    ) -> Option<Vec<Completion>> {
        let mut completions = Vec::new();
        let next = self.first + self.unconfirmed.len() as u64;
        let last = if tag == 0 && multiple { next - 1 } else { tag };
        if last >= next {
            return None;
        }
        if multiple {
            while self.first <= last {
                self.first += 1;
                completions.extend(settle(self.unconfirmed.pop_front().flatten(), ack));
            }
        } else if let Some(index) = last.checked_sub(self.first)
            && let Some(slot) = usize::try_from(index)
                .ok()
                .and_then(|index| self.unconfirmed.get_mut(index))
        {
            completions.extend(settle(slot.take(), ack));
        }
        while let Some(None) = self.unconfirmed.front() {
            self.unconfirmed.pop_front();
            self.first += 1;
        }
        Some(completions)
    }

    /// Completes all messages with `error`: the channel is closed.
    pub(crate) fn close(&mut self, error: &Error) {
        for message in self.unconfirmed.drain(..).flatten() {
            if let Some(completion) = message.complete(Outcome::Closed(error.clone())) {
                completion.call();
            }
        }
    }

    /// Returns whether all messages are confirmed.
    pub(crate) fn is_empty(&self) -> bool {
        self.unconfirmed.is_empty()
    }
}

impl Unconfirmed {
    /// Completes a future at once and returns a callback for the caller to call.
    fn complete(self, outcome: Outcome) -> Option<Completion> {
        match self.waiter {
            Waiter::Future(sender) => {
                // Fails if the future was dropped.
                let _ = sender.send(outcome);
                None
            }
            Waiter::Callback(callback) => Some(Completion(callback, outcome)),
        }
    }
}

fn settle(message: Option<Unconfirmed>, ack: bool) -> Option<Completion> {
    let mut message = message?;
    let outcome = match message.returned.take() {
        Some((code, text)) => Outcome::Returned { code, text },
        None if ack => Outcome::Acked,
        None => Outcome::Nacked,
    };
    message.complete(outcome)
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
        let mut outcomes: Vec<_> = (0..5).map(|_| confirms.add(&message("k", false))).collect();
        assert!(confirms.confirmed(2, false, true).is_some());
        assert!(matches!(outcomes[1].try_recv(), Ok(Outcome::Acked)));
        assert!(outcomes[0].try_recv().is_err());
        assert!(confirms.confirmed(3, true, false).is_some());
        assert!(matches!(outcomes[0].try_recv(), Ok(Outcome::Nacked)));
        assert!(matches!(outcomes[2].try_recv(), Ok(Outcome::Nacked)));
        assert!(
            confirms.confirmed(2, false, true).is_some(),
            "a repeated confirm is ignored"
        );
        assert!(
            confirms.confirmed(6, false, true).is_none(),
            "6 was never published"
        );
        assert!(confirms.confirmed(u64::MAX, true, true).is_none());
        assert!(confirms.confirmed(0, true, true).is_some());
        assert!(matches!(outcomes[4].try_recv(), Ok(Outcome::Acked)));
        assert!(confirms.is_empty());
    }

    #[test]
    fn callbacks_get_their_message_and_outcome() {
        let mut confirms = Confirms::new();
        let (sender, outcomes) = std::sync::mpsc::channel();
        for key in ["a", "b", "c"] {
            let sender = sender.clone();
            confirms.add_with_callback(message(key, false), move |message, outcome| {
                let _ = sender.send((message.routing_key, outcome.is_ok()));
            });
        }
        let completions = confirms.confirmed(2, true, true).unwrap_or_default();
        assert_eq!(completions.len(), 2, "returned to be called without a lock");
        completions.into_iter().for_each(Completion::call);
        confirms.close(&Error::Stopped);
        let outcomes: Vec<_> = outcomes.try_iter().collect();
        let expected = [("a", true), ("b", true), ("c", false)];
        assert_eq!(
            outcomes,
            expected.map(|(key, acked)| (key.to_owned(), acked))
        );
    }

    #[test]
    fn a_return_matches_the_oldest_mandatory_message_of_its_route() {
        let mut confirms = Confirms::new();
        let mut outcomes: Vec<_> = [("a", true), ("b", false), ("b", true), ("b", true)]
            .map(|(key, mandatory)| confirms.add(&message(key, mandatory)))
            .into();
        confirms.returned(&Route::new("", "b", None), 312, "NO_ROUTE".into());
        confirms.returned(&Route::new("", "c", None), 312, "NO_ROUTE".into());
        assert!(confirms.confirmed(4, true, true).is_some());
        let acked: Vec<bool> = outcomes
            .iter_mut()
            .map(|outcome| matches!(outcome.try_recv(), Ok(Outcome::Acked)))
            .collect();
        assert_eq!(acked, [true, true, false, true]);
    }
}
