//! A blocking AMQP connection with one channel, directly on the codec: the lower bound of the cost
//! of AMQP.
//!
//! The output of all events of one read is sent with one write. It trusts the broker; an error ends
//! the program.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use amq_protocol::{
    frame::{AMQPContentHeader, AMQPFrame, WriteContext, gen_frame, parse_frame},
    protocol::{AMQPClass, BasicProperties, basic, channel, confirm, connection, exchange, queue},
    types::{AMQPValue, FieldTable, LongString, ShortString},
    uri::AMQPUri,
};

use crate::hello::Failure;

const CHANNEL: u16 = 1;
/// Length of a frame header: type, channel and payload size.
const FRAME_HEADER_BYTES: usize = 7;

/// An incoming event.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "most events are deliveries")]
pub(crate) enum Event {
    /// A message for the consumer.
    Delivery {
        /// The delivery tag.
        tag: u64,
        /// The message properties.
        properties: BasicProperties,
        /// The message body.
        body: Vec<u8>,
    },
    /// A mandatory message was returned as unroutable.
    Returned,
    /// A publisher confirm.
    Confirmed {
        /// The number of the message on its channel, starting at 1.
        number: u64,
        /// Whether all earlier messages are confirmed too.
        multiple: bool,
    },
    /// The response to a synchronous method.
    Response(AMQPClass),
}

/// A connection with one open channel.
pub(crate) struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    /// End of the unparsed bytes in `input`.
    end: usize,
    output: Vec<u8>,
    /// An incomplete message, awaiting its header or body.
    partial: Option<Partial>,
    /// Events that arrived before a response, returned by the next `poll`.
    pending: Vec<Event>,
}

struct Partial {
    method: basic::AMQPMethod,
    properties: BasicProperties,
    body: Vec<u8>,
    missing: u64,
}

