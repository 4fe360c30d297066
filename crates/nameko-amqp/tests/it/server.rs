//! A scripted server, and the frames that it sends.

use std::time::Duration;

use nameko_amqp::ConnectOptions;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Frame type: method.
pub(crate) const METHOD: u8 = 1;

/// Frame type: header.
pub(crate) const HEADER: u8 = 2;

/// Frame type: body.
pub(crate) const BODY: u8 = 3;

/// Encodes a frame.
pub(crate) fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind];
    frame.extend(channel.to_be_bytes());
    frame.extend((payload.len() as u32).to_be_bytes());
    frame.extend(payload);
    frame.push(0xCE);
    frame
}

/// Encodes `connection.start`.
fn start() -> Vec<u8> {
    let mut payload = vec![0, 10, 0, 10, 0, 9, 0, 0, 0, 0];
    for text in ["PLAIN AMQPLAIN", "en_US"] {
        payload.extend((text.len() as u32).to_be_bytes());
        payload.extend(text.as_bytes());
    }
    frame(METHOD, 0, &payload)
}

/// Encodes `basic.deliver` to the first consumer of channel 1.
pub(crate) fn deliver(tag: u8) -> Vec<u8> {
    let mut payload = vec![0, 60, 0, 60, 4];
    payload.extend(b"c1.1");
    payload.extend([0, 0, 0, 0, 0, 0, 0, tag, 0, 0, 1, b'k']);
    frame(METHOD, 1, &payload)
}

/// Encodes a content header with a body size and property flags with values.
pub(crate) fn header(size: u64, properties: &[u8]) -> Vec<u8> {
    let mut payload = vec![0, 60, 0, 0];
    payload.extend(size.to_be_bytes());
    payload.extend(properties);
    frame(HEADER, 1, &payload)
}

/// A scripted server.
pub(crate) struct Server {
    pub(crate) listener: TcpListener,
}

impl Server {
    pub(crate) async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener }
    }

    pub(crate) fn options(&self) -> ConnectOptions {
        let uri = format!("amqp://me:secret@{}", self.listener.local_addr().unwrap());
        let mut options = ConnectOptions::from_uri(&uri).unwrap();
        options.connect_timeout = Duration::from_secs(5);
        options
    }

    /// Accepts a connection, reads the protocol header and sends `answer`.
    pub(crate) async fn answer(&self, answer: &[u8]) -> TcpStream {
        let (mut stream, _) = self.listener.accept().await.unwrap();
        stream.read_exact(&mut [0; 8]).await.unwrap();
        stream.write_all(answer).await.unwrap();
        stream
    }

    /// Accepts a connection and completes the handshake.
    pub(crate) async fn handshake(&self) -> TcpStream {
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

    /// Completes the handshake, opens channel 1 and starts a consumer on it.
    pub(crate) async fn consumer(&self) -> TcpStream {
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

/// Reads the type, channel and payload of the next frame.
pub(crate) async fn read_frame(stream: &mut TcpStream) -> (u8, u16, Vec<u8>) {
    let mut prefix = [0; 7];
    stream.read_exact(&mut prefix).await.unwrap();
    let [kind, c0, c1, length @ ..] = prefix;
    let mut payload = vec![0; u32::from_be_bytes(length) as usize + 1];
    stream.read_exact(&mut payload).await.unwrap();
    assert_eq!(payload.pop(), Some(0xCE));
    (kind, u16::from_be_bytes([c0, c1]), payload)
}
