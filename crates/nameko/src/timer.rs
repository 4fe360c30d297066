//! The entrypoint `#[timer]`, which runs a method at a fixed interval.

use std::{sync::OnceLock, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{
    amqp::Table,
    arguments::Arguments,
    container::{Container, MethodHandle, WeakContainer},
    error::{Error, Result},
    extension::Entrypoint,
};

/// Runs a method at a fixed interval, in every instance of the service.
///
/// The first tick is one interval after the start, or at the start if [`eager`](Self::eager). Later
/// ticks are at multiples of the interval from there, so a timer does not drift. Runs do not
/// overlap: after a slow run, missed ticks follow immediately one after the other until the timer
/// has caught up, as in Nameko. An error of the method does not stop its timer.
///
/// ```
/// # use nameko::{Timer, prelude::*};
/// # use std::time::Duration;
/// let timer = Timer::new(0.5).eager(true);
/// # let _ = timer;
/// let timer = Timer::new(Duration::from_secs(3600));
/// # let _ = timer;
/// ```
#[derive(Debug)]
pub struct Timer {
    interval: Interval,
    eager: bool,
    /// Set at `setup`.
    target: OnceLock<Target>,
    task: TimerTask,
}

impl Timer {
    /// Creates a timer with an interval: a number of seconds, or a [`Duration`].
    ///
    /// An invalid interval (zero, negative, not a number) is an error at the creation of the
    /// container.
    #[must_use]
    pub fn new(interval: impl Into<Interval>) -> Self {
        Self {
            interval: interval.into(),
            eager: false,
            target: OnceLock::new(),
            task: TimerTask::default(),
        }
    }

    /// Sets whether the first tick is at the start, rather than one interval later.
    #[must_use]
    pub fn eager(mut self, eager: bool) -> Self {
        self.eager = eager;
        self
    }
}

impl Entrypoint for Timer {
    fn check(&self, _: &Container, method: &MethodHandle) -> Result<()> {
        if let Some(param) = method.params().iter().find(|param| !param.optional) {
            return Err(Error::Declaration(format!(
                "the method requires the argument `{}`, but a timer passes no arguments",
                param.name
            )));
        }
        self.interval.duration().map(drop).map_err(|invalid| {
            Error::Declaration(format!(
                "the interval of a timer must be greater than 0 seconds, not {invalid}"
            ))
        })
    }

    async fn setup(&self, container: &Container, method: MethodHandle) -> Result<()> {
        let _ = self.target.set(Target::new(container, method));
        Ok(())
    }

    async fn start(&self) -> Result<()> {
        if let (Some(target), Ok(interval)) = (self.target.get(), self.interval.duration()) {
            let (target, eager) = (target.clone(), self.eager);
            self.task.start(&target.clone(), |stopping| {
                tick(interval, eager, target, stopping)
            });
        }
        Ok(())
    }

    async fn stop(&self) {
        self.task.stop().await;
    }

    fn describe(&self) -> String {
        match self.interval.duration() {
            Ok(interval) => format!("timer every {interval:?}"),
            Err(invalid) => format!("timer every {invalid}"),
        }
    }
}

/// The interval of a [`Timer`], converted from a number of seconds or a [`Duration`].
#[derive(Debug, Clone, PartialEq)]
pub struct Interval(std::result::Result<Duration, String>);

impl Interval {
    /// Returns the interval, or the text of an invalid one.
    fn duration(&self) -> std::result::Result<Duration, &str> {
        self.0.as_ref().copied().map_err(String::as_str)
    }
}

impl From<Duration> for Interval {
    fn from(interval: Duration) -> Self {
        Self(match interval {
            Duration::ZERO => Err("0 s".to_owned()),
            interval => Ok(interval),
        })
    }
}

impl From<f64> for Interval {
    fn from(seconds: f64) -> Self {
        match Duration::try_from_secs_f64(seconds) {
            Ok(interval) => interval.into(),
            Err(_) => Self(Err(format!("{seconds} s"))),
        }
    }
}

macro_rules! from_whole_seconds {
    ($($number:ty),*) => { $(
        impl From<$number> for Interval {
            fn from(seconds: $number) -> Self {
                match u64::try_from(seconds) {
                    Ok(seconds) => Duration::from_secs(seconds).into(),
                    Err(_) => Self(Err(format!("{seconds} s"))),
                }
            }
        }
    )* };
}

from_whole_seconds!(i32, i64, u32, u64);

/// Runs the method at every tick until `stopping` is set.
async fn tick(
    interval: Duration,
    eager: bool,
    target: Target,
    mut stopping: watch::Receiver<bool>,
) {
    let begun = Instant::now();
    let mut due = if eager {
        Some(begun)
    } else {
        begun.checked_add(interval)
    };
    loop {
        let elapsed = async {
            match due {
                Some(due) => sleep_until(due).await,
                // Exceeds the range of `Instant`.
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => return,
            () = elapsed => {}
        }
        if target.run(Arguments::new()).await.is_break() {
            return;
        }
        due = due.and_then(|due| due.checked_add(interval));
    }
}

/// The method run by a timer or cron schedule.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) container: WeakContainer,
    pub(crate) method: MethodHandle,
}

impl Target {
    pub(crate) fn new(container: &Container, method: MethodHandle) -> Self {
        Self {
            container: container.downgrade(),
            method,
        }
    }

    /// Runs a worker to completion. Breaks if the container accepts no more work.
    pub(crate) async fn run(&self, arguments: Arguments) -> std::ops::ControlFlow<()> {
        use std::ops::ControlFlow::{Break, Continue};

        let Some(container) = self.container.upgrade() else {
            return Break(());
        };
        let ran = container.run_worker(&self.method, arguments, Table::new(), |outcome| async {
            outcome
        });
        match ran.await {
            Ok(()) => Continue(()),
            Err(Error::ContainerStopping(_)) => Break(()),
            Err(error) => {
                tracing::error!("cannot run {}: {error}", self.method.name());
                Continue(())
            }
        }
    }
}

/// The task of a timer, which runs from its start to its stop.
#[derive(Debug, Default)]
pub(crate) struct TimerTask {
    /// The stop request. The task owns the only receiver, so the channel closes when the task ends.
    stopping: watch::Sender<bool>,
}

impl TimerTask {
    /// Spawns `task` in the container. It must return soon after its receiver becomes `true`.
    pub(crate) fn start<F>(&self, target: &Target, task: impl FnOnce(watch::Receiver<bool>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if let Some(container) = target.container.upgrade() {
            container.spawn(task(self.stopping.subscribe()));
        }
    }

    /// Requests the stop and waits for the task, including a running worker.
    pub(crate) async fn stop(&self) {
        self.stopping.send_replace(true);
        self.stopping.closed().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_a_positive_number_of_seconds_or_duration() {
        let seconds = |interval: Interval| {
            interval
                .duration()
                .map(|duration| duration.as_secs_f64())
                .map_err(str::to_owned)
        };
        assert_eq!(seconds(5.into()), Ok(5.0));
        assert_eq!(seconds(5_u64.into()), Ok(5.0));
        assert_eq!(seconds(0.25.into()), Ok(0.25));
        assert_eq!(seconds(Duration::from_millis(1500).into()), Ok(1.5));
        for (interval, invalid) in [
            (Interval::from(0), "0 s"),
            (Interval::from(-1), "-1 s"),
            (Interval::from(0.0), "0 s"),
            (Interval::from(-0.5), "-0.5 s"),
            (Interval::from(f64::NAN), "NaN s"),
            (Interval::from(f64::INFINITY), "inf s"),
            (Interval::from(1e300), &format!("{} s", 1e300)),
            (Interval::from(Duration::ZERO), "0 s"),
        ] {
            assert_eq!(seconds(interval), Err(invalid.to_owned()));
        }
    }
}