impl Connection {
    /// Connects without heartbeats and opens the channel.
    ///
    /// # Errors
    ///
    /// If the broker is unreachable or refuses the connection.
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
            pending: Vec::new(),
        };
        this.response()?;
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
        let tune = match this.response()? {
            AMQPClass::Connection(connection::AMQPMethod::Tune(tune)) => tune,
            other => return Err(format!("login refused by the broker: {other:?}").into()),
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
        this.response()?;
        this.call(AMQPClass::Channel(channel::AMQPMethod::Open(
            channel::Open {},
        )))?;
        Ok(this)
    }

    /// Limits the time to wait for the broker.
    ///
    /// # Errors
    ///
    /// If the timeout is zero.
    pub(crate) fn set_read_timeout(&self, timeout: Option<Duration>) -> Result<(), Failure> {
        Ok(self.stream.set_read_timeout(timeout)?)
    }

    /// Sends a synchronous method and waits for its response.
    ///
    /// # Errors
    ///
    /// If the connection is lost, or the broker closes it or the channel.
    pub(crate) fn call(&mut self, class: AMQPClass) -> Result<AMQPClass, Failure> {
        self.method(CHANNEL, class);
        self.response()
    }

    /// Declares a durable topic exchange and a durable queue, binds them, and starts a consumer.
    ///
    /// # Errors
    ///
    /// See [`call`](Self::call).
    pub(crate) fn subscribe(
        &mut self,
        exchange: &str,
        queue: &str,
        key: &str,
        arguments: FieldTable,
        prefetch: u16,
        no_ack: bool,
    ) -> Result<(), Failure> {
        self.declare_exchange(exchange)?;
        self.declare_queue(queue, arguments)?;
        self.bind(queue, exchange, key)?;
        self.consume(queue, prefetch, no_ack)
    }

    /// Declares a durable topic exchange.
    ///
    /// # Errors
    ///
    /// See [`call`](Self::call).
    pub(crate) fn declare_exchange(&mut self, exchange: &str) -> Result<(), Failure> {
        self.call(AMQPClass::Exchange(exchange::AMQPMethod::Declare(
            exchange::Declare {
                exchange: ShortString::try_new(exchange)?,
                kind: "topic".into(),
                durable: true,
                ..exchange::Declare::default()
            },
        )))?;
        Ok(())
    }

    /// Declares a durable queue.
    ///
    /// # Errors
    ///
    /// See [`call`](Self::call).
    pub(crate) fn declare_queue(
        &mut self,
        queue: &str,
        arguments: FieldTable,
    ) -> Result<(), Failure> {
        self.call(AMQPClass::Queue(queue::AMQPMethod::Declare(
            queue::Declare {
                queue: ShortString::try_new(queue)?,
                durable: true,
                arguments,
                ..queue::Declare::default()
            },
        )))?;
        Ok(())
    }

    /// Binds a queue to an exchange.
    ///
    /// # Errors
    ///
    /// See [`call`](Self::call).
    pub(crate) fn bind(&mut self, queue: &str, exchange: &str, key: &str) -> Result<(), Failure> {
        self.call(AMQPClass::Queue(queue::AMQPMethod::Bind(queue::Bind {
            queue: ShortString::try_new(queue)?,
            exchange: ShortString::try_new(exchange)?,
            routing_key: ShortString::try_new(key)?,
            ..queue::Bind::default()
        })))?;
        Ok(())
    }

    /// Sets the prefetch count of later consumers and starts a consumer.
    ///
    /// # Errors
    ///
    /// See [`call`](Self::call).
    pub(crate) fn consume(
        &mut self,
        queue: &str,
        prefetch: u16,
        no_ack: bool,
    ) -> Result<(), Failure> {
        self.call(AMQPClass::Basic(basic::AMQPMethod::Qos(basic::Qos {
            prefetch_count: prefetch,
            global: false,
        })))?;
        self.call(AMQPClass::Basic(basic::AMQPMethod::Consume(
            basic::Consume {
                queue: ShortString::try_new(queue)?,
                no_ack,
                ..basic::Consume::default()
            },
        )))?;
        Ok(())
    }

    /// Puts the channel into confirm mode.
    ///
    /// # Errors
    ///
    /// See [`call`](Self::call).
    pub(crate) fn select_confirms(&mut self) -> Result<(), Failure> {
        self.call(AMQPClass::Confirm(confirm::AMQPMethod::Select(
            confirm::Select { nowait: false },
        )))?;
        Ok(())
    }

    /// Deletes an exchange if it exists.
    ///
    /// # Errors
    ///
    /// See [`call`](Self::call).
    pub(crate) fn delete_exchange(&mut self, exchange: &str) -> Result<(), Failure> {
        self.call(AMQPClass::Exchange(exchange::AMQPMethod::Delete(
            exchange::Delete {
                exchange: ShortString::try_new(exchange)?,
                ..exchange::Delete::default()
            },
        )))?;
        Ok(())
    }

    /// Deletes a queue if it exists.
    ///
    /// # Errors
    ///
    /// See [`call`](Self::call).
    pub(crate) fn delete_queue(&mut self, queue: &str) -> Result<(), Failure> {
        self.call(AMQPClass::Queue(queue::AMQPMethod::Delete(queue::Delete {
            queue: ShortString::try_new(queue)?,
            ..queue::Delete::default()
        })))?;
        Ok(())
    }

    /// Queues a message for the next write.
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

    /// Queues an acknowledgement for the next write.
    pub(crate) fn ack(&mut self, tag: u64) {
        self.method(
            CHANNEL,
            AMQPClass::Basic(basic::AMQPMethod::Ack(basic::Ack {
                delivery_tag: tag,
                multiple: false,
            })),
        );
    }

    /// Writes the queued output.
    ///
    /// # Errors
    ///
    /// If the connection is lost.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        if !self.output.is_empty() {
            self.stream.write_all(&self.output)?;
            self.output.clear();
        }
        Ok(())
    }

    /// Writes the queued output, waits for input, and appends its events to `events`.
    ///
    /// # Errors
    ///
    /// See [`call`](Self::call).
    pub(crate) fn poll(&mut self, events: &mut Vec<Event>) -> Result<(), Failure> {
        self.flush()?;
        if !self.pending.is_empty() {
            events.append(&mut self.pending);
            return Ok(());
        }
        let room = self.input.get_mut(self.end..).unwrap_or_default();
        match self.stream.read(room) {
            Ok(0) => return Err("connection closed by the broker".into()),
            Ok(count) => self.end += count,
            Err(error) => return Err(format!("cannot read from the broker: {error}").into()),
        }
        let mut start = 0;
        while let Some([_, _, _, length @ ..]) =
            self.input[start..self.end].first_chunk::<FRAME_HEADER_BYTES>()
        {
            let size = FRAME_HEADER_BYTES + u32::from_be_bytes(*length) as usize + 1;
            let Some(bytes) = self.input[start..self.end].get(..size) else {
                break;
            };
            let (_, frame) =
                parse_frame(bytes).map_err(|error| format!("invalid AMQP frame: {error:?}"))?;
            start += size;
            if let Some(event) = assemble(&mut self.partial, frame)? {
                events.push(event);
            }
        }
        self.input.copy_within(start..self.end, 0);
        self.end -= start;
        Ok(())
    }

    fn response(&mut self) -> Result<AMQPClass, Failure> {
        let mut events = Vec::new();
        loop {
            self.poll(&mut events)?;
            if let Some(at) = events
                .iter()
                .position(|event| matches!(event, Event::Response(_)))
                && let Event::Response(class) = events.remove(at)
            {
                self.pending = events;
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
            Err(error) => unreachable!("writing a frame to a Vec failed: {error}"),
        }
    }
}

/// Adds a frame to the incomplete message. Returns the event that the frame completes.
fn assemble(partial: &mut Option<Partial>, frame: AMQPFrame) -> Result<Option<Event>, Failure> {
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
            return Err(format!("channel closed by the broker: {}", close.reply_text).into());
        }
        AMQPFrame::Method(_, AMQPClass::Connection(connection::AMQPMethod::Close(close))) => {
            return Err(format!("connection closed by the broker: {}", close.reply_text).into());
        }
        AMQPFrame::Method(_, class) => return Ok(Some(Event::Response(class))),
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
        .map(|message| match message.method {
            basic::AMQPMethod::Deliver(deliver) => Event::Delivery {
                tag: deliver.delivery_tag,
                properties: message.properties,
                body: message.body,
            },
            _ => Event::Returned,
        }))
}

/// Returns the properties common to all Nameko messages.
pub(crate) fn properties() -> BasicProperties {
    BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("utf-8".into())
        .with_headers(FieldTable::default())
        .with_delivery_mode(2)
        .with_priority(0)
}

/// Returns the headers of a call from a standalone client.
pub(crate) fn headers(call_id: &str) -> FieldTable {
    let mut headers = FieldTable::default();
    let stack = vec![AMQPValue::LongString(call_id.into())];
    headers.insert(
        "nameko.call_id_stack".into(),
        AMQPValue::FieldArray(stack.into()),
    );
    headers
}
