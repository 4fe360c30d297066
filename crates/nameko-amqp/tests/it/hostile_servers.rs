//! Servers that misbehave: each one costs only its connection, with a reason.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use nameko_amqp::{Connection, Consumers, Error, Queue};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};

use crate::{
    server::{BODY, HEADER, METHOD, Server, deliver, frame, header, read_frame},
    support::{in_time, subscription},
};

/// Opens a connection to a server that sends `answer`, and returns the error.
async fn open_to(answer: &[u8]) -> Error {
    let server = Server::new().await;
    let options = server.options();
    let (opened, stream) =
        in_time(async { tokio::join!(Connection::open(&options), server.answer(answer)) }).await;
    drop(stream);
    opened.unwrap_err()
}

#[tokio::test]
async fn other_protocols_are_named() {
    let error = open_to(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    assert!(matches!(error, Error::NotAmqp { .. }), "{error:?}");
    assert!(error.to_string().contains("HTTP/1.1 400"), "{error}");

    let error = open_to(b"\x15\x03\x03\x00\x02\x02\x46").await;
    assert!(error.to_string().contains("TLS"), "{error}");

    let error = open_to(b"AMQP\x00\x01\x00\x00").await;
    assert!(matches!(error, Error::Handshake { .. }), "{error:?}");
    assert!(error.to_string().contains("1-0-0"), "{error}");
}

#[tokio::test]
async fn silent_and_closing_servers_are_explained() {
    let server = Server::new().await;
    let mut options = server.options();
    options.connect_timeout = Duration::from_millis(200);
    let (opened, silent) =
        in_time(async { tokio::join!(Connection::open(&options), server.listener.accept()) }).await;
    let error = opened.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    assert!(error.to_string().contains("200ms"), "{error}");
    drop(silent);

    // A peer that closes with unread bytes resets the connection.
    for reads_header in [true, false] {
        let (opened, ()) = in_time(async {
            tokio::join!(Connection::open(&options), async {
                let (mut stream, _) = server.listener.accept().await.unwrap();
                stream.readable().await.unwrap();
                if reads_header {
                    stream.read_exact(&mut [0; 8]).await.unwrap();
                }
            })
        })
        .await;
        let error = opened.unwrap_err();
        assert!(matches!(error, Error::Lost { .. }), "{error:?}");
        assert!(error.to_string().contains("TLS"), "{error}");
    }
}

#[tokio::test]
async fn garbage_in_the_handshake_is_a_protocol_error() {
    for (answer, reason) in [
        (frame(METHOD, 0, &[0, 10, 0, 10]), "middle of a field"),
        (frame(METHOD, 0, &[0, 99, 0, 10]), "99.10"),
        // A method that only a client sends
        (frame(METHOD, 0, &[0, 10, 0, 11]), "10.11"),
        (
            vec![METHOD, 0, 0, 0xff, 0xff, 0xff, 0xff],
            "4294967303 bytes",
        ),
        (vec![METHOD, 0, 0, 0, 0, 0, 1, 0, 0], "end octet"),
    ] {
        let error = open_to(&answer).await;
        assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
        assert!(error.to_string().contains(reason), "{error}");
    }
    // Server properties nested deeply enough to overflow the stack of a recursive decoder
    let mut table = Vec::new();
    for _ in 0..10_000 {
        let mut outer = vec![1, b'x', b'F'];
        outer.extend((table.len() as u32).to_be_bytes());
        outer.extend(&table);
        table = outer;
    }
    let mut payload = vec![0, 10, 0, 10, 0, 9];
    payload.extend((table.len() as u32).to_be_bytes());
    payload.extend(&table);
    let error = open_to(&frame(METHOD, 0, &payload)).await;
    assert!(error.to_string().contains("nested deeper"), "{error}");
}

#[tokio::test]
async fn an_unsupported_login_method_is_a_handshake_error() {
    let mut payload = vec![0, 10, 0, 10, 0, 9, 0, 0, 0, 0, 0, 0, 0, 8];
    payload.extend(b"EXTERNAL");
    payload.extend([0, 0, 0, 5]);
    payload.extend(b"en_US");
    let error = open_to(&frame(METHOD, 0, &payload)).await;
    assert!(matches!(error, Error::Handshake { .. }), "{error:?}");
    assert!(error.to_string().contains("EXTERNAL, not PLAIN"), "{error}");
}

#[tokio::test]
async fn garbage_closes_an_open_connection_with_a_reason() {
    for (bytes, reason) in [
        (b"not a frame at all".to_vec(), "unknown type"),
        (
            vec![BODY, 0, 1, 0x40, 0, 0, 0],
            "1073741832 bytes exceeds the limit of 131072",
        ),
        (frame(METHOD, 7, &[0, 20, 0, 40]), "middle of a field"),
        (
            frame(METHOD, 7, &[0, 20, 0, 41]),
            "channel 7, which is not open",
        ),
        (
            frame(METHOD, 7, &[0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, 1, 0]),
            "channel 7",
        ),
        (
            frame(METHOD, 0, &[0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, 1, 0]),
            "channel 0",
        ),
        (frame(METHOD, 0, &[0, 10, 0, 41, 0]), "unexpected"),
        (frame(BODY, 1, b"x"), "content on channel 1"),
        (frame(HEADER, 65535, b"x"), "content on channel 65535"),
    ] {
        let server = Server::new().await;
        let options = server.options();
        let (opened, mut stream) =
            in_time(async { tokio::join!(Connection::open(&options), server.handshake()) }).await;
        let connection = opened.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let error = in_time(connection.closed()).await;
        assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
        assert!(error.to_string().contains(reason), "{error} lacks {reason}");
        assert!(matches!(
            in_time(connection.channel()).await,
            Err(Error::Protocol { .. })
        ));
        // The server receives connection.close 501.
        let (_, _, payload) = in_time(read_frame(&mut stream)).await;
        assert_eq!(payload[..6], [0, 10, 0, 50, 1, 245]);
    }
}

#[tokio::test]
async fn a_reply_text_cut_within_a_character_is_readable() {
    let server = Server::new().await;
    let options = server.options();
    let open = async {
        let connection = Connection::open(&options).await.unwrap();
        (connection.channel().await, connection)
    };
    let serve = async {
        let mut stream = server.handshake().await;
        read_frame(&mut stream).await;
        let mut payload = vec![0, 20, 0, 40, 1, 0x94, 255];
        payload.extend([b'x'; 254]);
        payload.extend(b"\xc3\x00\x00\x00\x00");
        stream.write_all(&frame(METHOD, 1, &payload)).await.unwrap();
        stream
    };
    let ((channel, connection), _stream) = in_time(async { tokio::join!(open, serve) }).await;
    let error = channel.unwrap_err();
    assert!(
        error.is_not_found() && error.to_string().contains("xxxx"),
        "{error:?}"
    );
    assert!(connection.is_open());
}

#[tokio::test]
async fn content_out_of_order_closes_the_connection() {
    for (bytes, reason) in [
        ([deliver(1), deliver(2)].concat(), "middle of a message"),
        (
            [deliver(1), frame(BODY, 1, b"x")].concat(),
            "before the header",
        ),
        (
            [deliver(1), header(1, &[0, 0]), header(1, &[0, 0])].concat(),
            "second header",
        ),
        (
            [deliver(1), header(1, &[0, 0]), frame(BODY, 1, b"xy")].concat(),
            "longer than",
        ),
    ] {
        let server = Server::new().await;
        let options = server.options();
        let consume = async {
            let connection = Connection::open(&options).await.unwrap();
            let channel = connection.channel().await.unwrap();
            channel.consume("q", |_| (), |_| ()).await.unwrap();
            channel
        };
        let (channel, mut stream) =
            in_time(async { tokio::join!(consume, server.consumer()) }).await;
        stream.write_all(&bytes).await.unwrap();
        let error = in_time(channel.closed()).await;
        assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
        assert!(error.to_string().contains(reason), "{error} lacks {reason}");
    }
}

#[tokio::test]
async fn an_unreadable_message_is_rejected_and_the_next_one_delivered() {
    let server = Server::new().await;
    let options = server.options();
    let (sender, mut deliveries) = mpsc::unbounded_channel();
    let consume = async {
        let connection = Connection::open(&options).await.unwrap();
        let channel = connection.channel().await.unwrap();
        let sink = move |delivery| {
            // Fails if the test has ended.
            let _ = sender.send(delivery);
        };
        channel.consume("q", sink, |_| ()).await.unwrap();
        channel
    };
    let (channel, mut stream) = in_time(async { tokio::join!(consume, server.consumer()) }).await;
    let mut bytes = Vec::new();
    // A header value of an unknown type, truncated headers, an unknown property flag
    let unreadable = [
        header(3, b"\x20\x00\x00\x00\x00\x03\x01xQ"),
        header(3, b"\x20\x00\x00\x00\x00\xff\x01x"),
        header(3, b"\x00\x01"),
    ];
    for (tag, header) in (1..).zip(&unreadable) {
        bytes.extend([deliver(tag), header.clone(), frame(BODY, 1, b"abc")].concat());
    }
    bytes.extend(
        [
            deliver(9),
            header(4, &[0, 0]),
            frame(BODY, 1, b"go"),
            frame(BODY, 1, b"od"),
        ]
        .concat(),
    );
    // In small pieces: a frame may span many reads.
    for chunk in bytes.chunks(3) {
        stream.write_all(chunk).await.unwrap();
    }
    let good = in_time(deliveries.recv()).await.unwrap();
    assert_eq!(good.body, "good");
    good.acker.ack();
    for tag in [1, 2, 3] {
        // basic.reject without requeue
        let reject = vec![0, 60, 0, 90, 0, 0, 0, 0, 0, 0, 0, tag, 0];
        assert_eq!(in_time(read_frame(&mut stream)).await, (METHOD, 1, reject));
    }
    let ack = vec![0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, 9, 0];
    assert_eq!(in_time(read_frame(&mut stream)).await, (METHOD, 1, ack));

    // No memory is reserved for a body announced as endless.
    stream
        .write_all(
            &[
                deliver(10),
                header(u64::MAX, &[0, 0]),
                frame(BODY, 1, b"abc"),
            ]
            .concat(),
        )
        .await
        .unwrap();
    // connection.close 320 interrupts the message.
    stream
        .write_all(&frame(
            METHOD,
            0,
            b"\x00\x0a\x00\x32\x01\x40\x03bye\x00\x00\x00\x00",
        ))
        .await
        .unwrap();
    let error = in_time(channel.closed()).await;
    assert!(
        error.reply_code() == Some(320) && error.is_recoverable(),
        "{error:?}"
    );
}

#[tokio::test]
async fn cancelling_does_not_wait_for_a_server_that_stopped_answering() {
    let server = Server::new().await;
    let consumers = Consumers::new(server.options(), Arc::new(()));
    let (first, mut deliveries) = subscription(Queue {
        no_declare: true,
        ..Queue::new("queue")
    });
    let first = consumers.add(first);
    let starting = tokio::spawn({
        let consumers = consumers.clone();
        async move { consumers.start().await }
    });
    // The client opens a channel, sets the prefetch count and consumes.
    let mut stream = in_time(server.handshake()).await;
    for answer in [
        b"\x00\x14\x00\x0b\x00\x00\x00\x00".as_slice(),
        b"\x00\x3c\x00\x0b",
        b"\x00\x3c\x00\x15\x04c1.1",
    ] {
        in_time(read_frame(&mut stream)).await;
        stream.write_all(&frame(METHOD, 1, answer)).await.unwrap();
    }
    in_time(starting).await.unwrap().unwrap();
    // The server does not answer the declaration of another queue.
    let (second, _) = subscription(Queue::new("second"));
    let second = consumers.add(second);
    in_time(read_frame(&mut stream)).await;
    // Not consumed yet, it is cancelled at once; the first one after the timeout.
    let begun = Instant::now();
    in_time(consumers.cancel(second)).await;
    assert!(begun.elapsed() < Duration::from_secs(2));
    in_time(consumers.cancel(first)).await;
    // A delivery after the timeout does not reach the sink.
    for chunk in [deliver(1), header(3, &[0, 0]), frame(BODY, 1, b"odd")] {
        stream.write_all(&chunk).await.unwrap();
    }
    in_time(consumers.stop()).await;
    assert!(deliveries.try_recv().is_err());
}
