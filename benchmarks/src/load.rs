//! Load generator of any protocol, driven by `run.py`.
//!
//! Writes one JSON object per line: `{"ready": true}`, then, after reading the process id of the
//! service (which may still be starting), `{"answered": true}` on its first answer, then the
//! results of each load. On end of input it deletes its queues and exits.

use std::{
    io::{Write, stdin},
    str::FromStr,
    time::{Duration, Instant},
};

use crate::hello::Failure;
use clap::Args;
use nix::{
    time::{ClockId, clock_getcpuclockid},
    unistd::Pid,
};
use serde_json::{Value, json};

/// Interval of attempts until the service is up.
const RETRY_INTERVAL: Duration = Duration::from_millis(1);

/// Maximum duration of a measurement that is limited by its number of calls.
const MAX_SECONDS: f64 = 3600.0;

/// Maximum number of calls in a measurement that is limited by time.
const MAX_CALLS: usize = 200_000;

/// Concurrency and duration of the measurements.
#[derive(Args)]
pub(crate) struct Arguments {
    /// One measurement each: OPERATION:NUMBER, or OPERATION:NUMBER:CALLS without a limit of time
    #[arg(long, value_delimiter = ',', required = true)]
    loads: Vec<Load>,
    /// Maximum duration of a measurement in seconds
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Seconds of calls before each measurement
    #[arg(long, default_value_t = 0.3)]
    warm_up: f64,
    /// Seconds to wait for an answer
    #[arg(long, default_value_t = 20.0)]
    timeout: f64,
}

impl Arguments {
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs_f64(self.timeout)
    }
}

/// One measurement.
#[derive(Clone)]
pub(crate) struct Load {
    /// The text on the command line, which identifies the results.
    text: String,
    /// A method or another kind of call.
    pub(crate) operation: String,
    /// Calls in flight, or the size of a message in bytes.
    pub(crate) number: usize,
    /// Number of calls, without a limit of time and without warm-up.
    calls: Option<usize>,
}

impl FromStr for Load {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let mut fields = text.split(':');
        let operation = fields.next().unwrap_or_default().to_owned();
        let number = fields.next().ok_or("a load without a number")?.parse()?;
        Ok(Self {
            text: text.to_owned(),
            operation,
            number,
            calls: fields.next().map(str::parse).transpose()?,
        })
    }
}

/// The limits of a run. The first to be reached ends it.
#[derive(Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) calls: usize,
    pub(crate) seconds: f64,
}

/// A client of one service.
pub(crate) trait Caller {
    /// Calls until the service has answered once.
    fn first_answer(&mut self, timeout: Duration) -> Result<(), Failure>;

    /// Calls until the limit is reached. Returns after the last answer.
    fn run(&mut self, load: &Load, limit: Limit) -> Result<Run, Failure>;

    /// Deletes the queues of the measurement.
    fn clean_up(self) -> Result<(), Failure>;
}

/// The result of a run.
pub(crate) struct Run {
    pub(crate) calls: usize,
    /// Empty if latencies are not measured.
    pub(crate) latencies: Vec<Duration>,
    pub(crate) elapsed: Duration,
}

impl Run {
    /// Creates the result of calls with measured latencies.
    pub(crate) fn timed(latencies: Vec<Duration>, elapsed: Duration) -> Self {
        Self {
            calls: latencies.len(),
            latencies,
            elapsed,
        }
    }
}

/// Runs the measurements requested by `run.py`.
pub(crate) fn run(mut caller: impl Caller, arguments: Arguments) -> Result<(), Failure> {
    emit(&json!({"ready": true}))?;
    let mut line = String::new();
    stdin().read_line(&mut line)?;
    let service = Pid::from_raw(line.trim().parse()?);
    caller.first_answer(arguments.timeout())?;
    emit(&json!({"answered": true}))?;
    for load in arguments.loads {
        let limit = match load.calls {
            Some(calls) => Limit {
                calls,
                seconds: MAX_SECONDS,
            },
            None => Limit {
                calls: MAX_CALLS,
                seconds: arguments.seconds,
            },
        };
        if load.calls.is_none() {
            let seconds = arguments.warm_up;
            caller.run(&load, Limit { seconds, ..limit })?;
        }
        let clock = clock_getcpuclockid(service)?;
        let before = cpu(clock)?;
        let mut run = caller.run(&load, limit)?;
        let cpu = cpu(clock)?.saturating_sub(before);
        run.latencies.sort_unstable();
        emit(&json!({
            "load": load.text,
            "calls_per_second": run.calls as f64 / run.elapsed.as_secs_f64(),
            "seconds": run.elapsed.as_secs_f64(),
            "p50_us": percentile(&run.latencies, 50),
            "p99_us": percentile(&run.latencies, 99),
            "cpu_us": cpu.as_secs_f64() * 1e6 / run.calls as f64,
            "mib": resident_mib(service)?,
        }))?;
    }
    while stdin().read_line(&mut line)? > 0 {}
    caller.clean_up()
}

/// Repeats `call` until it returns true, for an answer, or fails, for example on a wrong answer.
pub(crate) fn until_answered(
    timeout: Duration,
    mut call: impl FnMut() -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let deadline = Instant::now() + timeout;
    while Instant::now() < deadline {
        if call()? {
            return Ok(());
        }
        std::thread::sleep(RETRY_INTERVAL);
    }
    Err("no answer from the service before the timeout".into())
}

/// Returns the processor time of a process, user and system, at a finer resolution than
/// `/proc/PID/stat`.
fn cpu(clock: ClockId) -> Result<Duration, Failure> {
    Ok(clock.now()?.into())
}

/// Returns the resident memory of a process.
fn resident_mib(process: Pid) -> Result<f64, Failure> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.ok_or("no resident memory in /proc")?.parse::<f64>()? / 1024.0)
}

fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted
        .get(at)
        .map_or(0.0, |latency| latency.as_secs_f64() * 1e6)
}

fn emit(line: &Value) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
