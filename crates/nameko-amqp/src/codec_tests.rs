//! Encoding and decoding, compared with the codec and run on random bytes.

use amq_protocol::{
    frame::{AMQPContentHeader, AMQPFrame, WriteContext, gen_frame, parse_frame},
    protocol::{AMQPClass, BasicProperties, basic},
    types::{AMQPValue, DecimalValue, FieldTable},
};
use bytes::Bytes;
use proptest::{collection::vec, option::of, prelude::*};

use crate::{
    decode::{ContentHeader, Method},
    encode::{self, field_table},
    frame::{Frame, FrameKind, FrameReader},
    message::Publish,
    properties::{Properties, Text},
    table::{Table, Value},
};

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<i32>().prop_map(Value::from),
        (-1e300..1e300).prop_map(Value::Double),
        ".{0,20}".prop_map(Value::String),
        vec(any::<u8>(), 0..9).prop_map(|bytes| Value::Bytes(Bytes::from(bytes))),
        any::<u64>().prop_map(Value::Timestamp),
        (any::<u8>(), any::<i32>()).prop_map(|(scale, value)| Value::Decimal { scale, value }),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::List),
            vec(("[a-z]{0,5}", inner), 0..5)
                .prop_map(|entries| Value::Table(entries.into_iter().collect())),
        ]
    })
}

fn table() -> impl Strategy<Value = Table> {
    vec(("\\PC{0,20}", value()), 0..6).prop_map(|entries| entries.into_iter().collect())
}

fn text() -> impl Strategy<Value = Option<Text>> {
    of("\\PC{0,30}".prop_map(Text::from))
}

prop_compose! {
    fn properties()(
        (content_type, content_encoding, headers, delivery_mode, priority) in
            (text(), text(), table(), of(any::<u8>()), of(any::<u8>())),
        (correlation_id, reply_to, expiration, message_id, timestamp) in
            (text(), text(), text(), text(), of(any::<u64>())),
        (type_, user_id, app_id, cluster_id) in (text(), text(), text(), text()),
    ) -> Properties {
        Properties {
            content_type, content_encoding, headers, delivery_mode, priority, correlation_id, reply_to, expiration,
            message_id, timestamp, type_, user_id, app_id, cluster_id,
        }
    }
}

/// Mostly few bytes, sometimes more than one read.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    let many = (any::<u8>(), 0usize..40_000)
        .prop_map(|(first, length)| (0..length).map(|n| first.wrapping_add(n as u8)).collect());
    prop_oneof![3 => vec(any::<u8>(), 0..100), 1 => many]
}

prop_compose! {
    fn message()(
        exchange in "\\PC{0,30}",
        routing_key in "\\PC{0,30}",
        mandatory: bool,
        properties in properties(),
        body in payload(),
    ) -> Publish {
        Publish { exchange, routing_key, mandatory, properties, body: body.into() }
    }
}

/// Converts to the codec's properties.
fn codec_properties(ours: &Properties) -> BasicProperties {
    let mut theirs = BasicProperties::default().with_headers(field_table(&ours.headers).unwrap());
    macro_rules! text {
        ($($ours:ident $with:ident),*) => {
            $(if let Some(text) = &ours.$ours { theirs = theirs.$with(text.as_ref().into()); })*
        };
    }
    text!(
        content_type with_content_type, content_encoding with_content_encoding, correlation_id with_correlation_id,
        reply_to with_reply_to, expiration with_expiration, message_id with_message_id, type_ with_type,
        user_id with_user_id, app_id with_app_id, cluster_id with_cluster_id
    );
    if let Some(mode) = ours.delivery_mode {
        theirs = theirs.with_delivery_mode(mode);
    }
    if let Some(priority) = ours.priority {
        theirs = theirs.with_priority(priority);
    }
    if let Some(timestamp) = ours.timestamp {
        theirs = theirs.with_timestamp(timestamp);
    }
    theirs
}

fn encoded(frame: &AMQPFrame) -> Vec<u8> {
    gen_frame(frame)(WriteContext::from(Vec::new()))
        .unwrap()
        .into_inner()
        .0
}

/// Parses all frames in `bytes` with the codec.
fn parsed(mut bytes: &[u8]) -> Vec<AMQPFrame> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let (rest, frame) = parse_frame(bytes).unwrap();
        frames.push(frame);
        bytes = rest;
    }
    frames
}

/// Sorts a table by name: the codec's tables lose the order.
fn sorted(table: &Table) -> Vec<(String, Value)> {
    let mut entries: Vec<_> = table
        .iter()
        .map(|(name, value)| (name.to_owned(), ordered(value)))
        .collect();
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    entries
}

fn ordered(value: &Value) -> Value {
    match value {
        Value::List(items) => Value::List(items.iter().map(ordered).collect()),
        Value::Table(table) => Value::Table(sorted(table).into_iter().collect()),
        other => other.clone(),
    }
}

