//! The frame reader and the connection's state machine without a socket, for property tests and
//! fuzzing.

use std::{collections::VecDeque, sync::Arc};

use amq_protocol::{
    frame::{AMQPFrame, WriteContext, gen_frame, parse_frame},
    protocol::{AMQPClass, basic, channel, connection, queue},
    types::{AMQPValue, FieldTable},
};
use bytes::BytesMut;

use crate::{
    broker_state::BrokerState,
    connection::{Connection, Phase},
    settings::Settings,
};

/// Feeds `bytes` to a fresh broker in chunks of `chunk_size`, after a complete handshake if
/// `opened` is set. Returns the bytes sent by the broker.
///
/// # Panics
///
/// If the broker panics, never becomes idle, or sends output that does not consist of frames.
pub fn replay(bytes: &[u8], chunk_size: usize, opened: bool) -> Vec<u8> {
    let (broker, _timers) = BrokerState::new(Settings::default());
    let broker = Arc::new(broker);
    let guard = broker.register(None, false);
    let mut connection = Connection::new(broker, guard.send_buffer.clone());
    let mut sent = Vec::new();
    let mut input = BytesMut::new();
    let mut received = Vec::new();
    if opened {
        sent.extend(opening());
    }
    sent.extend_from_slice(bytes);
    for chunk in sent.chunks(chunk_size.max(1)) {
        if connection.phase() == Phase::Closed {
            break;
        }
        input.extend_from_slice(chunk);
        // Same order as the transport, repeated until idle: process input, resume deliveries, send.
        loop {
            let handled = connection.receive(&mut input);
            let resumed = guard.send_buffer.take_resume();
            if resumed {
                connection.resume_deliveries();
            }
            let mut pending = VecDeque::new();
            guard.send_buffer.take(&mut pending);
            for chunk in &pending {
                guard
                    .send_buffer
                    .sent(chunk.bytes.len(), chunk.is_delivery_body);
                received.extend_from_slice(&chunk.bytes);
            }
            if !handled && !resumed && pending.is_empty() {
                break;
            }
        }
    }
    let mut rest = &received[..];
    while !rest.is_empty() {
        match parse_frame(rest) {
            Ok((left, _)) => rest = left,
            Err(error) => panic!("the broker sent something that is no frame: {error:?}"),
        }
    }
    received
}

