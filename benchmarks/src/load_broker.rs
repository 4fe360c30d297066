//! Load on a broker, by one blocking client.

use std::time::{Duration, Instant};

use amq_protocol::{
    protocol::basic,
    types::{FieldTable, ShortString},
};

use crate::{
    connection::{Connection, Event, properties},
    hello::Failure,
    load::{Caller, Limit, Load, Run, until_answered},
};

const EXCHANGE: &str = "bench_broker";
/// The only queue with a consumer unless there are several.
const QUEUE: &str = "bench_broker";
/// Binding keys of one queue, or queues with one binding key.
const BINDINGS: usize = 1_000;
const FAN_OUT: usize = 10;
const BODY_BYTES: usize = 100;
/// Prefetch count of consumers with acknowledgements.
const PREFETCH: u16 = 100;

/// A scenario with its own connection, queues and consumers.
struct Scenario {
    connection: Connection,
    exchange: ShortString,
    routing_keys: Vec<ShortString>,
    /// Answers per message that end its flight: a confirm, or deliveries.
    answers: usize,
    acknowledge: bool,
    queues: Vec<String>,
}

pub(crate) struct BrokerCaller {
    uri: String,
}

impl BrokerCaller {
    pub(crate) fn new(uri: &str) -> Self {
        Self {
            uri: uri.to_owned(),
        }
    }

    /// Prepares the scenario of a load.
    fn scenario(&self, operation: &str) -> Result<Scenario, Failure> {
        let mut connection = Connection::open(&self.uri)?;
        connection.set_read_timeout(Some(Duration::from_secs(20)))?;
        connection.declare_exchange(EXCHANGE)?;
        let queues: Vec<String> = match operation {
            "publish" | "confirm" | "consume" | "topic" => vec![QUEUE.to_owned()],
            "fanout" => (0..FAN_OUT).map(|n| format!("{QUEUE}-{n}")).collect(),
            _ => return Err(format!("unknown operation {operation}").into()),
        };
        let keys = match operation {
            "topic" => (0..BINDINGS).map(|n| format!("key.{n}.*")).collect(),
            _ => vec!["key.0.*".to_owned()],
        };
        for queue in &queues {
            connection.delete_queue(queue)?;
            let mut arguments = FieldTable::default();
            if matches!(operation, "publish" | "confirm") {
                // No consumer: the queue keeps the newest messages.
                arguments.insert("x-max-length".into(), 1_000.into());
            }
            connection.declare_queue(queue, arguments)?;
            for key in &keys {
                connection.bind(queue, EXCHANGE, key)?;
            }
            match operation {
                "consume" => connection.consume(queue, PREFETCH, false)?,
                "fanout" | "topic" => connection.consume(queue, 0, true)?,
                _ => {}
            }
        }
        if operation == "confirm" {
            connection.select_confirms()?;
        }
        let routing_keys: Result<Vec<_>, _> = (0..keys.len())
            .map(|n| ShortString::try_new(format!("key.{n}.x")))
            .collect();
        Ok(Scenario {
            connection,
            exchange: EXCHANGE.into(),
            routing_keys: routing_keys?,
            answers: match operation {
                "publish" => 0,
                "fanout" => FAN_OUT,
                _ => 1,
            },
            acknowledge: operation == "consume",
            queues,
        })
    }
}

impl Caller for BrokerCaller {
    fn first_answer(&mut self, timeout: Duration) -> Result<(), Failure> {
        until_answered(timeout, || Ok(Connection::open(&self.uri).is_ok()))
    }

    fn run(&mut self, load: &Load, limit: Limit) -> Result<Run, Failure> {
        let mut scenario = self.scenario(&load.operation)?;
        let run = scenario.run(load.number, limit)?;
        for queue in &scenario.queues {
            scenario.connection.delete_queue(queue)?;
        }
        scenario.connection.delete_exchange(EXCHANGE)?;
        Ok(run)
    }

    fn clean_up(self) -> Result<(), Failure> {
        Ok(())
    }
}

impl Scenario {
    fn run(&mut self, in_flight: usize, limit: Limit) -> Result<Run, Failure> {
        let begin = Instant::now();
        let end = begin + Duration::from_secs_f64(limit.seconds);
        let (mut published, mut answered) = (0, 0);
        let mut events = Vec::new();
        loop {
            if Instant::now() < end {
                // Without answers, the response to a declaration follows all earlier messages.
                let unanswered = published - answered / self.answers.max(1);
                for _ in 0..in_flight.saturating_sub(unanswered) {
                    self.publish(published);
                    published += 1;
                }
            } else if answered >= published * self.answers {
                break;
            }
            if self.answers == 0 {
                self.connection.declare_exchange(EXCHANGE)?;
                answered = published;
                continue;
            }
            self.connection.poll(&mut events)?;
            for event in events.drain(..) {
                match event {
                    Event::Delivery { tag, .. } => {
                        answered += 1;
                        if self.acknowledge {
                            self.connection.ack(tag);
                        }
                    }
                    Event::Confirmed { number, multiple } if multiple => {
                        answered = answered.max(number as usize);
                    }
                    Event::Confirmed { .. } => answered += 1,
                    Event::Returned | Event::Response(_) => {}
                }
            }
        }
        Ok(Run {
            calls: published,
            latencies: Vec::new(),
            elapsed: begin.elapsed(),
        })
    }

    fn publish(&mut self, number: usize) {
        // A step that is coprime to the number of keys visits all of them, out of order.
        let at = number * 7 % self.routing_keys.len();
        let publish = basic::Publish {
            exchange: self.exchange.clone(),
            routing_key: self.routing_keys.get(at).cloned().unwrap_or_default(),
            mandatory: false,
            immediate: false,
        };
        self.connection
            .publish(publish, properties(), vec![b'x'; BODY_BYTES]);
    }
}