proptest! {
    #[test]
    fn the_codec_decodes_encoded_publishes(message in message(), channel in 1u16.., frame_max in 9_000usize..30_000) {
        let mut out = b"before".to_vec();
        prop_assume!(encode::publish(&mut out, channel, &message, frame_max).is_ok());
        let mut frames = parsed(out.strip_prefix(b"before").unwrap()).into_iter();
        let publish = basic::Publish {
            exchange: message.exchange.as_str().into(),
            routing_key: message.routing_key.as_str().into(),
            mandatory: message.mandatory,
            immediate: false,
        };
        prop_assert_eq!(
            frames.next(),
            Some(AMQPFrame::Method(channel, AMQPClass::Basic(basic::AMQPMethod::Publish(publish))))
        );
        prop_assert_eq!(frames.next(), Some(AMQPFrame::Header(channel, AMQPContentHeader {
            class_id: 60,
            body_size: message.body.len() as u64,
            properties: codec_properties(&message.properties),
        })));
        let mut body = Vec::new();
        for frame in frames {
            prop_assert!(encoded(&frame).len() <= frame_max);
            match frame {
                AMQPFrame::Body(on, chunk) if on == channel => body.extend(chunk),
                other => prop_assert!(false, "{:?}", other),
            }
        }
        prop_assert_eq!(body, message.body);
    }

    #[test]
    fn decodes_deliveries_encoded_by_the_codec(
        properties in properties(),
        (consumer, exchange, key) in ("\\PC{0,30}", "\\PC{0,30}", "\\PC{0,30}"),
        (tag, again, size) in any::<(u64, bool, u64)>(),
    ) {
        let deliver = AMQPFrame::Method(1, AMQPClass::Basic(basic::AMQPMethod::Deliver(basic::Deliver {
            consumer_tag: consumer.as_str().into(),
            delivery_tag: tag,
            redelivered: again,
            exchange: exchange.as_str().into(),
            routing_key: key.as_str().into(),
        })));
        match Method::parse(encoded(&deliver)[7..].split_last().unwrap().1) {
            Ok(Method::Deliver { consumer_tag, delivery_tag, redelivered, exchange: from, routing_key }) => {
                prop_assert_eq!((consumer_tag.as_ref(), from.as_ref(), routing_key.as_ref()), (&*consumer, &*exchange, &*key));
                prop_assert_eq!((delivery_tag, redelivered), (tag, again));
            }
            other => prop_assert!(false, "{:?}", other),
        }
        let header = AMQPFrame::Header(1, AMQPContentHeader { class_id: 60, body_size: size, properties: codec_properties(&properties) });
        let bytes = encoded(&header);
        let header = ContentHeader::parse(bytes[7..].split_last().unwrap().1).unwrap();
        prop_assert_eq!(header.body_size, size);
        let mut read = header.properties().unwrap();
        prop_assert_eq!(sorted(&read.headers), sorted(&properties.headers));
        read.headers = properties.headers.clone();
        prop_assert_eq!(read, properties);
    }

    #[test]
    fn acknowledgements_are_encoded_like_the_codecs(channel in 1u16.., tag: u64, requeue: bool) {
        let mut out = Vec::new();
        encode::ack(&mut out, channel, tag);
        encode::reject(&mut out, channel, tag, requeue);
        prop_assert_eq!(parsed(&out), [
            AMQPFrame::Method(channel, AMQPClass::Basic(basic::AMQPMethod::Ack(basic::Ack { delivery_tag: tag, multiple: false }))),
            AMQPFrame::Method(channel, AMQPClass::Basic(basic::AMQPMethod::Reject(basic::Reject { delivery_tag: tag, requeue }))),
        ]);
    }

    #[test]
    fn decoding_random_bytes_never_panics(payload in vec(any::<u8>(), 0..200)) {
        let _ = Method::parse(&payload);
        if let Ok(header) = ContentHeader::parse(&payload) {
            let _ = header.properties();
        }
    }

    #[test]
    fn decoding_random_arguments_never_panics(
        class in prop::sample::select(vec![10u16, 20, 40, 50, 60, 85]),
        method in 0u16..125,
        rest in vec(any::<u8>(), 0..100),
    ) {
        let payload = [&class.to_be_bytes()[..], &method.to_be_bytes(), &rest].concat();
        let _ = Method::parse(&payload);
    }

    #[test]
    fn decoding_random_properties_never_panics(flags: u16, rest in vec(any::<u8>(), 0..200)) {
        let payload = [&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &flags.to_be_bytes(), &rest].concat();
        let _ = ContentHeader::parse(&payload).unwrap().properties();
    }

    #[test]
    fn frames_survive_any_fragmentation_of_the_stream(
        sent in vec((1u8..4, any::<u16>(), payload()), 0..6),
        cuts in vec(1usize..50_000, 1..30),
    ) {
        let mut bytes = Vec::new();
        for (kind, channel, payload) in &sent {
            bytes.push(*kind);
            bytes.extend(channel.to_be_bytes());
            bytes.extend((payload.len() as u32).to_be_bytes());
            bytes.extend(payload);
            bytes.push(0xCE);
        }
        let mut reader = FrameReader::new();
        let mut cuts = cuts.iter().cycle();
        let mut rest = bytes.as_slice();
        let mut received = Vec::new();
        loop {
            while let Some(Frame { kind, channel, payload }) = reader.next().unwrap() {
                let kind = match kind {
                    FrameKind::Method => 1,
                    FrameKind::Header => 2,
                    FrameKind::Body => 3,
                    FrameKind::Heartbeat => 8,
                };
                received.push((kind, channel, payload.to_vec()));
            }
            if rest.is_empty() {
                break;
            }
            let buffer = reader.spare();
            prop_assert!(!buffer.is_empty());
            let count = buffer.len().min(rest.len()).min(*cuts.next().unwrap());
            buffer[..count].copy_from_slice(&rest[..count]);
            reader.filled(count);
            rest = &rest[count..];
        }
        prop_assert_eq!(received, sent);
        prop_assert!(reader.rest().is_empty());
    }

    #[test]
    fn a_random_stream_never_panics_or_grows_the_buffer(bytes in vec(any::<u8>(), 0..300)) {
        let mut reader = FrameReader::new();
        reader.set_limit(4096);
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let buffer = reader.spare();
            prop_assert!(!buffer.is_empty() && buffer.len() <= 64 * 1024);
            let count = buffer.len().min(rest.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            reader.filled(count);
            rest = &rest[count..];
            loop {
                match reader.next() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => return Ok(()),
                }
            }
        }
    }
}

