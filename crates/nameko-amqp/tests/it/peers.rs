//! The AMQP client against servers that misbehave: each costs its connection, with a reason, and nothing else.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use nameko_amqp::{ConnectOptions, Connection, Consumers, Error, Queue};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use crate::support::{self, soon};

/// Frame types: method, header, body.
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind];
    frame.extend(channel.to_be_bytes());
    frame.extend((payload.len() as u32).to_be_bytes());
    frame.extend(payload);
    frame.push(0xCE);
    frame
}

fn start() -> Vec<u8> {
    let mut payload = vec![0, 10, 0, 10, 0, 9, 0, 0, 0, 0];
    for text in ["PLAIN AMQPLAIN", "en_US"] {
        payload.extend((text.len() as u32).to_be_bytes());
        payload.extend(text.as_bytes());
    }
    frame(METHOD, 0, &payload)
}

/// `basic.deliver` to the first consumer of channel 1.
fn deliver(tag: u8) -> Vec<u8> {
    let mut payload = vec![0, 60, 0, 60, 4];
    payload.extend(b"c1.1");
    payload.extend([0, 0, 0, 0, 0, 0, 0, tag, 0, 0, 1, b'k']);
    frame(METHOD, 1, &payload)
}

/// A content header with `size` and these property flags and values.
fn header(size: u64, properties: &[u8]) -> Vec<u8> {
    let mut payload = vec![0, 60, 0, 0];
    payload.extend(size.to_be_bytes());
    payload.extend(properties);
    frame(HEADER, 1, &payload)
}

/// A server that does as it is told.
struct Server {
    listener: TcpListener,
}

impl Server {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener }
    }

    fn options(&self) -> ConnectOptions {
        let uri = format!("amqp://me:secret@{}", self.listener.local_addr().unwrap());
        let mut options = ConnectOptions::from_uri(&uri).unwrap();
        options.connect_timeout = Duration::from_secs(5);
        options
    }

    /// Sends `answer` to whatever comes first.
    async fn answer(&self, answer: &[u8]) -> TcpStream {
        let (mut stream, _) = self.listener.accept().await.unwrap();
        stream.read_exact(&mut [0; 8]).await.unwrap();
        stream.write_all(answer).await.unwrap();
        stream
    }

    /// Does a whole handshake.
    async fn handshake(&self) -> TcpStream {
        let mut stream = self.answer(&start()).await;
        read_frame(&mut stream).await;
        // connection.tune: 10 channels, 128 KiB frames, no heartbeat
        stream
            .write_all(&frame(METHOD, 0, &[0, 10, 0, 30, 0, 10, 0, 2, 0, 0, 0, 0]))
            .await
            .unwrap();
        read_frame(&mut stream).await;
        read_frame(&mut stream).await;
        stream
            .write_all(&frame(METHOD, 0, &[0, 10, 0, 41, 0]))
            .await
            .unwrap();
        stream
    }

    /// Handshake, channel 1, and a consumer on it.
    async fn consumer(&self) -> TcpStream {
        let mut stream = self.handshake().await;
        read_frame(&mut stream).await;
        stream
            .write_all(&frame(METHOD, 1, &[0, 20, 0, 11, 0, 0, 0, 0]))
            .await
            .unwrap();
        read_frame(&mut stream).await;
        stream
            .write_all(&frame(METHOD, 1, b"\x00\x3c\x00\x15\x04c1.1"))
            .await
            .unwrap();
        stream
    }
}

/// The next frame: type, channel and payload.
async fn read_frame(stream: &mut TcpStream) -> (u8, u16, Vec<u8>) {
    let mut prefix = [0; 7];
    stream.read_exact(&mut prefix).await.unwrap();
    let [kind, c0, c1, length @ ..] = prefix;
    let mut payload = vec![0; u32::from_be_bytes(length) as usize + 1];
    stream.read_exact(&mut payload).await.unwrap();
    assert_eq!(payload.pop(), Some(0xCE));
    (kind, u16::from_be_bytes([c0, c1]), payload)
}

