//! Frame decoding and validation.
//!
//! A frame is `type (1) channel (2) size (4) payload (size) 0xCE`. The seven bytes of the head are
//! validated first, so an oversized frame is refused before any memory is used for it.

use amq_protocol::{
    protocol::{
        AMQPClass,
        basic::{self, AMQPProperties},
        constants, parse_class,
    },
    types::{
        ShortString,
        parsing::{parse_id, parse_long_long_uint, parse_short_uint},
    },
};

use crate::{
    depth_limit,
    error::{AmqpError, Code, Result},
};

/// Size of the frame head: type, channel and payload size.
pub(crate) const FRAME_HEAD_BYTES: usize = 7;
/// Size of everything around the payload: the head and the end marker.
pub(crate) const FRAME_OVERHEAD_BYTES: usize = FRAME_HEAD_BYTES + 1;

/// A complete frame, borrowed from the read buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: FrameKind,
    pub(crate) channel: u16,
    pub(crate) payload: &'a [u8],
}

/// The four frame types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    Method,
    Header,
    Body,
    Heartbeat,
}

/// The content header of a published message.
#[derive(Debug)]
pub(crate) struct ContentHeader {
    pub(crate) class_id: u16,
    pub(crate) body_size: u64,
    pub(crate) properties: AMQPProperties,
}

/// Finds the first frame in `bytes`. Returns `None` while it is incomplete, otherwise the frame and
/// its size in bytes. `frame_max` limits the whole frame; 0 is unlimited.
pub(crate) fn next_frame(bytes: &[u8], frame_max: usize) -> Result<Option<(Frame<'_>, usize)>> {
    let Some((&[kind, c0, c1, s0, s1, s2, s3], rest)) =
        bytes.split_first_chunk::<FRAME_HEAD_BYTES>()
    else {
        return Ok(None);
    };
    let channel = u16::from_be_bytes([c0, c1]);
    let size = u32::from_be_bytes([s0, s1, s2, s3]) as usize;
    // RabbitMQ reads on. After an unknown type nothing can be trusted, so this broker stops.
    let known = match kind {
        constants::FRAME_METHOD => FrameKind::Method,
        constants::FRAME_HEADER => FrameKind::Header,
        constants::FRAME_BODY => FrameKind::Body,
        constants::FRAME_HEARTBEAT => FrameKind::Heartbeat,
        _ => return Err(frame_error(kind, &[], "unknown_frame")),
    };
    // Like RabbitMQ, tolerates clients that do not count the eight bytes around the payload.
    if frame_max != 0 && size > frame_max {
        let reason = format!(
            "{{frame_too_large,{size},{}}}",
            frame_max.saturating_sub(FRAME_OVERHEAD_BYTES)
        );
        return Err(frame_error(kind, &[], &reason));
    }
    let Some((payload, [end, ..])) = rest.split_at_checked(size) else {
        return Ok(None);
    };
    if *end != constants::FRAME_END {
        let reason = format!("{{invalid_frame_end_marker,{end}}}");
        return Err(frame_error(kind, payload, &reason));
    }
    let frame = Frame {
        kind: known,
        channel,
        payload,
    };
    Ok(Some((frame, FRAME_OVERHEAD_BYTES + size)))
}

/// Returns the class and method id of a method frame, for error messages.
pub(crate) fn method_id(payload: &[u8]) -> (u16, u16) {
    match payload {
        [c0, c1, m0, m1, ..] => (
            u16::from_be_bytes([*c0, *c1]),
            u16::from_be_bytes([*m0, *m1]),
        ),
        _ => (0, 0),
    }
}

/// Decodes a method that a client may send.
pub(crate) fn parse_method(payload: &[u8]) -> Result<AMQPClass> {
    let id = method_id(payload);
    let arguments = payload.get(4..).unwrap_or_default();
    if let Some(frequent) = parse_hot_method(id, arguments) {
        return Ok(AMQPClass::Basic(frequent));
    }
    depth_limit::check_method(id, arguments).map_err(|e| e.in_method(id))?;
    match parse_class(payload) {
        Ok(([], method)) => Ok(method),
        _ => Err(
            AmqpError::new(Code::SyntaxError, "cannot decode the method's arguments").in_method(id),
        ),
    }
}

/// Fast path for `basic.publish` and `basic.ack`, which come with every message: the codec builds a
/// list of named flags for each, at more cost than all the rest. Returns `None` for other and for
/// malformed methods, which go to the codec.
fn parse_hot_method(id: (u16, u16), arguments: &[u8]) -> Option<basic::AMQPMethod> {
    match id {
        (60, 40) => {
            let (exchange, rest) = short_string(arguments.get(2..)?)?;
            let (routing_key, rest) = short_string(rest)?;
            let &[flags] = rest else { return None };
            Some(basic::AMQPMethod::Publish(basic::Publish {
                exchange,
                routing_key,
                mandatory: flags & 1 != 0,
                immediate: flags & 2 != 0,
            }))
        }
        (60, 80) => {
            let (tag, rest) = arguments.split_first_chunk::<8>()?;
            let &[flags] = rest else { return None };
            Some(basic::AMQPMethod::Ack(basic::Ack {
                delivery_tag: u64::from_be_bytes(*tag),
                multiple: flags & 1 != 0,
            }))
        }
        _ => None,
    }
}