#[test]
fn every_value_type_is_decoded() {
    let fields: FieldTable = [
        ("t", AMQPValue::Boolean(true)),
        ("b", AMQPValue::ShortShortInt(-1)),
        ("B", AMQPValue::ShortShortUInt(255)),
        ("s", AMQPValue::ShortInt(-2)),
        ("u", AMQPValue::ShortUInt(65535)),
        ("I", AMQPValue::LongInt(-3)),
        ("i", AMQPValue::LongUInt(u32::MAX)),
        ("l", AMQPValue::LongLongInt(i64::MIN)),
        ("f", AMQPValue::Float(0.5)),
        ("d", AMQPValue::Double(0.25)),
        (
            "D",
            AMQPValue::DecimalValue(DecimalValue {
                scale: 2,
                value: 314,
            }),
        ),
        ("S", AMQPValue::LongString("text".into())),
        ("raw", AMQPValue::LongString(b"\xff".to_vec().into())),
        ("T", AMQPValue::Timestamp(1)),
        ("x", AMQPValue::ByteArray(vec![1].into())),
        ("V", AMQPValue::Void),
    ]
    .into_iter()
    .fold(FieldTable::default(), |mut fields, (name, value)| {
        fields.insert(name.into(), value);
        fields
    });
    let header = AMQPFrame::Header(
        1,
        AMQPContentHeader {
            class_id: 60,
            body_size: 0,
            properties: BasicProperties::default().with_headers(fields),
        },
    );
    let bytes = encoded(&header);
    let read = ContentHeader::parse(bytes[7..].split_last().unwrap().1)
        .unwrap()
        .properties()
        .unwrap();
    let expected = Table::from([
        ("t", Value::Bool(true)),
        ("b", Value::Int(-1)),
        ("B", Value::Int(255)),
        ("s", Value::Int(-2)),
        ("u", Value::Int(65535)),
        ("I", Value::Int(-3)),
        ("i", Value::Int(u32::MAX.into())),
        ("l", Value::Int(i64::MIN)),
        ("f", Value::Double(0.5)),
        ("d", Value::Double(0.25)),
        (
            "D",
            Value::Decimal {
                scale: 2,
                value: 314,
            },
        ),
        ("S", Value::String("text".into())),
        ("raw", Value::Bytes(Bytes::from_static(b"\xff"))),
        ("T", Value::Timestamp(1)),
        ("x", Value::Bytes(Bytes::from_static(&[1]))),
        ("V", Value::Null),
    ]);
    assert_eq!(sorted(&read.headers), sorted(&expected));
}

#[test]
fn thousands_of_headers_are_decoded_in_linear_time() {
    // Pairwise comparison of the names would take minutes.
    let mut table = Vec::new();
    for n in 0..40_000u32 {
        let name = format!("{n:x}");
        table.push(name.len() as u8);
        table.extend(name.as_bytes());
        table.push(b'V');
    }
    let payload = [
        &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0][..],
        &(table.len() as u32).to_be_bytes(),
        &table,
    ]
    .concat();
    let properties = ContentHeader::parse(&payload)
        .unwrap()
        .properties()
        .unwrap();
    assert_eq!(properties.headers.len(), 40_000);
}
