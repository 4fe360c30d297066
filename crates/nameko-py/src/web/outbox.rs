//! Responses on their way from worker threads to the I/O thread.

use std::sync::{Arc, Mutex};

use nameko::internal::lock;
use nameko::web::Response;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::jobs;
use crate::reply_batch::Held;
use crate::web::request::Claims;

/// The responses of one server that are complete. The I/O thread is woken once for those of several
/// short jobs.
pub(crate) struct Outbox {
    answers: Mutex<Vec<Answer>>,
    runtime: Handle,
}

/// A response, and the task that waits for it.
pub(super) struct Answer {
    pub(super) reply: oneshot::Sender<Response>,
    pub(super) response: Response,
    /// Held until the response is sent.
    pub(super) _claims: Option<Claims>,
}

impl Outbox {
    pub(super) fn new(runtime: Handle) -> Arc<Self> {
        Arc::new(Outbox {
            answers: Mutex::default(),
            runtime,
        })
    }

    /// Sends a response after the job of this thread.
    pub(super) fn push(self: &Arc<Self>, answer: Answer) {
        lock(&self.answers).push(answer);
        jobs::flush_after_job(Held::Responses(self.clone()));
    }

    /// Passes the responses to the I/O thread.
    pub(crate) fn flush(&self) {
        let mut answers = std::mem::take(&mut *lock(&self.answers));
        if answers.len() > 1 {
            self.runtime
                .spawn(async move { answers.into_iter().for_each(Answer::send) });
        } else if let Some(answer) = answers.pop() {
            answer.send();
        }
    }
}

impl Answer {
    /// Sends the response. Has no effect if the client has disconnected.
    fn send(self) {
        let _ = self.reply.send(self.response);
    }
}
