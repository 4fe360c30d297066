//! The entrypoint `#[cron]`, which runs a method on a cron schedule, in every instance or in one of
//! the fleet.

mod clock;
mod expression;
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

/// Default of [`Cron::late`].
const DEFAULT_MAX_LATENESS: Duration = Duration::from_secs(3600);

/// The only value of [`Cron::once`].
const ONCE_IN_FLEET: &str = "fleet";

/// Runs a method on a cron schedule: `0 3 * * *` is every night at three.
///
/// A cron expression has five fields: minute, hour, day of month, month, day of week; or six, with
/// seconds first. It supports `*`, `1-5`, `*/15`, `1,15`, names (`MON-FRI`, `JAN`), `L` (the last
/// day), `15W` (the nearest weekday), `MON#1` (the first Monday), and shorthands such as `@daily`.
/// If both day fields are restricted, either may match, as in Vixie cron. An expression that is
/// invalid or never matches a date is an error at the creation of the container, and a compile
/// error if it is a literal in `#[cron]`.
///
/// Runs do not overlap. Of the times that pass during a run, only the latest is run, unless it is
/// more than [`late`](Self::late) ago. An error of the method does not stop the schedule.
///
/// A method may have one parameter, the scheduled time as a string: `2026-03-01T03:00:00Z`.
/// Repeated runs of the same time receive the same value, which can serve as an idempotency key.
///
/// ```
/// # use nameko::{Cron, prelude::*};
/// let nightly = Cron::new("0 3 * * *").tz("Europe/London").once("fleet");
/// # let _ = nightly;
/// ```
///
/// # Daylight saving time
///
/// As in Vixie cron. Fixed times (`30 2 * * *`) run once a day: a skipped time runs right after the
/// change, and a repeated time runs at its first occurrence. Expressions with `*` or a step in
/// seconds, minutes or hours follow elapsed time.
///
/// # Once in the fleet
///
/// By default, every instance of the service runs every time. With `once = "fleet"`, one instance
/// does: the leader, elected among all instances of the service on any number of machines by the
/// broker. Guarantees:
///
/// * Every time is run to completion by exactly one instance, as long as this instance and its
///   connection to the broker survive the run. An error or a panic of the method completes the run
///   too.
/// * If the instance dies or loses its connection during a run, another one repeats the run. The
///   method may then run twice for the same time, even concurrently if the first instance continues
///   without the broker. If this is not acceptable, record the scheduled time together with the
///   work. A time is given up after three instances.
/// * If the leader stops, dies or hangs, another instance becomes the leader: immediately if it
///   stops or its connection closes, else when the broker misses its heartbeats (two minutes by
///   default). Missed times are run then, within [`late`](Self::late).
/// * The same applies after a time without any instance: the queue keeps the last run for 30 days.
/// * An instance without a connection to the broker runs nothing.
/// * Clocks may differ. The clock of the leader counts. A leader whose clock is less than an hour
///   behind does not repeat a run. A last run more than an hour in the future comes from a wrong
///   clock and is ignored.
///
/// The name of the queue is `cron-{service}.{method}--{line}--{zone}`, with `_` for spaces. A
/// changed expression has another queue, so that old and new instances do not share one.
#[derive(Debug)]
pub struct Cron {
    line: String,
    zone: String,
    once: Option<String>,
    late: Duration,
    clock: Arc<dyn Clock>,
    /// Set at `setup`.
    job: OnceLock<Job>,
    /// Created by `setup` for the task of `start`.
    candidate: Mutex<Option<Candidate>>,
    task: TimerTask,
}

impl Cron {
    /// Creates a schedule from a cron expression, in UTC.
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

    /// Sets the time zone: an IANA name such as `Europe/London`.
    #[must_use]
    pub fn tz(mut self, zone: impl Into<String>) -> Self {
        self.zone = zone.into();
        self
    }

    /// With `"fleet"`, one instance of the service runs each time. No other value is supported.
    #[must_use]
    pub fn once(mut self, scope: impl Into<String>) -> Self {
        self.once = Some(scope.into());
        self
    }

    /// Sets the maximum lateness of a time that passed during a run or without an instance.
    /// Default: one hour. Minimum: ten seconds.
    #[must_use]
    pub fn late(mut self, late: Duration) -> Self {
        self.late = late;
        self
    }

    /// Replaces the clock, for tests.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Parses the arguments. The error is a message for users.
    fn schedule(&self) -> Result<Schedule, String> {
        match self.once.as_deref() {
            None | Some(ONCE_IN_FLEET) => Schedule::parse(&self.line, &self.zone),
            Some(other) => Err(format!(
                "`once` must be \"{ONCE_IN_FLEET}\", not \"{other}\""
            )),
        }
    }

    fn lock_candidate(&self) -> std::sync::MutexGuard<'_, Option<Candidate>> {
        lock(&self.candidate)
    }
}

impl Entrypoint for Cron {
    fn check(&self, _: &Container, method: &MethodHandle) -> Result<()> {
        self.schedule().map_err(Error::Declaration)?;
        match method.params().iter().filter(|param| !param.optional).count() {
            0 | 1 => Ok(()),
            _ => Err(Error::Declaration(
                "the method has several required parameters, but `#[cron]` passes at most one, the scheduled time".to_owned(),
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
                self.task.start(target, |stopping| job.serve(now, stopping));
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
