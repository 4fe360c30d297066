//! Wakes an asyncio loop: a file descriptor is readable while callbacks are due.

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};

use pyo3::prelude::*;

use crate::lock::lock;

/// `loop.add_reader(completions.fileno(), completions.run)`.
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

    /// Readable while callbacks are due.
    fn fileno(&self) -> i32 {
        self.waker.reader.as_raw_fd()
    }

    /// Calls the callbacks that are due, on this thread. What one raises goes to `sys.unraisablehook`.
    fn run(&self, py: Python<'_>) -> PyResult<()> {
        for callback in self.waker.take()? {
            if let Err(error) = callback.call0(py) {
                error.write_unraisable(py, Some(callback.bind(py)));
            }
        }
        Ok(())
    }
}

/// The callbacks that are due. Any thread may add one.
pub(crate) struct LoopWaker {
    state: Mutex<State>,
    reader: PipeReader,
    writer: PipeWriter,
}

#[derive(Default)]
struct State {
    callbacks: Vec<Py<PyAny>>,
    /// One byte is in the pipe. There is never more than one, so that neither end ever blocks.
    signalled: bool,
}

impl LoopWaker {
    pub(crate) fn push(&self, callback: Py<PyAny>) {
        let mut state = lock(&self.state);
        state.callbacks.push(callback);
        if !state.signalled {
            // Both ends live in `self`, so the pipe is not broken; should it fail, the next push tries again.
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
