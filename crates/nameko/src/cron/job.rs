//! A cron line bound to the method that it runs.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::sync::watch;

use super::{
    clock::Clock,
    schedule::{Plan, Schedule, is_wrong},
};
use crate::{arguments::Arguments, timer::Target};

/// A cron line with the method it runs.
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
    /// Runs what is due after `last` in this instance, whatever others do, until told to stop.
    pub(super) async fn serve(self, mut last: Timestamp, mut stopping: watch::Receiver<bool>) {
        loop {
            if is_wrong(last, self.now()) {
                // The clock was put right since.
                last = self.now();
            }
            let (due, until) = match self.plan(last) {
                Plan::Run(at) => (Some(at), Some(at)),
                Plan::Wait(until) => (None, Some(until)),
                Plan::Never => (None, None),
            };
            tokio::select! {
                biased;
                _ = stopping.wait_for(|it| *it) => return,
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

    /// Runs one worker for the time `at`, to its end, when the times up to `last` are done with.
    pub(super) async fn run(&self, last: Timestamp, at: Timestamp) -> ControlFlow<()> {
        if self.schedule.skips(last, at) {
            tracing::warn!(
                "{} is run for {at} only, not for the other times since {last}",
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
                tracing::error!("{} was not run for {at}: {error}", self.name());
                ControlFlow::Continue(())
            }
        }
    }

    /// What to do now, when the times up to `last` are done with.
    pub(super) fn plan(&self, last: Timestamp) -> Plan {
        self.schedule.plan(last, self.now(), self.late)
    }

    pub(super) fn now(&self) -> Timestamp {
        // Clocks that are ten thousand years off tell the end of time.
        Timestamp::try_from(self.clock.now()).unwrap_or(Timestamp::MAX)
    }

    /// Returns when it is `time`, or earlier where the clock is set back meanwhile; never, where there is none.
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

    /// What to call it in the log.
    pub(super) fn name(&self) -> String {
        format!(
            "{} ({} {})",
            self.target.method.name(),
            self.line,
            self.zone
        )
    }

    /// The queue that the instances of a fleet share for it.
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
