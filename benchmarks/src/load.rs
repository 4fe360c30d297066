//! Calls a hello service as a Nameko client does, and measures. `run.py` drives it.
//!
//! It writes one JSON object a line: `{"ready": true}`, whereupon it reads the process id of the service, which may be
//! starting still; `{"answered": true}` at its first answer; the figures of one number of calls in flight after the other.
//! When its input ends it deletes the queues and exits.

use std::{
    io::{Write, stdin},
    time::{Duration, Instant},
};

use crate::{
    connection::{Connection, Event, headers, properties},
    hello::{EXCHANGE, Failure, queue},
};
use amq_protocol::{
    protocol::basic,
    types::{AMQPValue, FieldTable, ShortString},
};
use clap::Args;
use nix::{
    time::{ClockId, clock_getcpuclockid},
    unistd::Pid,
};
use serde_json::{Value, json};

const REQUEST: &[u8] = br#"{"args": [], "kwargs": {"name": "zq"}}"#;
const GREETING: &str = "Hello, zq!";

/// Nameko's reply queues are named like this, after an id that is the routing key of replies as well.
const REPLY_TO: &str = "6f2d8e9a-51c4-4b0c-9d0e-0c5f3a7b1d42";
const CALL_ID: &str = "standalone_rpc_proxy.call.7d1f4c52-90ab-4f5e-8a7d-2b6e1c3f9a80";

/// How soon to try again while there is no service.
const RETRY: Duration = Duration::from_millis(1);

/// What to call, and for how long.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The broker, with its virtual host: amqp://user:password@host:port/%2F
    uri: String,
    /// The service to call
    service: String,
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

/// Calls and measures, as `run.py` says.
pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let patience = Duration::from_secs_f64(arguments.patience);
    let mut caller = Caller::new(&arguments.uri, &arguments.service, patience)?;
    say(&json!({"ready": true}))?;
    let mut line = String::new();
    stdin().read_line(&mut line)?;
    let service = Pid::from_raw(line.trim().parse()?);
    caller.first_answer(patience)?;
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

struct Caller {
    connection: Connection,
    service: String,
    routing_key: ShortString,
    reply_queue: String,
    /// Numbers every call, and tells late answers from those that are waited for.
    calls: u64,
    events: Vec<Event>,
}

/// What a run measured.
struct Run {
    latencies: Vec<Duration>,
    elapsed: Duration,
}

impl Caller {
    fn new(uri: &str, service: &str, patience: Duration) -> Result<Self, Failure> {
        let mut connection = Connection::open(uri)?;
        connection.give_up_after(Some(patience))?;
        connection.delete_queue(&queue(service))?;
        let reply_queue = format!("rpc.reply-standalone_rpc_proxy-{REPLY_TO}");
        connection.delete_queue(&reply_queue)?;
        let mut expiry = FieldTable::default();
        expiry.insert("x-expires".into(), AMQPValue::LongInt(300_000));
        connection.subscribe(EXCHANGE, &reply_queue, REPLY_TO, expiry, 0, true)?;
        Ok(Self {
            connection,
            service: service.to_owned(),
            routing_key: ShortString::try_new(format!("{service}.hello"))?,
            reply_queue,
            calls: 0,
            events: Vec::new(),
        })
    }

    /// Calls until the service is there and has answered.
    fn first_answer(&mut self, patience: Duration) -> Result<(), Failure> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            self.call(0);
            loop {
                self.connection.turn(&mut self.events)?;
                match self.events.pop() {
                    Some(Event::Delivery { body, .. }) => return check(&body),
                    Some(Event::Returned) => break,
                    _ => {}
                }
            }
            std::thread::sleep(RETRY);
        }
        Err(format!("service {} has not come up", self.service).into())
    }

    /// Keeps so many calls in flight until there were enough, or for long enough; returns when all are answered.
    fn run(&mut self, in_flight: usize, calls: usize, seconds: f64) -> Result<Run, Failure> {
        let mut latencies = Vec::with_capacity(calls);
        let begin = Instant::now();
        let end = begin + Duration::from_secs_f64(seconds);
        let mut begun: Vec<Instant> = vec![begin; in_flight];
        for slot in 0..in_flight {
            self.call(slot);
        }
        let mut waiting = in_flight;
        let mut made = in_flight;
        while waiting > 0 {
            self.connection.turn(&mut self.events)?;
            let now = Instant::now();
            for event in std::mem::take(&mut self.events) {
                let Event::Delivery {
                    properties, body, ..
                } = event
                else {
                    return Err(format!("service {} is gone: {event:?}", self.service).into());
                };
                check(&body)?;
                let slot = slot(&properties).ok_or("a reply without our correlation id")?;
                let since = begun
                    .get_mut(slot)
                    .ok_or("a reply to no call of this run")?;
                latencies.push(now - *since);
                if now < end && made < calls {
                    *since = now;
                    made += 1;
                    self.call(slot);
                } else {
                    waiting -= 1;
                }
            }
        }
        Ok(Run {
            latencies,
            elapsed: begin.elapsed(),
        })
    }

    fn call(&mut self, slot: usize) {
        self.calls += 1;
        let publish = basic::Publish {
            exchange: EXCHANGE.into(),
            routing_key: self.routing_key.clone(),
            mandatory: true,
            immediate: false,
        };
        let correlation_id = format!("{slot:08x}-0000-4000-8000-{:012x}", self.calls);
        let properties = properties()
            .with_headers(headers(CALL_ID))
            .with_reply_to(REPLY_TO.into())
            .with_correlation_id(correlation_id.as_str().into());
        self.connection
            .publish(publish, properties, REQUEST.to_vec());
    }

    fn clean(mut self) -> Result<(), Failure> {
        self.connection.delete_queue(&self.reply_queue)?;
        self.connection.delete_queue(&queue(&self.service))
    }
}

fn slot(properties: &basic::AMQPProperties) -> Option<usize> {
    let id = properties.correlation_id().as_ref()?;
    usize::from_str_radix(id.as_str().get(..8)?, 16).ok()
}

fn check(body: &[u8]) -> Result<(), Failure> {
    let reply: Value = serde_json::from_slice(body)?;
    if reply["result"] == GREETING && reply["error"].is_null() {
        Ok(())
    } else {
        Err(format!("not the expected answer: {reply}").into())
    }
}
