//! Load generator of any protocol, driven by `run.py`.
//!
//! Writes one JSON object per line: `{"ready": true}`, then, after reading the process id of the
//! service (which may still be starting), `{"answered": true}` on its first answer, then the
//! results of each concurrency. On end of input it deletes its queues and exits.

use std::{
    io::{Write, stdin},
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

/// Concurrency and duration of the measurements.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Calls in flight, one measurement for each value
    #[arg(long, value_delimiter = ',', default_value = "1,10,50")]
    in_flight: Vec<usize>,
    /// Maximum number of calls per measurement
    #[arg(long, default_value_t = 20_000)]
    calls: usize,
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

/// A client of one service.
pub(crate) trait Caller {
    /// Calls until the service has answered once.
    fn first_answer(&mut self, timeout: Duration) -> Result<(), Failure>;

    /// Keeps `in_flight` calls in flight until the first limit, `calls` or `seconds`, is reached.
    /// Returns after the last answer.
    fn run(&mut self, in_flight: usize, calls: usize, seconds: f64) -> Result<Run, Failure>;

    /// Deletes the queues of the measurement.
    fn clean_up(self) -> Result<(), Failure>;
}

/// The result of a run.
pub(crate) struct Run {
    pub(crate) latencies: Vec<Duration>,
    pub(crate) elapsed: Duration,
}

/// Runs the measurements requested by `run.py`.
pub(crate) fn run(mut caller: impl Caller, arguments: Arguments) -> Result<(), Failure> {
    emit(&json!({"ready": true}))?;
    let mut line = String::new();
    stdin().read_line(&mut line)?;
    let service = Pid::from_raw(line.trim().parse()?);
    caller.first_answer(arguments.timeout())?;
    emit(&json!({"answered": true}))?;
    for in_flight in arguments.in_flight {
        caller.run(in_flight, arguments.calls, arguments.warm_up)?;
        let clock = clock_getcpuclockid(service)?;
        let before = cpu(clock)?;
        let mut run = caller.run(in_flight, arguments.calls, arguments.seconds)?;
        let cpu = cpu(clock)?.saturating_sub(before);
        run.latencies.sort_unstable();
        let calls = run.latencies.len();
        emit(&json!({
            "in_flight": in_flight,
            "calls": calls,
            "calls_per_second": calls as f64 / run.elapsed.as_secs_f64(),
            "p50_us": percentile(&run.latencies, 50),
            "p99_us": percentile(&run.latencies, 99),
            "cpu_us": cpu.as_secs_f64() * 1e6 / calls as f64,
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
