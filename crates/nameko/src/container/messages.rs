//! The threads that run the workers of messages.

use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::runtime::Handle;

use super::{Container, guarded::Guarded, method::MethodHandle};
use crate::{amqp, tasks::Tracked};

thread_local! {
    /// Whether this thread was started for one worker.
    static OWN_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// Returns whether the current thread runs one worker and nothing else.
pub(crate) fn is_own_thread() -> bool {
    OWN_THREAD.get()
}

impl Container {
    /// Runs the task of a message in the sink of its queue. Like [`spawn`](Self::spawn), but on
    /// the I/O thread as long as `method`, which the task calls, has been short: no other thread is
    /// woken then. Each worker of a method that blocks has a thread of its own.
    pub(crate) fn spawn_message(
        &self,
        method: &MethodHandle,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let (_, Some(task)) = self.inner.workers.track(self.guarded(task)) else {
            return;
        };
        let task = Box::pin(MessageTask {
            container: self.clone(),
            method: method.index,
            task: Some(task),
            is_placed: false,
        });
        if let Err(task) = amqp::run_on_io_thread(task) {
            tokio::spawn(task);
        }
    }
}

/// The task of a message, which chooses its thread at the first poll.
struct MessageTask {
    container: Container,
    method: usize,
    /// `None` once it has moved to a thread of its own.
    task: Option<Tracked<Guarded>>,
    is_placed: bool,
}

impl Future for MessageTask {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if !this.is_placed
            && let Some(pace) = this.container.watch().pace(this.method)
        {
            if pace.blocks()
                && let Some(task) = this.task.take()
            {
                run_on_own_thread(task);
                return Poll::Ready(());
            }
            let may_stay = |average| amqp::reserve_io_time(average);
            if amqp::io_thread_id().is_some() && !pace.short().is_some_and(may_stay) {
                // The I/O thread passes it to the runtime.
                return Poll::Pending;
            }
        }
        this.is_placed = true;
        match &mut this.task {
            Some(task) => Pin::new(task).poll(context),
            None => Poll::Ready(()),
        }
    }
}

/// Runs a task in the context of the current runtime, on a thread outside of its workers.
fn run_on_own_thread(task: Tracked<Guarded>) {
    let runtime = Handle::current();
    let run = {
        let runtime = runtime.clone();
        move || {
            OWN_THREAD.set(true);
            runtime.block_on(task);
            OWN_THREAD.set(false);
        }
    };
    drop(runtime.spawn_blocking(run));
}
