//! A blocking AMQP connection with one channel, straight on the codec: the least that speaking AMQP costs.
//!
//! Everything that one read brought is answered with one write. It trusts its broker, and an error ends the program.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use amq_protocol::{
    frame::{AMQPContentHeader, AMQPFrame, WriteContext, gen_frame, parse_frame},
    protocol::{AMQPClass, BasicProperties, basic, channel, connection, exchange, queue},
    types::{AMQPValue, FieldTable, LongString, ShortString},
    uri::AMQPUri,
};

use crate::hello::Failure;

const CHANNEL: u16 = 1;
/// Type, channel and length before a frame's payload.
const PREFIX: usize = 7;

/// What a read brought.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "most events are deliveries")]
pub(crate) enum Event {
    /// A message for the consumer.
    Delivery {
        /// To acknowledge it with.
        tag: u64,
        /// Its properties.
        properties: BasicProperties,
        /// Its body.
        body: Vec<u8>,
    },
    /// A mandatory message that no queue takes.
    Returned,
    /// Published messages are in the broker's hands.
    Confirmed {
        /// The number of the publish on its channel, from 1.
        number: u64,
        /// Every one before it, too.
        multiple: bool,
    },
    /// An answer to a synchronous method.
    Answer(AMQPClass),
}

/// A connection with one open channel.
pub(crate) struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    /// Where the bytes end that came and are not parsed.
    end: usize,
    output: Vec<u8>,
    /// The message whose header or body is still to come.
    partial: Option<Partial>,
    /// What came along with the answer to a synchronous method: the next turn hands it out.
    early: Vec<Event>,
}

struct Partial {
    method: basic::AMQPMethod,
    properties: BasicProperties,
    body: Vec<u8>,
    missing: u64,
}

impl Connection {
    /// Connects, without heartbeats, and opens the channel.
    ///
    /// # Errors
    ///
    /// The broker cannot be reached or refuses.
    pub(crate) fn open(uri: &str) -> Result<Self, Failure> {
        let uri: AMQPUri = uri.parse()?;
        let stream = TcpStream::connect((uri.authority.host.as_str(), uri.authority.port))?;
        stream.set_nodelay(true)?;
        let mut this = Self {
            stream,
            input: vec![0; 256 * 1024],
            end: 0,
            output: b"AMQP\x00\x00\x09\x01".to_vec(),
            partial: None,
            early: Vec::new(),
        };
        this.answer()?;
        let user = &uri.authority.userinfo;
        this.method(
            0,
            AMQPClass::Connection(connection::AMQPMethod::StartOk(connection::StartOk {
                client_properties: FieldTable::default(),
                mechanism: "PLAIN".into(),
                response: LongString::from(format!("\0{}\0{}", user.username, user.password)),
                locale: "en_US".into(),
            })),
        );
        let tune = match this.answer()? {
            AMQPClass::Connection(connection::AMQPMethod::Tune(tune)) => tune,
            other => return Err(format!("the broker refuses the login: {other:?}").into()),
        };
        this.method(
            0,
            AMQPClass::Connection(connection::AMQPMethod::TuneOk(connection::TuneOk {
                channel_max: tune.channel_max,
                frame_max: tune.frame_max,
                heartbeat: 0,
            })),
        );
        this.method(
            0,
            AMQPClass::Connection(connection::AMQPMethod::Open(connection::Open {
                virtual_host: ShortString::try_new(uri.vhost.as_str())?,
            })),
        );
        this.answer()?;
        this.call(AMQPClass::Channel(channel::AMQPMethod::Open(
            channel::Open {},
        )))?;
        Ok(this)
    }

