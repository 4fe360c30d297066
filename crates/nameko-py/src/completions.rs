//! Wake-up of an asyncio loop: a file descriptor is readable while items are queued for it.

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};

use nameko::internal::lock;
use pyo3::prelude::*;

/// The callbacks of one asyncio loop, read with `loop.add_reader(completions.fileno(), ...)`.
#[pyclass(frozen, module = "nameko._nameko")]
pub(crate) struct Completions {
    pub(crate) waker: Arc<CallbackQueue>,
}

/// The callbacks that are due on a loop.
pub(crate) type CallbackQueue = LoopQueue<Py<PyAny>>;

#[pymethods]
impl Completions {
    #[new]
    fn new() -> PyResult<Self> {
        Ok(Completions {
            waker: Arc::new(LoopQueue::new()?),
        })
    }

    /// Returns a file descriptor that is readable while callbacks are due.
    fn fileno(&self) -> i32 {
        self.waker.fileno()
    }

    /// Takes the callbacks that are due, to be called.
    fn take(&self) -> std::io::Result<Vec<Py<PyAny>>> {
        self.waker.take()
    }
}

/// A queue that an asyncio loop reads. Any thread may push.
pub(crate) struct LoopQueue<T> {
    state: Mutex<State<T>>,
    reader: PipeReader,
    writer: PipeWriter,
}

struct State<T> {
    items: Vec<T>,
    /// Whether a byte is in the pipe. There is at most one, so that neither end ever blocks.
    signalled: bool,
}

impl<T> LoopQueue<T> {
    /// # Errors
    ///
    /// If the operating system provides no pipe.
    pub(crate) fn new() -> std::io::Result<Self> {
        let (reader, writer) = std::io::pipe()?;
        Ok(LoopQueue {
            state: Mutex::new(State {
                items: Vec::new(),
                signalled: false,
            }),
            reader,
            writer,
        })
    }

    pub(crate) fn push(&self, item: T) {
        let mut state = lock(&self.state);
        state.items.push(item);
        if !state.signalled {
            // `self` holds both ends, so the pipe is not broken. After a failure the next push
            // tries again.
            state.signalled = (&self.writer).write_all(&[1]).is_ok();
        }
    }

    /// Takes all items.
    ///
    /// # Errors
    ///
    /// If the pipe cannot be read.
    pub(crate) fn take(&self) -> std::io::Result<Vec<T>> {
        let mut state = lock(&self.state);
        if state.signalled {
            (&self.reader).read_exact(&mut [0])?;
            state.signalled = false;
        }
        Ok(std::mem::take(&mut state.items))
    }

    /// Returns a file descriptor that is readable while there are items.
    pub(crate) fn fileno(&self) -> i32 {
        self.reader.as_raw_fd()
    }
}
