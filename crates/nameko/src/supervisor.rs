//! State machine of `run --workers`, without I/O: the state of each process, the backoff of its
//! restarts and the exit code of the supervisor. The command lines of all front ends drive it, and
//! do the starting, watching and stopping.

use std::fmt;
use std::time::{Duration, Instant};

use crate::amqp::Backoff;

/// Uptime of a process, counted from its readiness, after which its restart backoff resets.
const BACKOFF_RESET_AFTER: Duration = Duration::from_secs(30);

/// Exit code of the supervisor if a process could not be spawned or has an exit code above 255.
const FAILURE: u8 = 1;

/// The processes of one supervisor, numbered from 1.
#[derive(Debug)]
pub struct ProcessTable {
    processes: Vec<Process>,
    /// Set once a process has been ready.
    was_ready: bool,
    /// Set once all processes have been ready at the same time.
    was_complete: bool,
    stopping: bool,
    gave_up: bool,
    exit_code: u8,
}

#[derive(Debug, Default)]
struct Process {
    state: ProcessState,
    backoff: Backoff,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum ProcessState {
    /// Never started.
    #[default]
    Idle,
    Starting,
    Ready {
        since: Instant,
    },
    /// The latest attempt ended before the process was ready.
    Failing,
}

/// The end of a process.
#[derive(Clone, Debug, PartialEq)]
pub enum Exit {
    /// Spawning the process failed.
    NotStarted(String),
    /// The process exited with this code.
    Code(i32),
    /// The process was ended by this signal.
    Signal(i32),
}

/// Reaction of the supervisor to the end of a process.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Log the message and start the process again after `delay`.
    Restart { message: String, delay: Duration },
    /// Log the message and stop all processes: none of them can start.
    GiveUp { message: String },
    /// Nothing: the supervisor is stopping.
    Leave,
}

impl ProcessTable {
    pub fn new(count: u16) -> Self {
        Self {
            processes: (0..count).map(|_| Process::default()).collect(),
            was_ready: false,
            was_complete: false,
            stopping: false,
            gave_up: false,
            exit_code: 0,
        }
    }

    /// Records that process `number` is being started. A failing process counts as such until it is
    /// ready.
    pub fn started(&mut self, number: u16) {
        if let Some(process) = self.process(number)
            && process.state == ProcessState::Idle
        {
            process.state = ProcessState::Starting;
        }
    }

    /// Records that the services of process `number` can be called. Returns `true` the first time
    /// that all processes are ready, unless the supervisor is stopping.
    pub fn ready(&mut self, number: u16, now: Instant) -> bool {
        if let Some(process) = self.process(number) {
            process.state = ProcessState::Ready { since: now };
            self.was_ready = true;
        }
        let is_complete = (self.processes.iter())
            .all(|process| matches!(process.state, ProcessState::Ready { .. }));
        if self.was_complete || self.stopping || !is_complete {
            return false;
        }
        self.was_complete = true;
        true
    }

    /// Records that process `number` has exited on purpose and is started again at once, with a
    /// fresh backoff.
    pub fn restarted(&mut self, number: u16) {
        if let Some(process) = self.process(number) {
            process.state = ProcessState::Starting;
            process.backoff.reset();
        }
    }

    /// Records the end of process `number`.
    pub fn ended(&mut self, number: u16, exit: &Exit, now: Instant) -> Action {
        if self.stopping {
            if self.exit_code == 0 {
                self.exit_code = exit.code();
            }
            return Action::Leave;
        }
        let Some(process) = self.process(number) else {
            return Action::Leave;
        };
        let (when, next) = match process.state {
            ProcessState::Ready { since } => {
                if now.saturating_duration_since(since) >= BACKOFF_RESET_AFTER {
                    process.backoff.reset();
                }
                ("", ProcessState::Starting)
            }
            _ => (" before it was ready", ProcessState::Failing),
        };
        process.state = next;
        let delay = process.backoff.next_delay();
        let message = format!("process {number} {exit}{when}");
        // A process that was ready can start. If it dies in its first moments later on, the cause
        // may be a message, and the others have to go on.
        if !self.was_ready && self.is_failing() {
            self.gave_up = true;
            self.stopping = true;
            self.exit_code = exit.code().max(FAILURE);
            return Action::GiveUp { message };
        }
        Action::Restart {
            message: format!("{message}; restarting in {:.1}s", delay.as_secs_f64()),
            delay,
        }
    }

    /// Records a request to stop, with the exit code of the signal behind it. Returns `true` if the
    /// processes are to be killed: a stop was requested before.
    pub fn stop(&mut self, exit_code: Option<u8>) -> bool {
        let kill = self.stopping;
        self.stopping = true;
        if kill && let Some(code) = exit_code {
            self.exit_code = code;
        }
        kill
    }

    /// Returns the exit code of the supervisor: that of the signal that forced the end, else of the
    /// first process that failed while it was stopped, else 0.
    pub fn exit_code(&self) -> u8 {
        self.exit_code
    }

    /// Returns the reason why the supervisor gave up, if it did.
    pub fn failure(&self) -> Option<String> {
        self.gave_up.then(|| {
            format!(
                "no process could start; the last one exited with code {}",
                self.exit_code
            )
        })
    }

    /// Returns `true` if the latest attempt of every started process has failed.
    fn is_failing(&self) -> bool {
        (self.processes.iter())
            .filter(|process| process.state != ProcessState::Idle)
            .all(|process| process.state == ProcessState::Failing)
    }

