//! Moves connections from a runtime whose threads are blocked to a thread of their own.
//!
//! A connection runs as a task of the runtime that opened it, next to the code that uses it: no
//! message crosses threads. If that code blocks the runtime's threads, nobody reads, writes or
//! sends heartbeats. The future of a connection is therefore kept outside its task. Another task,
//! on the I/O thread, can take over between two polls, with the socket registered there.

use std::{
    future::{Future, pending},
    pin::Pin,
    sync::{Arc, Mutex, OnceLock, TryLockError, Weak},
    task::{Context, Poll},
    thread,
};

use tokio::{
    runtime::{self, Builder, Handle},
    task::AbortHandle,
};

use crate::{
    connection_state::ConnectionState, driver::heartbeat_loop, error::Error, socket::Socket,
    sync::lock,
};

/// The running connections of this process, and the runtimes whose connections have moved.
static CONNECTIONS: Mutex<Connections> = Mutex::new(Connections {
    running: Vec::new(),
    moved: Vec::new(),
});

struct Connections {
    running: Vec<Weak<Driver>>,
    moved: Vec<runtime::Id>,
}

/// Moves the connections that were opened on `runtime` to the I/O thread, and opens later ones
/// there. For a runtime whose threads are blocked.
///
/// Sinks and callbacks are called on the I/O thread from then on, in the context of `runtime`:
/// tasks that they spawn run on `runtime`.
///
/// Returns `false` if a connection could not be moved yet, as a sink or callback blocks it.
pub fn move_connections(runtime: runtime::Id) -> bool {
    let drivers: Vec<_> = {
        let mut connections = lock(&CONNECTIONS);
        if !connections.moved.contains(&runtime) {
            connections.moved.push(runtime);
        }
        connections
            .running
            .retain(|driver| driver.strong_count() > 0);
        connections
            .running
            .iter()
            .filter_map(Weak::upgrade)
            .collect()
    };
    let mut all_moved = true;
    for driver in drivers {
        if driver.home.id() == runtime {
            all_moved &= driver.move_to_io_thread();
        }
    }
    all_moved
}

/// Returns the runtime of the I/O thread, started on first use. `None` if the system has no thread
/// or event queue left.
fn io_thread() -> Option<&'static Handle> {
    static IO: OnceLock<Option<Handle>> = OnceLock::new();
    IO.get_or_init(|| {
        let runtime = Builder::new_current_thread().enable_all().build().ok()?;
        let handle = runtime.handle().clone();
        thread::Builder::new()
            .name("nameko-amqp-io".into())
            .spawn(move || runtime.block_on(pending::<()>()))
            .ok()?;
        Some(handle)
    })
    .as_ref()
}

/// Spawns a connection on the current runtime, or on the I/O thread if the connections of this
/// runtime have moved there.
///
/// `io` reads and writes; its end is the end of the connection.
pub(crate) fn spawn(
    connection: Arc<ConnectionState>,
    socket: Socket,
    io: impl Future<Output = ()> + Send + 'static,
) {
    let driver = Arc::new(Driver {
        home: Handle::current(),
        socket,
        futures: Mutex::new(Some(Futures {
            io: Box::pin(io),
            heartbeat: Box::pin(heartbeat(Arc::clone(&connection))),
        })),
        task: OnceLock::new(),
        moved: OnceLock::new(),
        connection,
    });
    let task = tokio::spawn(Task {
        driver: Arc::clone(&driver),
        moved: false,
    });
    let _ = driver.task.set(task.abort_handle());
    let moved = {
        let mut connections = lock(&CONNECTIONS);
        connections
            .running
            .retain(|driver| driver.strong_count() > 0);
        connections.running.push(Arc::downgrade(&driver));
        connections.moved.contains(&driver.home.id())
    };
    if moved {
        driver.move_to_io_thread();
    }
}

/// A connection, run by one task at a time.
struct Driver {
    connection: Arc<ConnectionState>,
    /// The runtime that opened the connection.
    home: Handle,
    socket: Socket,
    /// `None` once the connection has ended.
    futures: Mutex<Option<Futures>>,
    /// The task on `home`.
    task: OnceLock<AbortHandle>,
    /// Set once the I/O thread runs the connection.
    moved: OnceLock<()>,
}

struct Futures {
    io: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Apart from `io`, since its timers belong to a runtime.
    heartbeat: Pin<Box<dyn Future<Output = Error> + Send>>,
}

async fn heartbeat(connection: Arc<ConnectionState>) -> Error {
    heartbeat_loop(&connection).await
}

impl Driver {
    /// Lets the I/O thread run the connection. Returns `false` if it is being polled.
    fn move_to_io_thread(self: &Arc<Self>) -> bool {
        let mut futures = match self.futures.try_lock() {
            Ok(futures) => futures,
            Err(TryLockError::Poisoned(futures)) => futures.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        let (Some(running), Some(io_thread)) = (futures.as_mut(), io_thread()) else {
            return true;
        };
        if self.moved.get().is_some() {
            return true;
        }
        let registered = {
            let _context = io_thread.enter();
            self.socket.register_here()
        };
        if registered.is_err() {
            return true;
        }
        running.heartbeat = Box::pin(heartbeat(Arc::clone(&self.connection)));
        let _ = self.moved.set(());
        drop(futures);
        io_thread.spawn(Task {
            driver: Arc::clone(self),
            moved: true,
        });
        if let Some(task) = self.task.get() {
            task.abort();
        }
        true
    }
}

/// The task of a connection: on its home, or on the I/O thread after it has moved.
struct Task {
    driver: Arc<Driver>,
    moved: bool,
}

impl Future for Task {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let driver = &*self.driver;
        let mut slot = lock(&driver.futures);
        if !self.is_runner() {
            return Poll::Ready(());
        }
        let Some(futures) = slot.as_mut() else {
            return Poll::Ready(());
        };
        if let Poll::Ready(error) = futures.heartbeat.as_mut().poll(context) {
            futures.heartbeat = Box::pin(pending());
            driver.connection.abort_with(error);
        }
        let polled = {
            // Sinks and callbacks spawn tasks.
            let _context = self.moved.then(|| driver.home.enter());
            futures.io.as_mut().poll(context)
        };
        if polled.is_ready() {
            *slot = None;
        }
        polled
    }
}

impl Task {
    /// Whether this task runs the connection: the first before a move, the second after it.
    fn is_runner(&self) -> bool {
        self.moved == self.driver.moved.get().is_some()
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let mut slot = lock(&self.driver.futures);
        if self.is_runner() {
            // Not dropped under the lock: that calls callbacks.
            let futures = slot.take();
            drop(slot);
            drop(futures);
        }
    }
}
