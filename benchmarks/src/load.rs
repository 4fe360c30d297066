//! Calls a service, over whatever it speaks, and measures. `run.py` drives it.
//!
//! It writes one JSON object a line: `{"ready": true}`, whereupon it reads the process id of the service, which may be
//! starting still; `{"answered": true}` at its first answer; the figures of one number of calls in flight after the other.
//! When its input ends it leaves nothing behind and exits.

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

/// How soon to try again while there is no service.
const RETRY: Duration = Duration::from_millis(1);

/// How much to call, and for how long.
#[derive(Args)]
pub(crate) struct Arguments {
    /// How many calls are in flight, one measurement after the other
    #[arg(long, value_delimiter = ',', default_value = "1,10,50")]
    in_flight: Vec<usize>,
    /// Ends a measurement after so many calls
    #[arg(long, default_value_t = 20_000)]
    calls: usize,
    /// Ends a measurement after so many seconds
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Calls for so many seconds before each measurement
    #[arg(long, default_value_t = 0.3)]
    warm_up: f64,
    /// Gives up when nothing is answered for so many seconds
    #[arg(long, default_value_t = 20.0)]
    patience: f64,
}

impl Arguments {
    pub(crate) fn patience(&self) -> Duration {
        Duration::from_secs_f64(self.patience)
    }
}

/// Calls one service.
pub(crate) trait Caller {
    /// Calls until the service is there and has answered.
    fn first_answer(&mut self, patience: Duration) -> Result<(), Failure>;

    /// Keeps so many calls in flight until there were enough, or for long enough; returns when all are answered.
    fn run(&mut self, in_flight: usize, calls: usize, seconds: f64) -> Result<Run, Failure>;

    /// Removes what it has made for the service.
    fn clean(self) -> Result<(), Failure>;
}

/// What a run measured.
pub(crate) struct Run {
    pub(crate) latencies: Vec<Duration>,
    pub(crate) elapsed: Duration,
}

/// Calls and measures, as `run.py` says.
pub(crate) fn run(mut caller: impl Caller, arguments: Arguments) -> Result<(), Failure> {
    say(&json!({"ready": true}))?;
    let mut line = String::new();
    stdin().read_line(&mut line)?;
    let service = Pid::from_raw(line.trim().parse()?);
    caller.first_answer(arguments.patience())?;
    say(&json!({"answered": true}))?;
    for in_flight in arguments.in_flight {
        caller.run(in_flight, arguments.calls, arguments.warm_up)?;
        let clock = clock_getcpuclockid(service)?;
        let before = cpu(clock)?;
        let mut run = caller.run(in_flight, arguments.calls, arguments.seconds)?;
        let cpu = cpu(clock)?.saturating_sub(before);
        run.latencies.sort_unstable();
        let calls = run.latencies.len();
        say(&json!({
            "in_flight": in_flight,
            "calls": calls,
            "calls_per_second": calls as f64 / run.elapsed.as_secs_f64(),
            "p50_us": percentile(&run.latencies, 50),
            "p99_us": percentile(&run.latencies, 99),
            "cpu_us": cpu.as_secs_f64() * 1e6 / calls as f64,
        }))?;
    }
    while stdin().read_line(&mut line)? > 0 {}
    caller.clean()
}

/// Calls until there is an answer. `call` says whether there was one; an answer that is wrong is its error.
pub(crate) fn until_answered(
    patience: Duration,
    mut call: impl FnMut() -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        if call()? {
            return Ok(());
        }
        std::thread::sleep(RETRY);
    }
    Err("the service has not come up".into())
}

/// The processor time that a process has used, user and system, as `utime` and `stime` of `/proc/PID/stat` say in
/// coarser steps.
fn cpu(clock: ClockId) -> Result<Duration, Failure> {
    Ok(clock.now()?.into())
}

fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted
        .get(at)
        .map_or(0.0, |latency| latency.as_secs_f64() * 1e6)
}

fn say(line: &Value) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
