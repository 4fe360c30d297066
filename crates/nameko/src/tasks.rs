//! The tasks of a container: counted, awaited at its stop, dropped at its kill.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    sync::{Arc, Mutex, MutexGuard},
};

use futures_util::{
    FutureExt,
    future::{AbortHandle, Abortable},
};
use tokio::{sync::Notify, task::JoinHandle};

use crate::sync::lock;

/// Tasks that end with their owner.
#[derive(Default)]
pub(crate) struct Tasks {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    running: Mutex<Running>,
    /// Told when the last running task has ended.
    idle: Notify,
}

#[derive(Default)]
struct Running {
    next: u64,
    handles: HashMap<u64, AbortHandle>,
    /// Set by `abort`: what is spawned afterwards does not run.
    closed: bool,
}

impl Tasks {
    /// Runs `task`, unless everything was aborted before. A large one is best boxed: it is moved several times on its way.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> TaskHandle {
        let (abort, registration) = AbortHandle::new_pair();
        let id = {
            let mut running = self.shared.lock();
            if running.closed {
                return TaskHandle { abort, join: None };
            }
            let id = running.next;
            running.next += 1;
            running.handles.insert(id, abort.clone());
            id
        };
        let entry = Entry {
            shared: self.shared.clone(),
            id,
        };
        // An abort is the owner's wish, and needs no answer. The task is gone when its entry goes.
        let join = tokio::spawn(Abortable::new(task, registration).map(|_| drop(entry)));
        TaskHandle {
            abort,
            join: Some(join),
        }
    }

    /// How many run.
    pub(crate) fn running(&self) -> usize {
        self.shared.lock().handles.len()
    }

    /// Returns when none runs.
    pub(crate) async fn finished(&self) {
        loop {
            let idle = self.shared.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            if self.running() == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Drops all that run, and runs no more.
    pub(crate) fn abort(&self) {
        let handles: Vec<_> = {
            let mut running = self.shared.lock();
            running.closed = true;
            running.handles.values().cloned().collect()
        };
        handles.iter().for_each(AbortHandle::abort);
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.abort();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Running> {
        lock(&self.running)
    }
}

/// A task's place in the table; leaves it however the task ends.
struct Entry {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut running = self.shared.lock();
        running.handles.remove(&self.id);
        if running.handles.is_empty() {
            self.shared.idle.notify_waiters();
        }
    }
}

/// A task that a container runs. Dropping the handle changes nothing: the task belongs to the container.
pub struct TaskHandle {
    abort: AbortHandle,
    /// `None` when it was waited for, or never ran because the container had ended before.
    join: Option<JoinHandle<()>>,
}

impl TaskHandle {
    /// Ends the task where it waits next. It takes what it holds with it, and its end is no failure.
    pub fn abort(&self) {
        self.abort.abort();
    }

    /// Whether it has ended, in whichever way.
    pub fn is_finished(&self) -> bool {
        self.join.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Returns when the task has ended, in whichever way.
    pub async fn wait(&mut self) {
        if let Some(join) = &mut self.join {
            // The only error is a panic, which its container has heard of.
            let _ = join.await;
            self.join = None;
        }
    }
}

impl fmt::Debug for TaskHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskHandle")
            .field("finished", &self.is_finished())
            .finish()
    }
}
