//! Python's handle on the state machine of `nameko run --workers`, [`nameko::supervisor`].

use std::time::Instant;

use nameko::supervisor::{self, Action, Exit};
use pyo3::prelude::*;

/// The processes of one supervisor, numbered from 1.
#[pyclass(module = "nameko._nameko")]
pub(crate) struct ProcessTable(supervisor::ProcessTable);

/// A return code as in `subprocess`, or the reason why a process could not be started.
#[derive(FromPyObject)]
enum Ended {
    ReturnCode(i32),
    NotStarted(String),
}

#[pymethods]
impl ProcessTable {
    #[new]
    fn new(count: u16) -> Self {
        Self(supervisor::ProcessTable::new(count))
    }

    fn started(&mut self, number: u16) {
        self.0.started(number);
    }

    fn ready(&mut self, number: u16) -> bool {
        self.0.ready(number, Instant::now())
    }

    fn restarted(&mut self, number: u16) {
        self.0.restarted(number);
    }

    /// Returns the message to log and the seconds until the restart, if there are any.
    fn ended(&mut self, number: u16, ended: Ended) -> (Option<String>, Option<f64>) {
        let exit = match ended {
            Ended::NotStarted(reason) => Exit::NotStarted(reason),
            Ended::ReturnCode(code) if code < 0 => Exit::Signal(code.saturating_neg()),
            Ended::ReturnCode(code) => Exit::Code(code),
        };
        match self.0.ended(number, &exit, Instant::now()) {
            Action::Restart { message, delay } => (Some(message), Some(delay.as_secs_f64())),
            Action::GiveUp { message } => (Some(message), None),
            Action::Leave => (None, None),
        }
    }

    #[pyo3(signature = (exit_code=None))]
    fn stop(&mut self, exit_code: Option<u8>) -> bool {
        self.0.stop(exit_code)
    }

    #[getter]
    fn exit_code(&self) -> u8 {
        self.0.exit_code()
    }

    #[getter]
    fn failure(&self) -> Option<String> {
        self.0.failure()
    }
}