    fn process(&mut self, number: u16) -> Option<&mut Process> {
        self.processes.get_mut(usize::from(number).wrapping_sub(1))
    }
}

impl Exit {
    /// Returns the exit code as in a shell: 128 plus the number of the signal.
    pub fn code(&self) -> u8 {
        let code = match self {
            Self::NotStarted(_) => return FAILURE,
            Self::Code(code) => *code,
            Self::Signal(signal) => 128 + signal,
        };
        u8::try_from(code).unwrap_or(FAILURE)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted(error) => write!(f, "cannot be started: {error}"),
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => write!(f, "was killed by signal {signal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    enum Event {
        Ready(u16),
        Ended(u16),
    }
    use Event::{Ended, Ready};

    #[derive(Debug, PartialEq)]
    enum Reaction {
        Nothing,
        AllReady,
        Restart,
        GiveUp,
    }

    fn started(count: u16) -> ProcessTable {
        let mut table = ProcessTable::new(count);
        (1..=count).for_each(|number| table.started(number));
        table
    }

    fn apply(table: &mut ProcessTable, event: &Event) -> Reaction {
        let now = Instant::now();
        match event {
            Ready(number) => match table.ready(*number, now) {
                true => Reaction::AllReady,
                false => Reaction::Nothing,
            },
            Ended(number) => match table.ended(*number, &Exit::Code(3), now) {
                Action::Restart { .. } => {
                    table.started(*number);
                    Reaction::Restart
                }
                Action::GiveUp { .. } => Reaction::GiveUp,
                Action::Leave => Reaction::Nothing,
            },
        }
    }

    #[test]
    fn gives_up_only_if_no_process_has_been_ready() {
        use Reaction::{AllReady, GiveUp, Nothing, Restart};
        let stories = [
            vec![(Ended(2), Restart), (Ended(1), GiveUp)],
            vec![
                (Ended(2), Restart),
                (Ready(1), Nothing),
                (Ended(2), Restart),
                (Ready(2), AllReady),
            ],
            vec![
                (Ready(1), Nothing),
                (Ready(2), AllReady),
                (Ended(2), Restart),
                (Ready(2), Nothing),
            ],
            // A message kills each process before it is ready again.
            vec![
                (Ready(1), Nothing),
                (Ready(2), AllReady),
                (Ended(1), Restart),
                (Ended(2), Restart),
                (Ended(1), Restart),
                (Ended(2), Restart),
            ],
            vec![
                (Ready(1), Nothing),
                (Ended(2), Restart),
                (Ended(1), Restart),
                (Ended(1), Restart),
            ],
            vec![
                (Ready(1), Nothing),
                (Ready(2), AllReady),
                (Ended(1), Restart),
                (Ended(2), Restart),
            ],
        ];
        for (story, events) in stories.iter().enumerate() {
            let mut table = started(2);
            for (step, (event, reaction)) in events.iter().enumerate() {
                assert_eq!(
                    apply(&mut table, event),
                    *reaction,
                    "story {story}, step {step}"
                );
            }
        }
    }

    #[test]
    fn gives_up_when_the_first_process_fails_before_others_are_started() {
        let mut table = ProcessTable::new(2);
        table.started(1);
        assert_eq!(apply(&mut table, &Ended(1)), Reaction::GiveUp);
        let failure = "no process could start; the last one exited with code 3";
        assert_eq!(
            (table.failure().as_deref(), table.exit_code()),
            (Some(failure), 3)
        );
    }

    #[test]
    fn the_backoff_grows_with_failures_and_resets_after_some_uptime() {
        let mut table = started(2);
        let now = Instant::now();
        let mut delay_after = |uptime: Option<Duration>| {
            let end = now + uptime.unwrap_or_default();
            if uptime.is_some() {
                table.ready(1, now);
            }
            match table.ended(1, &Exit::Signal(9), end) {
                Action::Restart { delay, .. } => delay.as_millis(),
                other => panic!("{other:?}"),
            }
        };
        assert!((150..=200).contains(&delay_after(None)));
        assert!((300..=400).contains(&delay_after(None)));
        assert!((600..=800).contains(&delay_after(Some(Duration::ZERO))));
        assert!((150..=200).contains(&delay_after(Some(BACKOFF_RESET_AFTER))));
    }

    #[test]
    fn a_stop_keeps_the_first_failure_as_exit_code_and_a_second_one_kills() {
        let mut table = started(3);
        assert!(!table.stop(Some(143)));
        let now = Instant::now();
        for (number, code) in [(1, 0), (2, 4), (3, 5)] {
            assert_eq!(table.ended(number, &Exit::Code(code), now), Action::Leave);
        }
        assert_eq!(table.exit_code(), 4);
        assert!(table.stop(Some(130)));
        assert_eq!((table.exit_code(), table.failure()), (130, None));
    }

    #[test]
    fn exits_read_and_count_as_in_a_shell() {
        let described = |exit: Exit| (exit.to_string(), exit.code());
        assert_eq!(
            described(Exit::Signal(9)),
            ("was killed by signal 9".into(), 137)
        );
        assert_eq!(described(Exit::Code(3)), ("exited with code 3".into(), 3));
        let missing = Exit::NotStarted("No such file".into());
        assert_eq!(
            described(missing),
            ("cannot be started: No such file".into(), 1)
        );
    }
}
