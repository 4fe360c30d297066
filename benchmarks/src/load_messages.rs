//! Load of events and messages on a service that reports its progress, see `reports.rs`.

use std::{
    collections::HashMap,
    net::UdpSocket,
    time::{Duration, Instant},
};

use crate::{
    connection::{Connection, headers, properties},
    hello::Failure,
    load::{Caller, Limit, Load, Run, until_answered},
};
use amq_protocol::{protocol::basic, types::ShortString};
use clap::Args;

const CALL_ID: &str = "bench_source.dispatch.7d1f4c52-90ab-4f5e-8a7d-2b6e1c3f9a80";

/// Messages per report of the service.
const REPORT: u64 = 100;

/// Maximum number of bytes in queues, and of handled messages outstanding.
const WINDOW_BYTES: u64 = 8 << 20;
const WINDOW_MESSAGES: u64 = 2_000;

/// A message that resets the count of the service: a short JSON string.
const RESET: &[u8] = br#""0""#;

/// Pause between two attempts to reset.
const RESET_INTERVAL: Duration = Duration::from_millis(20);

/// The destinations of messages.
#[derive(Args)]
pub(crate) struct Target {
    /// Broker and virtual host: amqp://user:password@host:port/%2F
    uri: String,
    /// Port for the reports of the service
    port: u16,
    /// Exchange and routing key of a kind of messages: KIND=EXCHANGE/ROUTING_KEY
    #[arg(long = "to", required = true)]
    destinations: Vec<String>,
    /// Queues to delete before and after the measurement
    #[arg(long = "queue")]
    queues: Vec<String>,
    /// Number of queues that receive each message
    #[arg(long, default_value_t = 1)]
    copies: u64,
}

pub(crate) struct MessageCaller {
    connection: Connection,
    reports: UdpSocket,
    timeout: Duration,
    /// Exchange and routing key by kind.
    destinations: HashMap<String, (ShortString, ShortString)>,
    queues: Vec<String>,
    copies: u64,
}

impl MessageCaller {
    pub(crate) fn new(target: Target, timeout: Duration) -> Result<Self, Failure> {
        let mut connection = Connection::open(&target.uri)?;
        let mut destinations = HashMap::new();
        for destination in &target.destinations {
            let parsed = destination
                .split_once('=')
                .and_then(|(kind, address)| Some((kind, address.split_once('/')?)));
            let (kind, (exchange, key)) = parsed.ok_or("not KIND=EXCHANGE/ROUTING_KEY")?;
            if !exchange.is_empty() {
                connection.declare_exchange(exchange)?;
            }
            let address = (ShortString::try_new(exchange)?, ShortString::try_new(key)?);
            destinations.insert(kind.to_owned(), address);
        }
        for queue in &target.queues {
            connection.delete_queue(queue)?;
        }
        Ok(Self {
            connection,
            reports: UdpSocket::bind(("127.0.0.1", target.port))?,
            timeout,
            destinations,
            queues: target.queues,
            copies: target.copies,
        })
    }

    fn publish(&mut self, kind: &str, body: Vec<u8>) -> Result<(), Failure> {
        let (exchange, routing_key) = self.destinations.get(kind).ok_or("unknown kind")?.clone();
        let publish = basic::Publish {
            exchange,
            routing_key,
            mandatory: false,
            immediate: false,
        };
        let properties = properties().with_headers(headers(CALL_ID));
        self.connection.publish(publish, properties, body);
        Ok(())
    }

    /// Returns the next count of the service, or `None` if there is none in time.
    fn report(&self, timeout: Duration) -> Result<Option<u64>, Failure> {
        self.reports.set_read_timeout(Some(timeout))?;
        let mut datagram = [0; 20];
        match self.reports.recv(&mut datagram) {
            Ok(length) => Ok(Some(
                std::str::from_utf8(datagram.get(..length).unwrap_or_default())?.parse()?,
            )),
            Err(_) => Ok(None),
        }
    }

    /// Resets the count of the service. Returns whether all copies of the message were handled.
    fn reset(&mut self, kind: &str, timeout: Duration) -> Result<bool, Failure> {
        self.publish(kind, RESET.to_vec())?;
        self.connection.flush()?;
        for _ in 0..self.copies {
            if self.report(timeout)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Caller for MessageCaller {
    fn first_answer(&mut self, timeout: Duration) -> Result<(), Failure> {
        let mut kinds: Vec<String> = self.destinations.keys().cloned().collect();
        until_answered(timeout, || {
            while let Some(kind) = kinds.last().cloned() {
                if !self.reset(&kind, RESET_INTERVAL)? {
                    return Ok(false);
                }
                kinds.pop();
            }
            Ok(true)
        })?;
        // Late answers to earlier attempts.
        while self.report(Duration::from_millis(200))?.is_some() {}
        Ok(())
    }

    fn run(&mut self, load: &Load, limit: Limit) -> Result<Run, Failure> {
        if !self.reset(&load.operation, self.timeout)? {
            return Err("no report from the service".into());
        }
        let body = format!("\"{}\"", "x".repeat(load.number - 2)).into_bytes();
        let bytes = load.number as u64 * self.copies;
        let window = (WINDOW_BYTES / bytes).clamp(4 * REPORT, WINDOW_MESSAGES);
        let begin = Instant::now();
        let end = begin + Duration::from_secs_f64(limit.seconds);
        let (mut published, mut handled) = (0, 0);
        loop {
            let more = Instant::now() < end && published < limit.calls as u64;
            // Whole reports, so that the last message is reported.
            while more && published * self.copies < handled + window {
                for _ in 0..REPORT / self.copies {
                    self.publish(&load.operation, body.clone())?;
                }
                published += REPORT / self.copies;
                self.connection.flush()?;
            }
            if handled == published * self.copies {
                break;
            }
            let count = self.report(self.timeout)?;
            handled = handled.max(count.ok_or("no report from the service")?);
        }
        Ok(Run {
            calls: published as usize,
            latencies: Vec::new(),
            elapsed: begin.elapsed(),
        })
    }

    fn clean_up(mut self) -> Result<(), Failure> {
        for queue in &self.queues {
            self.connection.delete_queue(queue)?;
        }
        Ok(())
    }
}
