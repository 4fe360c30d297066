//! Tracking of a container's tasks: counted, awaited by a stop, aborted by a kill.

#[cfg(feature = "http")]
use std::task::Waker;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, ready},
};

use futures_util::future::{AbortHandle, Abortable};
use tokio::{sync::Notify, task::JoinHandle};

use crate::sync::lock;

/// A set of tasks, aborted on drop.
#[derive(Default)]
pub(crate) struct Tasks {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    running: Mutex<Running>,
    /// Notified when the last running task has ended.
    idle: Notify,
}

#[derive(Default)]
struct Running {
    /// Handles by the ids of tasks; `None` for an id in `free`.
    handles: Vec<Option<AbortHandle>>,
    free: Vec<usize>,
    /// Set by `abort`. Tasks spawned afterwards do not run.
    closed: bool,
}

impl Tasks {
    /// Spawns a task, unless `abort` was called. Large futures should be boxed, since they are
    /// moved several times.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> TaskHandle {
        let (abort, task) = self.track(task);
        let join = task.map(tokio::spawn);
        TaskHandle { abort, join }
    }

    /// Polls a task, and spawns it unless it has completed.
    #[cfg(feature = "http")]
    pub(crate) fn poll_or_spawn(
        &self,
        task: impl Future<Output = ()> + Send + Unpin + 'static,
    ) -> TaskHandle {
        let (abort, task) = self.track(task);
        let join = task.and_then(|mut task| {
            // Spawned, it is polled again.
            let mut context = Context::from_waker(Waker::noop());
            let poll = Pin::new(&mut task).poll(&mut context);
            poll.is_pending().then(|| tokio::spawn(task))
        });
        TaskHandle { abort, join }
    }

    /// Adds a task for the caller to run. Returns `None` in its place if `abort` was called.
    pub(crate) fn track<F>(&self, task: F) -> (AbortHandle, Option<Tracked<F>>)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (abort, registration) = AbortHandle::new_pair();
        let id = {
            let mut running = self.shared.lock();
            if running.closed {
                return (abort, None);
            }
            running.insert(abort.clone())
        };
        let entry = Entry {
            shared: self.shared.clone(),
            id,
        };
        let tracked = Tracked {
            task: Some(Abortable::new(task, registration)),
            entry: Some(entry),
        };
        (abort, Some(tracked))
    }

    /// Returns the number of running tasks.
    pub(crate) fn running(&self) -> usize {
        self.shared.lock().count()
    }

    /// Waits until no task is running.
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

    /// Aborts all running tasks and rejects new ones.
    pub(crate) fn abort(&self) {
        let handles: Vec<_> = {
            let mut running = self.shared.lock();
            running.closed = true;
            running.handles.iter().flatten().cloned().collect()
        };
        handles.iter().for_each(AbortHandle::abort);
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.abort();
    }
}

impl Running {
    /// Returns the id of the task.
    fn insert(&mut self, handle: AbortHandle) -> usize {
        let free = self.free.pop();
        match free.and_then(|id| Some((id, self.handles.get_mut(id)?))) {
            Some((id, slot)) => {
                *slot = Some(handle);
                id
            }
            None => {
                self.handles.push(Some(handle));
                self.handles.len() - 1
            }
        }
    }

    fn remove(&mut self, id: usize) {
        if let Some(slot) = self.handles.get_mut(id) {
            *slot = None;
            self.free.push(id);
        }
    }

    fn count(&self) -> usize {
        self.handles.len() - self.free.len()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Running> {
        lock(&self.running)
    }
}

pin_project_lite::pin_project! {
    /// A task in the table.
    pub(crate) struct Tracked<F> {
        // `None` once it has ended.
        #[pin]
        task: Option<Abortable<F>>,
        // Dropped after the task.
        entry: Option<Entry>,
    }
}

impl<F: Future<Output = ()>> Future for Tracked<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        if let Some(task) = this.task.as_mut().as_pin_mut() {
            // An error means that it was aborted, by its owner.
            let _ = ready!(task.poll(context));
        }
        this.task.set(None);
        *this.entry = None;
        Poll::Ready(())
    }
}

/// An entry in the table of tasks, removed on drop.
struct Entry {
    shared: Arc<Shared>,
    id: usize,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut running = self.shared.lock();
        running.remove(self.id);
        if running.count() == 0 {
            self.shared.idle.notify_waiters();
        }
    }
}

/// A handle to a task of a container. Dropping it detaches: the container owns the task.
pub struct TaskHandle {
    abort: AbortHandle,
    /// `None` after a wait, or if the container had ended before the spawn.
    join: Option<JoinHandle<()>>,
}

impl TaskHandle {
    /// Aborts the task at its next await point. This does not count as a failure.
    pub fn abort(&self) {
        self.abort.abort();
    }

    /// Returns `true` if the task has ended, for any reason.
    pub fn is_finished(&self) -> bool {
        self.join.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until the task has ended, for any reason.
    pub async fn wait(&mut self) {
        if let Some(join) = &mut self.join {
            // An error is a panic, which the container handles.
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