/// Splits off a short string.
fn short_string(bytes: &[u8]) -> Option<(ShortString, &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let (text, rest) = rest.split_at_checked(usize::from(*length))?;
    let text = ShortString::try_new(std::str::from_utf8(text).ok()?).ok()?;
    Some((text, rest))
}

/// Decodes a content header.
pub(crate) fn parse_header(payload: &[u8]) -> Result<ContentHeader> {
    let bad = || AmqpError::new(Code::SyntaxError, "cannot decode the content header");
    let (rest, class_id) = parse_id(payload).map_err(|_| bad())?;
    let (rest, _weight) = parse_short_uint(rest).map_err(|_| bad())?;
    let (rest, body_size) = parse_long_long_uint(rest).map_err(|_| bad())?;
    depth_limit::check_properties(rest)?;
    match basic::parse_properties(rest) {
        Ok(([], properties)) => Ok(ContentHeader {
            class_id,
            body_size,
            properties,
        }),
        _ => Err(bad()),
    }
}

/// Formats an invalid frame as RabbitMQ does, with the start of its payload.
fn frame_error(kind: u8, payload: &[u8], reason: &str) -> AmqpError {
    AmqpError::new(
        Code::FrameError,
        format!("{}: {reason}", describe_frame(kind, payload)),
    )
}

/// Formats a frame as RabbitMQ does: `type 1, all octets = <<1,2>>`.
pub(crate) fn describe_frame(kind: u8, payload: &[u8]) -> String {
    let (which, shown) = match payload.get(..16) {
        Some(first) if payload.len() > 16 => ("first 16", first),
        _ => ("all", payload),
    };
    let octets: Vec<String> = shown.iter().map(u8::to_string).collect();
    format!("type {kind}, {which} octets = <<{}>>", octets.join(","))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEARTBEAT: [u8; 8] = [8, 0, 0, 0, 0, 0, 0, 206];

    #[test]
    fn a_frame_is_returned_once_it_is_complete() {
        for cut in 0..HEARTBEAT.len() {
            assert_eq!(next_frame(&HEARTBEAT[..cut], 4096), Ok(None));
        }
        let (frame, size) = next_frame(&HEARTBEAT, 4096).unwrap().unwrap();
        assert_eq!(
            (frame.kind, frame.channel, frame.payload, size),
            (FrameKind::Heartbeat, 0, &[][..], 8)
        );
    }

    #[test]
    fn invalid_frames_are_refused_by_their_head() {
        let error = next_frame(&[1, 0, 1, 0x7f, 0xff, 0xff, 0xff], 4096).unwrap_err();
        assert_eq!(error.code, Code::FrameError);
        assert_eq!(
            error.text,
            "type 1, all octets = <<>>: {frame_too_large,2147483647,4088}"
        );
        assert!(next_frame(&[9, 0, 0, 0, 0, 0, 0], 4096).is_err());
        let error = next_frame(&[1, 0, 0, 0, 0, 0, 2, 7, 9, 0], 4096).unwrap_err();
        assert_eq!(
            error.text,
            "type 1, all octets = <<7,9>>: {invalid_frame_end_marker,0}"
        );
    }

    proptest! {
        /// The fast path agrees with the codec.
        #[test]
        fn the_fast_path_agrees_with_the_codec(
            id in prop::sample::select(vec![(60u16, 40u16), (60, 80)]),
            arguments in prop::collection::vec(prop_oneof![0u8..4, any::<u8>()], 0..16),
        ) {
            if let Some(method) = parse_hot_method(id, &arguments) {
                let payload = [&id.0.to_be_bytes()[..], &id.1.to_be_bytes(), &arguments].concat();
                prop_assert_eq!(parse_class(&payload[..]), Ok((&[][..], AMQPClass::Basic(method))));
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let _ = next_frame(&bytes, 4096);
            let _ = parse_method(&bytes);
            let _ = parse_header(&bytes);
        }

        /// Generates arguments for known methods, which random ids rarely hit.
        #[test]
        fn random_arguments_never_panic(
            id in prop::sample::select(depth_limit::CLIENT_METHODS.iter().map(|(id, _)| *id).collect::<Vec<_>>()),
            arguments in prop::collection::vec(prop_oneof![0u8..4, any::<u8>(), Just(b'F'), Just(b'S')], 0..64),
        ) {
            let mut payload = [id.0.to_be_bytes(), id.1.to_be_bytes()].concat();
            payload.extend(&arguments);
            let _ = parse_method(&payload);
            let mut header = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
            header.extend(arguments);
            let _ = parse_header(&header);
        }

        #[test]
        fn oversized_frames_are_refused_before_their_payload(size in 4097u32.., kind in prop::sample::select(vec![1u8, 2, 3])) {
            let mut head = vec![kind, 0, 1];
            head.extend(size.to_be_bytes());
            prop_assert!(next_frame(&head, 4096).is_err());
        }
    }
}
