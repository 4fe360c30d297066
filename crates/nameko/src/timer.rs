//! The entrypoint `#[timer]`: a method at a fixed interval.

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

/// Runs a method every `interval`, in each instance of the service.
///
/// The first tick comes one interval after the start, or at once when [`eager`](Self::eager). The next ones come at the
/// start plus two intervals, three intervals and so on: a timer does not drift. A tick never begins before the last one's
/// worker has ended. After a slow worker the ticks that were missed follow one after the other until the timer has caught
/// up, as in Nameko. A method that fails does not stop its timer.
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
    /// A timer of that interval: seconds as a number, or a [`Duration`].
    ///
    /// An interval that is none (zero, negative, not a number) is an error when the container is made.
    #[must_use]
    pub fn new(interval: impl Into<Interval>) -> Self {
        Self {
            interval: interval.into(),
            eager: false,
            target: OnceLock::new(),
            task: TimerTask::default(),
        }
    }

    /// Whether the first tick comes at the start, rather than one interval after it.
    #[must_use]
    pub fn eager(mut self, eager: bool) -> Self {
        self.eager = eager;
        self
    }
}

impl Entrypoint for Timer {
    fn check(&self, _: &Container, method: &MethodHandle) -> Result<()> {
        if let Some(param) = method.params().iter().find(|it| !it.optional) {
            return Err(Error::Declaration(format!(
                "the method takes the argument `{}`, but a timer has none to give",
                param.name
            )));
        }
        self.interval.duration().map(drop).map_err(|what| {
            Error::Declaration(format!(
                "a timer cannot tick every {what}: give an interval of more than 0 seconds"
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
            Err(what) => format!("timer every {what}"),
        }
    }
}

/// How long a [`Timer`] waits between two ticks: from seconds as a number, or from a [`Duration`].
#[derive(Debug, Clone, PartialEq)]
pub struct Interval(std::result::Result<Duration, String>);

impl Interval {
    /// The time between two ticks, or what was given instead of one.
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

/// The ticks of one timer, until it is told to stop.
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
                // Further off than the clock counts.
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = stopping.wait_for(|it| *it) => return,
            () = elapsed => {}
        }
        if target.run(Arguments::new()).await.is_break() {
            return;
        }
        due = due.and_then(|it| it.checked_add(interval));
    }
}

/// The method that a timer or cron line runs.
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

    /// Runs one worker to its end. Breaks when the container takes no more work.
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
                tracing::error!("{} was not run: {error}", self.method.name());
                Continue(())
            }
        }
    }
}

/// The one task of a timer: begun at its start, ended at its stop.
#[derive(Debug, Default)]
pub(crate) struct TimerTask {
    /// Whether to stop. The task holds the only receiver, so that it is gone when there is none.
    stopping: watch::Sender<bool>,
}

impl TimerTask {
    /// Runs `task` as part of the container. It ends soon after what it is given turns true.
    pub(crate) fn start<F>(&self, target: &Target, task: impl FnOnce(watch::Receiver<bool>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if let Some(container) = target.container.upgrade() {
            container.spawn(task(self.stopping.subscribe()));
        }
    }

    /// Tells the task to stop, and waits for its end: for the worker that it runs.
    pub(crate) async fn stop(&self) {
        self.stopping.send_replace(true);
        self.stopping.closed().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_seconds_or_a_duration_and_more_than_nothing() {
        let seconds = |it: Interval| {
            it.duration()
                .map(|it| it.as_secs_f64())
                .map_err(str::to_owned)
        };
        assert_eq!(seconds(5.into()), Ok(5.0));
        assert_eq!(seconds(5_u64.into()), Ok(5.0));
        assert_eq!(seconds(0.25.into()), Ok(0.25));
        assert_eq!(seconds(Duration::from_millis(1500).into()), Ok(1.5));
        for (interval, what) in [
            (Interval::from(0), "0 s"),
            (Interval::from(-1), "-1 s"),
            (Interval::from(0.0), "0 s"),
            (Interval::from(-0.5), "-0.5 s"),
            (Interval::from(f64::NAN), "NaN s"),
            (Interval::from(f64::INFINITY), "inf s"),
            (Interval::from(1e300), &format!("{} s", 1e300)),
            (Interval::from(Duration::ZERO), "0 s"),
        ] {
            assert_eq!(seconds(interval), Err(what.to_owned()));
        }
    }
}
