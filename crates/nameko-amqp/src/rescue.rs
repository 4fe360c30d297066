//! Moves connections between threads.
//!
//! A connection of a runtime with one thread runs as a task of it, next to the code that uses it:
//! no message crosses threads. Connections of other runtimes run on the I/O thread. If code blocks
//! the thread of a connection, nobody reads, writes or sends heartbeats. The future of a connection
//! is therefore kept outside its task. Another task, on a new I/O thread, can take over between two
//! polls, with the socket registered there.

use std::{
    future::{Future, pending},
    pin::Pin,
    sync::{
        Arc, Mutex, TryLockError, Weak,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
};

use tokio::{
    runtime::{self, Handle, RuntimeFlavor},
    task::AbortHandle,
};

use crate::{
    connection_state::ConnectionState,
    driver::heartbeat_loop,
    error::Error,
    io_thread::{self, IoThread, IoThreadId},
    socket::Socket,
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

impl Connections {
    /// Returns the drivers of the running connections.
    fn drivers(&mut self) -> Vec<Arc<Driver>> {
        self.running.retain(|driver| driver.strong_count() > 0);
        self.running.iter().filter_map(Weak::upgrade).collect()
    }
}

/// Moves the connections that were opened on `runtime` to the I/O thread, and opens later ones
/// there. For a runtime whose only thread is blocked.
///
/// Sinks and callbacks are called on the I/O thread from then on, in the context of `runtime`:
/// tasks that they spawn run on `runtime`.
///
/// Returns `false` if a connection could not be moved yet, as a sink or callback blocks it.
pub fn move_connections(runtime: runtime::Id) -> bool {
    let drivers = {
        let mut connections = lock(&CONNECTIONS);
        if !connections.moved.contains(&runtime) {
            connections.moved.push(runtime);
        }
        connections.drivers()
    };
    let Some(thread) = io_thread::active() else {
        return true;
    };
    let mut all_moved = true;
    for driver in drivers {
        if driver.home().id() == runtime && driver.place() == HOME {
            all_moved &= driver.move_to(&thread);
        }
    }
    all_moved
}

/// Replaces an I/O thread that is blocked by a task. Its connections and other tasks move to the
/// next one.
///
/// Returns `false` if a connection could not be moved yet, as a sink or callback blocks it.
pub fn leave_io_thread(blocked: IoThreadId) -> bool {
    let Some(thread) = io_thread::replace(blocked) else {
        return true;
    };
    let drivers = lock(&CONNECTIONS).drivers();
    let mut all_moved = true;
    for driver in drivers {
        if driver.place() != HOME {
            all_moved &= driver.move_to(&thread);
        }
    }
    all_moved
}

/// Spawns a connection: on the current runtime if that has one thread, else on the I/O thread.
///
/// `io` reads and writes; its end is the end of the connection.
pub(crate) fn spawn(
    connection: Arc<ConnectionState>,
    socket: Socket,
    io: impl Future<Output = ()> + Send + 'static,
) {
    let driver = Arc::new(Driver {
        socket,
        futures: Mutex::new(Some(Futures {
            io: Box::pin(io),
            heartbeat: Box::pin(heartbeat(Arc::clone(&connection))),
        })),
        place: AtomicU32::new(HOME),
        task: Mutex::new(None),
        connection,
    });
    let moved = {
        let mut connections = lock(&CONNECTIONS);
        connections
            .running
            .retain(|driver| driver.strong_count() > 0);
        connections.running.push(Arc::downgrade(&driver));
        connections.moved.contains(&driver.home().id())
    };
    if moved || driver.home().runtime_flavor() == RuntimeFlavor::MultiThread {
        // Again if the I/O thread is replaced meanwhile.
        while let Some(thread) = io_thread::active()
            && thread.number() != driver.place()
            && driver.move_to(&thread)
            && driver.place() != HOME
        {}
    }
    if driver.place() == HOME {
        driver.run_on(HOME, driver.home());
    }
}

/// Place of a connection that runs on its home; the others are numbers of I/O threads.
const HOME: u32 = 0;

/// A connection, run by one task at a time.
struct Driver {
    connection: Arc<ConnectionState>,
    socket: Socket,
    /// `None` once the connection has ended.
    futures: Mutex<Option<Futures>>,
    /// The thread that runs the connection.
    place: AtomicU32,
    /// The task that runs it.
    task: Mutex<Option<AbortHandle>>,
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
    fn home(&self) -> &Handle {
        &self.connection.home
    }

    fn place(&self) -> u32 {
        self.place.load(Ordering::Acquire)
    }

    /// Lets an I/O thread run the connection, unless the socket cannot be registered there. Returns
    /// `false` if it is being polled.
    fn move_to(self: &Arc<Self>, thread: &IoThread) -> bool {
        if self.place() == thread.number() {
            return true;
        }
        let mut futures = match self.futures.try_lock() {
            Ok(futures) => futures,
            Err(TryLockError::Poisoned(futures)) => futures.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        let Some(running) = futures.as_mut() else {
            return true;
        };
        let registered = {
            let _context = thread.handle().enter();
            self.socket.register_here()
        };
        if registered.is_err() {
            return true;
        }
        running.heartbeat = Box::pin(heartbeat(Arc::clone(&self.connection)));
        self.place.store(thread.number(), Ordering::Release);
        self.run_on(thread.number(), thread.handle());
        drop(futures);
        true
    }

    /// Spawns the task that runs the connection, in place of the previous one.
    fn run_on(self: &Arc<Self>, place: u32, runtime: &Handle) {
        let task = runtime.spawn(Task {
            driver: Arc::clone(self),
            place,
        });
        if let Some(previous) = lock(&self.task).replace(task.abort_handle()) {
            previous.abort();
        }
    }
}

/// The task of a connection, one per place.
struct Task {
    driver: Arc<Driver>,
    place: u32,
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
        let polled = futures.io.as_mut().poll(context);
        if polled.is_ready() {
            *slot = None;
        }
        // The tasks must not keep the connection from moving.
        drop(slot);
        io_thread::poll_overdue();
        polled
    }
}

impl Task {
    /// Whether this task runs the connection, which has not moved on.
    fn is_runner(&self) -> bool {
        self.place == self.driver.place()
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