    /// Ends waiting for the broker after so long.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub(crate) fn give_up_after(&self, patience: Option<Duration>) -> Result<(), Failure> {
        Ok(self.stream.set_read_timeout(patience)?)
    }

    /// Sends a synchronous method and waits for its answer.
    ///
    /// # Errors
    ///
    /// The connection is lost, or the broker closes it or the channel.
    pub(crate) fn call(&mut self, class: AMQPClass) -> Result<AMQPClass, Failure> {
        self.method(CHANNEL, class);
        self.answer()
    }

    /// Declares a durable topic exchange, a durable queue with a binding to it, and consumes it.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub(crate) fn subscribe(
        &mut self,
        exchange: &str,
        queue: &str,
        key: &str,
        arguments: FieldTable,
        prefetch: u16,
        no_ack: bool,
    ) -> Result<(), Failure> {
        let (exchange, queue, key) = (
            ShortString::try_new(exchange)?,
            ShortString::try_new(queue)?,
            ShortString::try_new(key)?,
        );
        self.call(AMQPClass::Exchange(exchange::AMQPMethod::Declare(
            exchange::Declare {
                exchange: exchange.clone(),
                kind: "topic".into(),
                durable: true,
                ..exchange::Declare::default()
            },
        )))?;
        self.call(AMQPClass::Queue(queue::AMQPMethod::Declare(
            queue::Declare {
                queue: queue.clone(),
                durable: true,
                arguments,
                ..queue::Declare::default()
            },
        )))?;
        self.call(AMQPClass::Queue(queue::AMQPMethod::Bind(queue::Bind {
            queue: queue.clone(),
            exchange,
            routing_key: key,
            ..queue::Bind::default()
        })))?;
        self.call(AMQPClass::Basic(basic::AMQPMethod::Qos(basic::Qos {
            prefetch_count: prefetch,
            global: false,
        })))?;
        self.call(AMQPClass::Basic(basic::AMQPMethod::Consume(
            basic::Consume {
                queue,
                no_ack,
                ..basic::Consume::default()
            },
        )))?;
        Ok(())
    }

    /// Deletes a queue, whether there is one or not.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub(crate) fn delete_queue(&mut self, queue: &str) -> Result<(), Failure> {
        self.call(AMQPClass::Queue(queue::AMQPMethod::Delete(queue::Delete {
            queue: ShortString::try_new(queue)?,
            ..queue::Delete::default()
        })))?;
        Ok(())
    }

    /// Publishes with the next write.
    pub(crate) fn publish(
        &mut self,
        publish: basic::Publish,
        properties: BasicProperties,
        body: Vec<u8>,
    ) {
        self.method(
            CHANNEL,
            AMQPClass::Basic(basic::AMQPMethod::Publish(publish)),
        );
        self.frame(&AMQPFrame::Header(
            CHANNEL,
            AMQPContentHeader {
                class_id: 60,
                body_size: body.len() as u64,
                properties,
            },
        ));
        self.frame(&AMQPFrame::Body(CHANNEL, body));
    }

    /// Acknowledges with the next write.
    pub(crate) fn ack(&mut self, tag: u64) {
        self.method(
            CHANNEL,
            AMQPClass::Basic(basic::AMQPMethod::Ack(basic::Ack {
                delivery_tag: tag,
                multiple: false,
            })),
        );
    }

    /// Writes what is to be written, waits for something to come, and appends all of it to `events`.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub(crate) fn turn(&mut self, events: &mut Vec<Event>) -> Result<(), Failure> {
        if !self.output.is_empty() {
            self.stream.write_all(&self.output)?;
            self.output.clear();
        }
        if !self.early.is_empty() {
            events.append(&mut self.early);
            return Ok(());
        }
        let room = self.input.get_mut(self.end..).unwrap_or_default();
        match self.stream.read(room) {
            Ok(0) => return Err("the broker closed the connection".into()),
            Ok(count) => self.end += count,
            Err(error) => return Err(format!("no word from the broker: {error}").into()),
        }
        let mut start = 0;
        while let Some([_, _, _, length @ ..]) = self.input[start..self.end].first_chunk::<PREFIX>()
        {
            let size = PREFIX + u32::from_be_bytes(*length) as usize + 1;
            let Some(bytes) = self.input[start..self.end].get(..size) else {
                break;
            };
            let (_, frame) =
                parse_frame(bytes).map_err(|error| format!("no AMQP frame: {error:?}"))?;
            start += size;
            if let Some(event) = take(&mut self.partial, frame)? {
                events.push(event);
            }
        }
        self.input.copy_within(start..self.end, 0);
        self.end -= start;
        Ok(())
    }

    fn answer(&mut self) -> Result<AMQPClass, Failure> {
        let mut events = Vec::new();
        loop {
            self.turn(&mut events)?;
            if let Some(at) = events
                .iter()
                .position(|event| matches!(event, Event::Answer(_)))
                && let Event::Answer(class) = events.remove(at)
            {
                self.early = events;
                return Ok(class);
            }
        }
    }

    fn method(&mut self, channel: u16, class: AMQPClass) {
        self.frame(&AMQPFrame::Method(channel, class));
    }

    fn frame(&mut self, frame: &AMQPFrame) {
        let context = WriteContext::from(std::mem::take(&mut self.output));
        match gen_frame(frame)(context) {
            Ok(written) => self.output = written.into_inner().0,
            Err(error) => unreachable!("a Vec takes every frame: {error}"),
        }
    }
}

