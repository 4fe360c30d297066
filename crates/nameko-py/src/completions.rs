//! Wake-up of an asyncio loop: a file descriptor is readable while callbacks are due.

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};

use nameko::internal::lock;
use pyo3::prelude::*;

/// The callbacks of one asyncio loop, read with `loop.add_reader(completions.fileno(), ...)`.
#[pyclass(frozen, module = "nameko._nameko")]
pub(crate) struct Completions {
    pub(crate) waker: Arc<LoopWaker>,
}

#[pymethods]
impl Completions {
    #[new]
    fn new() -> PyResult<Self> {
        let (reader, writer) = std::io::pipe()?;
        Ok(Completions {
            waker: Arc::new(LoopWaker {
                state: Mutex::default(),
                reader,
                writer,
            }),
        })
    }

    /// Returns a file descriptor that is readable while callbacks are due.
    fn fileno(&self) -> i32 {
        self.waker.reader.as_raw_fd()
    }

    /// Takes the callbacks that are due, to be called.
    fn take(&self) -> std::io::Result<Vec<Py<PyAny>>> {
        self.waker.take()
    }
}

/// The queue of callbacks that are due. Any thread may push.
pub(crate) struct LoopWaker {
    state: Mutex<State>,
    reader: PipeReader,
    writer: PipeWriter,
}

#[derive(Default)]
struct State {
    callbacks: Vec<Py<PyAny>>,
    /// Whether a byte is in the pipe. There is at most one, so that neither end ever blocks.
    signalled: bool,
}

impl LoopWaker {
    pub(crate) fn push(&self, callback: Py<PyAny>) {
        let mut state = lock(&self.state);
        state.callbacks.push(callback);
        if !state.signalled {
            // `self` holds both ends, so the pipe is not broken. After a failure the next push
            // tries again.
            state.signalled = (&self.writer).write_all(&[1]).is_ok();
        }
    }

    fn take(&self) -> std::io::Result<Vec<Py<PyAny>>> {
        let mut state = lock(&self.state);
        if state.signalled {
            (&self.reader).read_exact(&mut [0])?;
            state.signalled = false;
        }
        Ok(std::mem::take(&mut state.callbacks))
    }
}