/// Encodes a handshake, a channel, the queue `q` and a consumer of it, as starting points for the
/// fuzzer. The queues `p`, `s` and `d` cover the other queue types. Their dead letters end in
/// `graveyard`, which nothing reads, since their headers contain the time.
fn opening() -> Vec<u8> {
    let on = |channel, method| AMQPFrame::Method(channel, method);
    let connection = |method| on(0, AMQPClass::Connection(method));
    let text = |text: &str| AMQPValue::LongString(text.into());
    let declare = |name: &str, arguments: &[(&str, AMQPValue)]| {
        let mut table = FieldTable::default();
        for (key, value) in arguments {
            table.insert((*key).into(), value.clone());
        }
        let declare = queue::Declare {
            queue: name.into(),
            durable: true,
            nowait: true,
            arguments: table,
            ..queue::Declare::default()
        };
        on(1, AMQPClass::Queue(queue::AMQPMethod::Declare(declare)))
    };
    let frames = [
        connection(connection::AMQPMethod::StartOk(connection::StartOk {
            client_properties: FieldTable::default(),
            mechanism: "PLAIN".into(),
            response: "\0guest\0guest".into(),
            locale: "en_US".into(),
        })),
        connection(connection::AMQPMethod::TuneOk(connection::TuneOk {
            channel_max: 2047,
            frame_max: 4096,
            heartbeat: 0,
        })),
        connection(connection::AMQPMethod::Open(connection::Open {
            virtual_host: "/".into(),
        })),
        on(
            1,
            AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {})),
        ),
        on(
            1,
            AMQPClass::Queue(queue::AMQPMethod::Declare(queue::Declare {
                queue: "q".into(),
                ..queue::Declare::default()
            })),
        ),
        declare(
            "p",
            &[
                ("x-max-priority", AMQPValue::LongInt(3)),
                ("x-max-length", AMQPValue::LongInt(2)),
                ("x-dead-letter-exchange", text("")),
                ("x-dead-letter-routing-key", text("graveyard")),
            ],
        ),
        declare(
            "s",
            &[
                ("x-single-active-consumer", AMQPValue::Boolean(true)),
                ("x-max-length", AMQPValue::LongInt(2)),
                ("x-overflow", text("reject-publish")),
            ],
        ),
        declare(
            "d",
            &[
                ("x-queue-type", text("quorum")),
                ("x-delivery-limit", AMQPValue::LongInt(1)),
                ("x-dead-letter-exchange", text("")),
                ("x-dead-letter-routing-key", text("graveyard")),
            ],
        ),
        declare(
            "graveyard",
            &[
                ("x-message-ttl", AMQPValue::LongInt(0)),
                ("x-dead-letter-exchange", text("")),
                ("x-dead-letter-routing-key", text("graveyard")),
            ],
        ),
        on(
            1,
            AMQPClass::Basic(basic::AMQPMethod::Consume(basic::Consume {
                queue: "q".into(),
                consumer_tag: "c".into(),
                ..basic::Consume::default()
            })),
        ),
    ];
    let mut bytes = b"AMQP\0\0\x09\x01".to_vec();
    for frame in &frames {
        if let Ok(written) = gen_frame(frame)(WriteContext::from(Vec::new())) {
            bytes.extend(written.into_inner().0);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::depth_limit;

    /// Generates frames that are plausible: known methods with random arguments, and content.
    fn frame() -> impl Strategy<Value = Vec<u8>> {
        // Excludes methods with replies that depend on random names or on how the input is chunked.
        let ids: Vec<(u16, u16)> = depth_limit::CLIENT_METHODS
            .iter()
            .map(|(id, _)| *id)
            .filter(|id| ![(50, 10), (60, 20), (85, 10)].contains(id))
            .collect();
        let arguments = prop::collection::vec(
            prop_oneof![
                Just(0u8),
                Just(1),
                prop::sample::select(b"qpsd".to_vec()),
                any::<u8>()
            ],
            0..24,
        );
        let method = (prop::sample::select(ids), arguments.clone()).prop_map(
            |((class, method), arguments)| {
                (
                    1u8,
                    [&class.to_be_bytes()[..], &method.to_be_bytes(), &arguments].concat(),
                )
            },
        );
        let publish = prop::sample::select(b"qpsd".to_vec())
            .prop_map(|queue| (1u8, vec![0, 60, 0, 40, 0, 0, 0, 1, queue, 0]));
        let header =
            (0u8..4).prop_map(|size| (2u8, vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, size, 0, 0]));
        let body = prop::collection::vec(any::<u8>(), 0..4).prop_map(|body| (3u8, body));
        (prop_oneof![method, publish, header, body], 0u16..3).prop_map(
            |((kind, payload), channel)| {
                let mut frame = vec![kind];
                frame.extend(channel.to_be_bytes());
                frame.extend((payload.len() as u32).to_be_bytes());
                frame.extend(payload);
                frame.push(206);
                frame
            },
        )
    }

    proptest! {
        #[test]
        fn chunking_of_the_input_does_not_change_the_output(frames in prop::collection::vec(frame(), 0..12), chunk_size in 1usize..40) {
            let bytes = frames.concat();
            prop_assert_eq!(replay(&bytes, usize::MAX, true), replay(&bytes, chunk_size, true));
        }

        #[test]
        fn random_input_gets_valid_frames(bytes in prop::collection::vec(any::<u8>(), 0..300), opened: bool) {
            replay(&bytes, 7, opened);
        }
    }
}
