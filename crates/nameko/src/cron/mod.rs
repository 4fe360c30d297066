//! The entrypoint `#[cron]`: a method at the times of a cron line, in each instance or in one of the fleet.

mod clock;
mod job;
mod leader_election;
mod leader_token;
mod schedule;

use std::{
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

pub use clock::{Clock, SystemClock};

use crate::{
    container::{Container, MethodHandle},
    error::{Error, Result},
    extension::Entrypoint,
    sync::lock,
    timer::{Target, TimerTask},
};
use job::Job;
use leader_election::Candidate;
use schedule::Schedule;

/// How late a time may be run that came while nobody could run it, unless [`Cron::late`] says otherwise.
const DEFAULT_MAX_LATENESS: Duration = Duration::from_secs(3600);

/// What [`Cron::once`] takes.
const ONCE_IN_FLEET: &str = "fleet";

/// Runs a method at the times of a cron line: `0 3 * * *` is every night at three.
///
/// Five fields: minute, hour, day of month, month, day of week; or six, with seconds first. `*`, `1-5`, `*/15`, `1,15`, names
/// (`MON-FRI`, `JAN`), `L` (the last day), `15W` (the nearest weekday), `MON#1` (the first Monday), `@daily` and the like. Where
/// both days are given either is enough, as in Vixie cron. What does not parse, or never comes, is an error when the container
/// is made, and of the compiler where it is a literal in `#[cron]`.
///
/// A time is run once the last one's worker has ended. Of the times that passed meanwhile only the latest is run, if it is no
/// more than [`late`](Self::late) ago. A method that fails does not stop its cron line.
///
/// A method that has a parameter gets the time it is run for, as text: `2026-03-01T03:00:00Z`. It stays the same when the time is
/// tried again, so that it tells whether the work is done already.
///
/// ```
/// # use nameko::{Cron, prelude::*};
/// let nightly = Cron::new("0 3 * * *").tz("Europe/London").once("fleet");
/// # let _ = nightly;
/// ```
///
/// # Daylight saving time
///
/// As Vixie cron has it. A line of fixed times (`30 2 * * *`) runs once a day: where the clocks skip its time, right when they
/// have; where its time comes twice, at the first. A line with `*` or a step in seconds, minutes or hours goes by real time.
///
/// # Once in the fleet
///
/// Without it, each instance of the service runs each time. With `once = "fleet"`, one instance does, which the broker chooses;
/// all instances of the service take part, on any number of machines. What to count on:
///
/// * Each time is run to its end in one instance, and in no other, as long as that instance and its connection to the broker
///   live until then. An error or a panic of the method is an end too.
/// * When the instance that runs a time dies or loses the broker, another one runs that time again from its beginning: the
///   method may run twice for one time, even side by side if the first one lives on without the broker. Methods that must not
///   do their work twice note the time they are given with their work. After three instances the time is given up.
/// * When the leading instance stops, dies or hangs, another one takes its place: at once when it stops or its connection
///   ends, and when the broker misses its heartbeats where it falls silent (two minutes by default). What was due meanwhile is
///   run then, as far as [`late`](Self::late) allows.
/// * Also when no instance ran at all: what was last run is kept in the queue, for 30 days.
/// * An instance that has no connection to the broker runs nothing.
/// * Clocks may differ. The leader's counts; a time that was run is not run again by a leader whose clock is behind by less
///   than an hour. A last run that lies further in the future was noted by a clock that was wrong, and does not count.
///
/// The queue is called `cron-{service}.{method}--{line}--{zone}`, with `_` for the spaces. A changed line is another queue, so
/// that old and new instances do not meet in it.
#[derive(Debug)]
pub struct Cron {
    line: String,
    zone: String,
    once: Option<String>,
    late: Duration,
    clock: Arc<dyn Clock>,
    /// Set at `setup`.
    job: OnceLock<Job>,
    /// Made at `setup` for the task that `start` begins.
    candidate: Mutex<Option<Candidate>>,
    task: TimerTask,
}

impl Cron {
    /// A cron line, in UTC.
    #[must_use]
    pub fn new(line: impl Into<String>) -> Self {
        Self {
            line: line.into(),
            zone: "UTC".to_owned(),
            once: None,
            late: DEFAULT_MAX_LATENESS,
            clock: Arc::new(SystemClock),
            job: OnceLock::new(),
            candidate: Mutex::new(None),
            task: TimerTask::default(),
        }
    }

    /// The time zone the line is meant in: an IANA name such as `Europe/London`.
    #[must_use]
    pub fn tz(mut self, zone: impl Into<String>) -> Self {
        self.zone = zone.into();
        self
    }

    /// With `"fleet"`, one instance of the service runs each time. There is no other choice.
    #[must_use]
    pub fn once(mut self, scope: impl Into<String>) -> Self {
        self.once = Some(scope.into());
        self
    }

    /// How late a time may still be run that came while the last one was running or nobody was there. By default an hour. Ten
    /// seconds are never late.
    #[must_use]
    pub fn late(mut self, late: Duration) -> Self {
        self.late = late;
        self
    }

    /// The clock to go by, for tests.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// What is wrong with what it was given, in a user's words.
    fn schedule(&self) -> Result<Schedule, String> {
        match self.once.as_deref() {
            None | Some(ONCE_IN_FLEET) => Schedule::parse(&self.line, &self.zone),
            Some(other) => Err(format!("`once` is \"{ONCE_IN_FLEET}\", not \"{other}\"")),
        }
    }

    fn lock_candidate(&self) -> std::sync::MutexGuard<'_, Option<Candidate>> {
        lock(&self.candidate)
    }
}

impl Entrypoint for Cron {
    fn check(&self, _: &Container, method: &MethodHandle) -> Result<()> {
        self.schedule().map_err(Error::Declaration)?;
        match method.params().iter().filter(|it| !it.optional).count() {
            0 | 1 => Ok(()),
            _ => Err(Error::Declaration(
                "a cron line gives one argument at most, the time".to_owned(),
            )),
        }
    }

    async fn setup(&self, container: &Container, method: MethodHandle) -> Result<()> {
        let job = Job {
            schedule: self.schedule().map_err(Error::Declaration)?,
            line: self.line.as_str().into(),
            zone: self.zone.as_str().into(),
            late: self.late,
            clock: self.clock.clone(),
            target: Target::new(container, method),
        };
        if self.once.is_some() {
            *self.lock_candidate() = Some(Candidate::join(container, &job)?);
        }
        let _ = self.job.set(job);
        Ok(())
    }

    async fn start(&self) -> Result<()> {
        let Some(job) = self.job.get() else {
            return Ok(());
        };
        let candidate = self.lock_candidate().take();
        let (target, job) = (&job.target, job.clone());
        match candidate {
            Some(candidate) => self
                .task
                .start(target, |stopping| candidate.serve(job, stopping)),
            None => {
                let now = job.now();
                self.task.start(target, |it| job.serve(now, it));
            }
        }
        Ok(())
    }

    async fn stop(&self) {
        self.task.stop().await;
    }

    fn describe(&self) -> String {
        let once = if self.once.is_some() {
            ", once in the fleet"
        } else {
            ""
        };
        format!("cron {} {}{once}", self.line, self.zone)
    }
}