/// Adds a frame to the message that is being put together; the event that is whole with it.
fn take(partial: &mut Option<Partial>, frame: AMQPFrame) -> Result<Option<Event>, Failure> {
    match frame {
        AMQPFrame::Method(
            _,
            AMQPClass::Basic(
                method @ (basic::AMQPMethod::Deliver(_) | basic::AMQPMethod::Return(_)),
            ),
        ) => {
            *partial = Some(Partial {
                method,
                properties: BasicProperties::default(),
                body: Vec::new(),
                missing: 0,
            });
            return Ok(None);
        }
        AMQPFrame::Method(_, AMQPClass::Basic(basic::AMQPMethod::Ack(ack))) => {
            return Ok(Some(Event::Confirmed {
                number: ack.delivery_tag,
                multiple: ack.multiple,
            }));
        }
        AMQPFrame::Method(_, AMQPClass::Channel(channel::AMQPMethod::Close(close))) => {
            return Err(format!("the broker closed the channel: {}", close.reply_text).into());
        }
        AMQPFrame::Method(_, AMQPClass::Connection(connection::AMQPMethod::Close(close))) => {
            return Err(format!("the broker closed the connection: {}", close.reply_text).into());
        }
        AMQPFrame::Method(_, class) => return Ok(Some(Event::Answer(class))),
        AMQPFrame::Header(_, header) => {
            if let Some(partial) = partial {
                partial.missing = header.body_size;
                partial.properties = header.properties;
            }
        }
        AMQPFrame::Body(_, body) => {
            if let Some(partial) = partial {
                partial.missing = partial.missing.saturating_sub(body.len() as u64);
                if partial.body.is_empty() {
                    partial.body = body;
                } else {
                    partial.body.extend(body);
                }
            }
        }
        _ => return Ok(None),
    }
    Ok(partial
        .take_if(|partial| partial.missing == 0)
        .map(|whole| match whole.method {
            basic::AMQPMethod::Deliver(deliver) => Event::Delivery {
                tag: deliver.delivery_tag,
                properties: whole.properties,
                body: whole.body,
            },
            _ => Event::Returned,
        }))
}

/// The properties of every Nameko message.
pub(crate) fn properties() -> BasicProperties {
    BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("utf-8".into())
        .with_headers(FieldTable::default())
        .with_delivery_mode(2)
        .with_priority(0)
}

/// The headers of a call that a script makes.
pub(crate) fn headers(call_id: &str) -> FieldTable {
    let mut headers = FieldTable::default();
    let stack = vec![AMQPValue::LongString(call_id.into())];
    headers.insert(
        "nameko.call_id_stack".into(),
        AMQPValue::FieldArray(stack.into()),
    );
    headers
}