async fn open_to(answer: &[u8]) -> Error {
    let server = Server::new().await;
    let options = server.options();
    let (opened, stream) =
        soon(async { tokio::join!(Connection::open(&options), server.answer(answer)) }).await;
    drop(stream);
    opened.unwrap_err()
}

#[tokio::test]
async fn a_port_that_talks_something_else_is_named() {
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
async fn a_port_that_is_silent_or_hangs_up_is_named() {
    let server = Server::new().await;
    let mut options = server.options();
    options.connect_timeout = Duration::from_millis(200);
    let (opened, silent) =
        soon(async { tokio::join!(Connection::open(&options), server.listener.accept()) }).await;
    let error = opened.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    assert!(error.to_string().contains("200ms"), "{error}");
    drop(silent);

    // A peer that hangs up on what it has not read resets the connection.
    for reads in [true, false] {
        let (opened, ()) = soon(async {
            tokio::join!(Connection::open(&options), async {
                let (mut stream, _) = server.listener.accept().await.unwrap();
                stream.readable().await.unwrap();
                if reads {
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
async fn garbage_in_the_handshake_ends_it() {
    for (answer, why) in [
        (frame(METHOD, 0, &[0, 10, 0, 10]), "middle of a field"),
        (frame(METHOD, 0, &[0, 99, 0, 10]), "99.10"),
        // A client's method
        (frame(METHOD, 0, &[0, 10, 0, 11]), "10.11"),
        (
            vec![METHOD, 0, 0, 0xff, 0xff, 0xff, 0xff],
            "4294967303 bytes",
        ),
        (vec![METHOD, 0, 0, 0, 0, 0, 1, 0, 0], "end octet"),
    ] {
        let error = open_to(&answer).await;
        assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
        assert!(error.to_string().contains(why), "{error}");
    }
    // Server properties nested so deep that a recursive reader overflows its stack.
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
async fn a_server_without_our_login_method_is_told_apart() {
    let mut payload = vec![0, 10, 0, 10, 0, 9, 0, 0, 0, 0, 0, 0, 0, 8];
    payload.extend(b"EXTERNAL");
    payload.extend([0, 0, 0, 5]);
    payload.extend(b"en_US");
    let error = open_to(&frame(METHOD, 0, &payload)).await;
    assert!(matches!(error, Error::Handshake { .. }), "{error:?}");
    assert!(error.to_string().contains("EXTERNAL, not PLAIN"), "{error}");
}

#[tokio::test]
async fn garbage_on_an_open_connection_ends_it_with_a_reason() {
    for (bytes, why) in [
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
            soon(async { tokio::join!(Connection::open(&options), server.handshake()) }).await;
        let connection = opened.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let error = soon(connection.closed()).await;
        assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
        assert!(error.to_string().contains(why), "{error} lacks {why}");
        assert!(matches!(
            soon(connection.channel()).await,
            Err(Error::Protocol { .. })
        ));
        // The server hears why: connection.close 501.
        let (_, _, payload) = soon(read_frame(&mut stream)).await;
        assert_eq!(payload[..6], [0, 10, 0, 50, 1, 245]);
    }
}

#[tokio::test]
async fn a_reason_cut_within_a_character_is_still_read() {
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
    let ((channel, connection), _stream) = soon(async { tokio::join!(open, serve) }).await;
    let error = channel.unwrap_err();
    assert!(
        error.is_not_found() && error.to_string().contains("xxxx"),
        "{error:?}"
    );
    assert!(connection.is_open());
}

#[tokio::test]
async fn content_out_of_order_ends_the_connection() {
    for (bytes, why) in [
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
        let (channel, mut stream) = soon(async { tokio::join!(consume, server.consumer()) }).await;
        stream.write_all(&bytes).await.unwrap();
        let error = soon(channel.closed()).await;
        assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
        assert!(error.to_string().contains(why), "{error} lacks {why}");
    }
}

#[tokio::test]
async fn a_message_that_cannot_be_read_is_rejected_and_the_next_one_comes() {
    let server = Server::new().await;
    let options = server.options();
    let (sender, mut deliveries) = mpsc::unbounded_channel();
    let consume = async {
        let connection = Connection::open(&options).await.unwrap();
        let channel = connection.channel().await.unwrap();
        let sink = move |delivery| {
            // The test may be over.
            let _ = sender.send(delivery);
        };
        channel.consume("q", sink, |_| ()).await.unwrap();
        channel
    };
    let (channel, mut stream) = soon(async { tokio::join!(consume, server.consumer()) }).await;
    let mut bytes = Vec::new();
    // Headers with a value of no known type, headers cut short, a body beyond all bounds, a flag of no property.
    let bad = [
        header(3, b"\x20\x00\x00\x00\x00\x03\x01xQ"),
        header(3, b"\x20\x00\x00\x00\x00\xff\x01x"),
        header(3, b"\x00\x01"),
    ];
    for (tag, header) in (1..).zip(&bad) {
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
    // Whole messages may come byte by byte.
    for chunk in bytes.chunks(3) {
        stream.write_all(chunk).await.unwrap();
    }
    let good = soon(deliveries.recv()).await.unwrap();
    assert_eq!(good.body, "good");
    good.acker.ack();
    for tag in [1, 2, 3] {
        // basic.reject without requeue
        let reject = vec![0, 60, 0, 90, 0, 0, 0, 0, 0, 0, 0, tag, 0];
        assert_eq!(soon(read_frame(&mut stream)).await, (METHOD, 1, reject));
    }
    let ack = vec![0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, 9, 0];
    assert_eq!(soon(read_frame(&mut stream)).await, (METHOD, 1, ack));

    // A body said to be endless is not waited for with memory; the connection goes on.
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
    // The broker may end a message early only by closing: connection.close 320.
    stream
        .write_all(&frame(
            METHOD,
            0,
            b"\x00\x0a\x00\x32\x01\x40\x03bye\x00\x00\x00\x00",
        ))
        .await
        .unwrap();
    let error = soon(channel.closed()).await;
    assert!(
        error.reply_code() == Some(320) && error.is_recoverable(),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_server_that_no_longer_answers_does_not_hold_up_the_end_of_a_consumer() {
    let server = Server::new().await;
    let consumers = Consumers::new(server.options(), Arc::new(()));
    let (subscription, mut deliveries) = support::subscription(Queue {
        no_declare: true,
        ..Queue::new("queue")
    });
    let id = consumers.add(subscription);
    let starting = tokio::spawn({
        let consumers = consumers.clone();
        async move { consumers.start().await }
    });
    // It opens a channel, sets the prefetch and consumes.
    let mut stream = soon(server.handshake()).await;
    for answer in [
        b"\x00\x14\x00\x0b\x00\x00\x00\x00".as_slice(),
        b"\x00\x3c\x00\x0b",
        b"\x00\x3c\x00\x15\x04c1.1",
    ] {
        soon(read_frame(&mut stream)).await;
        stream.write_all(&frame(METHOD, 1, answer)).await.unwrap();
    }
    soon(starting).await.unwrap().unwrap();
    // What it is to consume beside that is declared first, which is not answered.
    let (second, _) = support::subscription(Queue::new("second"));
    let second = consumers.add(second);
    soon(read_frame(&mut stream)).await;
    // Never consumed, it is over at once; the other one when it was waited for.
    let begun = Instant::now();
    soon(consumers.cancel(second)).await;
    assert!(begun.elapsed() < Duration::from_secs(2));
    soon(consumers.cancel(id)).await;
    // What comes all the same is for somebody else.
    for chunk in [deliver(1), header(3, &[0, 0]), frame(BODY, 1, b"odd")] {
        stream.write_all(&chunk).await.unwrap();
    }
    soon(consumers.stop()).await;
    assert!(deliveries.try_recv().is_err());
}
