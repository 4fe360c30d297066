//! A schedule bound to a method.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::sync::watch;

use super::{
    clock::Clock,
    schedule::{Plan, Schedule, exceeds_clock_skew},
};
use crate::{arguments::Arguments, timer::Target};

/// A cron expression with its method.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) schedule: Schedule,
    pub(super) line: Arc<str>,
    pub(super) zone: Arc<str>,
    pub(super) late: Duration,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) target: Target,
}

impl Job {
    /// Runs all times after `last` in this instance, independently of other instances, until
    /// `stopping` is set.
    pub(super) async fn serve(self, mut last: Timestamp, mut stopping: watch::Receiver<bool>) {
        loop {
            if exceeds_clock_skew(last, self.now()) {
                // The clock was corrected since.
                last = self.now();
            }
            let (due, until) = match self.plan(last) {
                Plan::Run(at) => (Some(at), Some(at)),
                Plan::Wait(until) => (None, Some(until)),
                Plan::Never => (None, None),
            };
            tokio::select! {
                biased;
                _ = stopping.wait_for(|stopping| *stopping) => return,
                () = self.reach(until) => {}
            }
            if let Some(at) = due {
                if self.run(last, at).await.is_break() {
                    return;
                }
                last = at;
            }
        }
    }

    /// Runs a worker for the time `at` to completion. All times up to `last` are done.
    pub(super) async fn run(&self, last: Timestamp, at: Timestamp) -> ControlFlow<()> {
        if self.schedule.skips(last, at) {
            tracing::warn!(
                "{} runs only for {at}, skipping the other times since {last}",
                self.name()
            );
        }
        let time = match self.target.method.params() {
            [] => Ok(Arguments::new()),
            _ => Arguments::new().arg(at.to_string()),
        };
        match time {
            Ok(arguments) => self.target.run(arguments).await,
            Err(error) => {
                tracing::error!("cannot run {} for {at}: {error}", self.name());
                ControlFlow::Continue(())
            }
        }
    }

    /// Returns the next action, if all times up to `last` are done.
    pub(super) fn plan(&self, last: Timestamp) -> Plan {
        self.schedule.plan(last, self.now(), self.late)
    }

    pub(super) fn now(&self) -> Timestamp {
        // Times outside the range of `Timestamp` count as its maximum.
        Timestamp::try_from(self.clock.now()).unwrap_or(Timestamp::MAX)
    }

    /// Waits until `time`, or less if the clock is set back meanwhile; waits forever for `None`.
    pub(super) async fn reach(&self, time: Option<Timestamp>) {
        let Some(time) = time else {
            return std::future::pending().await;
        };
        let mut now = self.now();
        loop {
            match Duration::try_from(time.duration_since(now)) {
                Ok(left) if !left.is_zero() => self.clock.sleep(left).await,
                _ => return,
            }
            let before = std::mem::replace(&mut now, self.now());
            if now < before {
                return;
            }
        }
    }

    /// Returns the name for logs.
    pub(super) fn name(&self) -> String {
        format!(
            "{} ({} {})",
            self.target.method.name(),
            self.line,
            self.zone
        )
    }

    /// Returns the name of the queue shared by all instances of the service.
    pub(super) fn queue_name(&self, service: &str) -> String {
        let line: Vec<&str> = self.line.split_whitespace().collect();
        format!(
            "cron-{service}.{}--{}--{}",
            self.target.method.name(),
            line.join("_"),
            self.zone
        )
    }
}
