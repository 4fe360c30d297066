//! A publisher on a bare loop, with a number of messages outstanding.

use std::time::{Duration, Instant};

use amq_protocol::protocol::basic;

use super::{EVENT, EXCHANGE};
use crate::{
    connection::{Connection, Event, properties},
    hello::Failure,
    load::{Caller, Limit, Load, Run},
};

pub(crate) struct Loop {
    connection: Connection,
    body: String,
    /// Messages confirmed so far.
    confirmed: u64,
    /// Messages published so far.
    published: u64,
    events: Vec<Event>,
}

impl Loop {
    pub(crate) fn connect(uri: &str) -> Result<Self, Failure> {
        let mut connection = Connection::open(uri)?;
        connection.select_confirms()?;
        Ok(Self {
            connection,
            body: super::body(),
            confirmed: 0,
            published: 0,
            events: Vec::new(),
        })
    }

    fn publish(&mut self) -> Result<(), Failure> {
        let event = basic::Publish {
            exchange: EXCHANGE.into(),
            routing_key: EVENT.into(),
            mandatory: false,
            immediate: false,
        };
        let body = serde_json::to_vec(&self.body)?;
        self.connection.publish(event, properties(), body);
        self.published += 1;
        Ok(())
    }
}

impl Caller for Loop {
    fn first_answer(&mut self, _: Duration) -> Result<(), Failure> {
        Ok(())
    }

    fn run(&mut self, load: &Load, limit: Limit) -> Result<Run, Failure> {
        let begin = Instant::now();
        let end = begin + Duration::from_secs_f64(limit.seconds);
        let first = self.published;
        loop {
            if Instant::now() < end {
                while self.published - self.confirmed < load.number as u64 {
                    self.publish()?;
                }
            } else if self.published == self.confirmed {
                break;
            }
            self.connection.poll(&mut self.events)?;
            for event in self.events.drain(..) {
                match event {
                    Event::Confirmed { number, multiple } if multiple => {
                        self.confirmed = self.confirmed.max(number);
                    }
                    Event::Confirmed { .. } => self.confirmed += 1,
                    _ => {}
                }
            }
        }
        Ok(Run {
            calls: (self.published - first) as usize,
            latencies: Vec::new(),
            elapsed: begin.elapsed(),
        })
    }

    fn clean_up(self) -> Result<(), Failure> {
        Ok(())
    }
}
