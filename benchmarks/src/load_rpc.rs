//! RPC load on a hello service, with the messages of a Nameko client.

use std::time::{Duration, Instant};

use crate::{
    connection::{Connection, Event, headers, properties},
    hello::{EXCHANGE, Failure, queue},
    load::{Caller, Limit, Load, Run, until_answered},
};
use amq_protocol::{
    protocol::basic,
    types::{AMQPValue, FieldTable, ShortString},
};
use serde_json::Value;

const REQUEST: &[u8] = br#"{"args": [], "kwargs": {"name": "zq"}}"#;
const GREETING: &str = "Hello, zq!";

/// The id in the name of the reply queue, and the routing key of replies.
const REPLY_TO: &str = "6f2d8e9a-51c4-4b0c-9d0e-0c5f3a7b1d42";
const CALL_ID: &str = "standalone_rpc_proxy.call.7d1f4c52-90ab-4f5e-8a7d-2b6e1c3f9a80";

pub(crate) struct RpcCaller {
    connection: Connection,
    service: String,
    /// Queues to delete before and after the measurement.
    queues: Vec<String>,
    /// Number of calls so far, part of the correlation ids.
    calls: u64,
    events: Vec<Event>,
}

impl RpcCaller {
    /// Connects and deletes the queues of the service and of `others`, the other services in its
    /// program.
    pub(crate) fn new(
        uri: &str,
        service: &str,
        others: &[String],
        timeout: Duration,
    ) -> Result<Self, Failure> {
        let mut connection = Connection::open(uri)?;
        connection.set_read_timeout(Some(timeout))?;
        let reply_queue = format!("rpc.reply-standalone_rpc_proxy-{REPLY_TO}");
        let mut queues = vec![reply_queue.clone(), queue(service)];
        queues.extend(others.iter().map(|service| queue(service)));
        for queue in &queues {
            connection.delete_queue(queue)?;
        }
        let mut expiry = FieldTable::default();
        expiry.insert("x-expires".into(), AMQPValue::LongInt(300_000));
        connection.subscribe(EXCHANGE, &reply_queue, REPLY_TO, expiry, 0, true)?;
        Ok(Self {
            connection,
            service: service.to_owned(),
            queues,
            calls: 0,
            events: Vec::new(),
        })
    }

    fn routing_key(&self, method: &str) -> Result<ShortString, Failure> {
        Ok(ShortString::try_new(format!("{}.{method}", self.service))?)
    }

    fn call(&mut self, routing_key: &ShortString, slot: usize) {
        self.calls += 1;
        let publish = basic::Publish {
            exchange: EXCHANGE.into(),
            routing_key: routing_key.clone(),
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
}

impl Caller for RpcCaller {
    fn first_answer(&mut self, timeout: Duration) -> Result<(), Failure> {
        let routing_key = self.routing_key("hello")?;
        until_answered(timeout, || {
            self.call(&routing_key, 0);
            loop {
                self.connection.poll(&mut self.events)?;
                match self.events.pop() {
                    // A service of a chain that starts before the next one does not find it yet.
                    Some(Event::Delivery { body, .. }) if is_unknown_service(&body) => {
                        return Ok(false);
                    }
                    Some(Event::Delivery { body, .. }) => return check(&body).map(|()| true),
                    Some(Event::Returned) => return Ok(false),
                    _ => {}
                }
            }
        })
    }

    fn run(&mut self, load: &Load, limit: Limit) -> Result<Run, Failure> {
        let routing_key = self.routing_key(&load.operation)?;
        let in_flight = load.number;
        let mut latencies = Vec::with_capacity(limit.calls);
        let begin = Instant::now();
        let end = begin + Duration::from_secs_f64(limit.seconds);
        let mut started: Vec<Instant> = vec![begin; in_flight];
        for slot in 0..in_flight {
            self.call(&routing_key, slot);
        }
        let mut unanswered = in_flight;
        let mut made = in_flight;
        while unanswered > 0 {
            self.connection.poll(&mut self.events)?;
            let now = Instant::now();
            for event in std::mem::take(&mut self.events) {
                let Event::Delivery {
                    properties, body, ..
                } = event
                else {
                    return Err(format!(
                        "unexpected event from service {}: {event:?}",
                        self.service
                    )
                    .into());
                };
                check(&body)?;
                let slot = slot(&properties).ok_or("reply with an unknown correlation id")?;
                let since = started
                    .get_mut(slot)
                    .ok_or("reply to a call of an earlier run")?;
                latencies.push(now - *since);
                if now < end && made < limit.calls {
                    *since = now;
                    made += 1;
                    self.call(&routing_key, slot);
                } else {
                    unanswered -= 1;
                }
            }
        }
        Ok(Run::timed(latencies, begin.elapsed()))
    }

    fn clean_up(mut self) -> Result<(), Failure> {
        for queue in &self.queues {
            self.connection.delete_queue(queue)?;
        }
        Ok(())
    }
}

fn slot(properties: &basic::AMQPProperties) -> Option<usize> {
    let id = properties.correlation_id().as_ref()?;
    usize::from_str_radix(id.as_str().get(..8)?, 16).ok()
}

fn is_unknown_service(body: &[u8]) -> bool {
    let reply: Value = serde_json::from_slice(body).unwrap_or_default();
    reply["error"]["exc_type"] == "UnknownService"
}

fn check(body: &[u8]) -> Result<(), Failure> {
    let reply: Value = serde_json::from_slice(body)?;
    if reply["result"] == GREETING && reply["error"].is_null() {
        Ok(())
    } else {
        Err(format!("unexpected reply: {reply}").into())
    }
}
