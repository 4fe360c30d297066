use amq_protocol::{
    frame::{AMQPFrame, WriteContext, gen_frame, parse_frame},
    protocol::{AMQPClass, channel, connection},
    types::{AMQPValue, FieldTable},
};
use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::with_timeout;

/// The protocol header of AMQP 0-9-1.
pub(crate) const HEADER: &[u8] = b"AMQP\0\0\x09\x01";

/// A raw AMQP client that can send any bytes.
pub(crate) struct Peer<S = TcpStream> {
    pub(crate) stream: S,
    input: BytesMut,
}

impl Peer {
    pub(crate) async fn connect(addr: &str) -> Self {
        Self::new(TcpStream::connect(addr).await.unwrap())
    }

    /// Returns the properties with which a broker introduces itself.
    pub(crate) async fn server_properties(addr: &str) -> FieldTable {
        let mut peer = Self::connect(addr).await;
        peer.write(HEADER).await;
        match peer.frame().await {
            Some(AMQPFrame::Method(
                0,
                AMQPClass::Connection(connection::AMQPMethod::Start(start)),
            )) => start.server_properties,
            other => panic!("no connection.start: {other:?}"),
        }
    }

    /// Connects and completes the handshake, with a heartbeat interval in seconds.
    pub(crate) async fn open(addr: &str, heartbeat: u16) -> Self {
        let mut peer = Self::connect(addr).await;
        peer.log_in("PLAIN", "\0guest\0guest").await;
        assert!(peer.enter_vhost(heartbeat).await);
        peer
    }

    /// Connects and opens channel 1.
    pub(crate) async fn with_channel(addr: &str) -> Self {
        let mut peer = Self::open(addr, 0).await;
        peer.open_channel().await;
        peer
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
        }
    }

    /// Sends the protocol header and `connection.start-ok`. Returns the offered mechanisms.
    pub(crate) async fn log_in(&mut self, mechanism: &str, response: &str) -> String {
        self.write(HEADER).await;
        let Some(AMQPFrame::Method(0, AMQPClass::Connection(connection::AMQPMethod::Start(start)))) =
            self.frame().await
        else {
            panic!("no connection.start");
        };
        let mut capabilities = FieldTable::default();
        capabilities.insert(
            "authentication_failure_close".into(),
            AMQPValue::Boolean(true),
        );
        let mut client_properties = FieldTable::default();
        client_properties.insert("capabilities".into(), AMQPValue::FieldTable(capabilities));
        self.connection(connection::AMQPMethod::StartOk(connection::StartOk {
            client_properties,
            mechanism: mechanism.into(),
            response: response.into(),
            locale: "en_US".into(),
        }))
        .await;
        start.mechanisms.to_string()
    }

    /// Completes the handshake after the login. Returns `false` if the login was refused.
    pub(crate) async fn enter_vhost(&mut self, heartbeat: u16) -> bool {
        let Some(AMQPFrame::Method(0, AMQPClass::Connection(connection::AMQPMethod::Tune(_)))) =
            self.frame().await
        else {
            return false;
        };
        self.connection(connection::AMQPMethod::TuneOk(connection::TuneOk {
            channel_max: 2047,
            frame_max: 131_072,
            heartbeat,
        }))
        .await;
        let open = connection::Open {
            virtual_host: "/".into(),
        };
        self.connection(connection::AMQPMethod::Open(open)).await;
        self.frame().await.is_some()
    }

    /// Opens channel 1.
    pub(crate) async fn open_channel(&mut self) {
        let open = channel::AMQPMethod::Open(channel::Open {});
        self.method(1, AMQPClass::Channel(open)).await;
        self.frame().await.unwrap();
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        with_timeout(self.stream.write_all(bytes)).await.unwrap();
    }

    pub(crate) async fn method(&mut self, channel: u16, method: AMQPClass) {
        self.write(&encoded(&AMQPFrame::Method(channel, method)))
            .await;
    }

    pub(crate) async fn connection(&mut self, method: connection::AMQPMethod) {
        self.method(0, AMQPClass::Connection(method)).await;
    }

    /// Reads the next frame; `None` if the broker closed the socket.
    pub(crate) async fn frame(&mut self) -> Option<AMQPFrame> {
        loop {
            if let Ok((rest, frame)) = parse_frame(&self.input[..]) {
                let used = self.input.len() - rest.len();
                self.input.advance(used);
                return Some(frame);
            }
            match with_timeout(self.stream.read_buf(&mut self.input)).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Reads until the connection or channel is closed and returns code and text; `None` if the
    /// socket was closed without `close`.
    pub(crate) async fn closed_with(&mut self) -> Option<(u16, String)> {
        loop {
            match self.frame().await? {
                AMQPFrame::Method(
                    _,
                    AMQPClass::Connection(connection::AMQPMethod::Close(close)),
                ) => {
                    return Some((close.reply_code, close.reply_text.to_string()));
                }
                AMQPFrame::Method(_, AMQPClass::Channel(channel::AMQPMethod::Close(close))) => {
                    return Some((close.reply_code, close.reply_text.to_string()));
                }
                _ => {}
            }
        }
    }

    /// Reads everything until the broker closes the socket.
    pub(crate) async fn read_to_end(mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // A reset counts as the end too.
        let _ = with_timeout(self.stream.read_to_end(&mut rest)).await;
        rest
    }
}

/// Encodes a frame.
pub(crate) fn encoded(frame: &AMQPFrame) -> Vec<u8> {
    gen_frame(frame)(WriteContext::from(Vec::new()))
        .unwrap()
        .into_inner()
        .0
}

/// Encodes a frame of any type and payload.
pub(crate) fn raw(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind];
    frame.extend(channel.to_be_bytes());
    frame.extend((payload.len() as u32).to_be_bytes());
    frame.extend(payload);
    frame.push(206);
    frame
}
