//! The AMQP handshake: protocol header, login, limits, virtual host.

use std::{io, time::Duration};

use amq_protocol::{
    protocol::{AMQPClass, connection},
    types::{AMQPValue, FieldTable},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{
    connection_state::Limits,
    decode::Method,
    encode::{self, short_string},
    error::Error,
    frame::{FRAME_METHOD, FrameKind, FrameReader, MAX_FRAME_BYTES},
    options::{ConnectOptions, Login},
    peer::Peer,
    uri::Uri,
};

/// AMQP 0-9-1, section 4.2.2.
const PROTOCOL_HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";

/// Smallest limit that a broker may set: AMQP 0-9-1, constant frame-min-size.
const MIN_FRAME_BYTES: usize = 4096;

/// Largest number of channels on a connection, which is RabbitMQ's default.
const MAX_CHANNELS: u16 = 2047;

/// Result of a handshake.
pub(crate) struct Negotiated {
    pub(crate) limits: Limits,
    /// Bytes read after the last frame of the handshake.
    pub(crate) frames: FrameReader,
}

/// Logs in, negotiates limits and opens the virtual host.
pub(crate) async fn negotiate(
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
    uri: &Uri,
    options: &ConnectOptions,
    peer: &Peer,
) -> Result<Negotiated, Error> {
    let mut handshake = Handshake {
        reader,
        writer,
        frames: FrameReader::new(),
        peer,
    };
    handshake.write(PROTOCOL_HEADER).await?;
    handshake.check_protocol().await?;
    let tune = handshake.log_in(uri, options).await?;
    let limits = handshake.tune(&tune, options).await?;
    handshake.open_vhost(&uri.vhost).await?;
    let mut frames = handshake.frames;
    frames.set_limit(limits.frame_max);
    Ok(Negotiated { limits, frames })
}

/// A handshake in progress.
struct Handshake<'a, R, W> {
    reader: &'a mut R,
    writer: &'a mut W,
    frames: FrameReader,
    peer: &'a Peer,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Handshake<'_, R, W> {
    /// Reads the first bytes and checks that the peer speaks AMQP.
    async fn check_protocol(&mut self) -> Result<(), Error> {
        /// Length of the quote from an answer that is not AMQP.
        const MAX_QUOTED_BYTES: usize = 40;

        loop {
            let received = self.frames.rest();
            // `connection.start` is sent on channel 0.
            let is_amqp = received
                .iter()
                .zip([FRAME_METHOD, 0, 0])
                .all(|(received, expected)| *received == expected);
            if is_amqp {
                if received.len() >= 3 {
                    return Ok(());
                }
            } else if received.starts_with(b"AMQP") || b"AMQP".starts_with(received) {
                if let Some([_, major, minor, revision]) = received.get(4..8) {
                    return Err(self.failed(format!(
                        "it speaks only AMQP {major}-{minor}-{revision}, not 0-9-1"
                    )));
                }
            } else {
                let quoted = received.get(..MAX_QUOTED_BYTES).unwrap_or(received);
                let hint = match quoted {
                    // A TLS alert
                    [0x15, 3, ..] => ", which is TLS: use an amqps:// URI or the TLS options",
                    [b'H', b'T', b'T', b'P', ..] => ", which is HTTP",
                    [b'S', b'S', b'H', ..] => ", which is SSH",
                    _ => "",
                };
                return Err(Error::NotAmqp {
                    peer: self.peer.clone(),
                    read: format!("\"{}\"{hint}", quoted.escape_ascii()),
                });
            }
            let nothing_received = received.is_empty();
            let count = self.read().await?;
            if count == 0 && nothing_received {
                return Err(self.lost(
                    "connection closed by peer before the handshake; is that an AMQP broker, is it still starting, or does the port require TLS?"
                        .to_owned(),
                ));
            }
            if count == 0 {
                return Err(self.lost("connection closed by peer in its first frame".to_owned()));
            }
        }
    }

    /// Answers `connection.start` with the credentials, and returns the broker's `connection.tune`.
    async fn log_in(
        &mut self,
        uri: &Uri,
        options: &ConnectOptions,
    ) -> Result<connection::Tune, Error> {
        let start = match self.method().await? {
            connection::AMQPMethod::Start(start) => start,
            other => return Err(self.unexpected(&other)),
        };
        if (start.version_major, start.version_minor) != (0, 9) {
            return Err(self.failed(format!(
                "it speaks AMQP {}.{}, not 0-9-1",
                start.version_major, start.version_minor
            )));
        }
        let offered = String::from_utf8_lossy(start.mechanisms.as_bytes()).into_owned();
        let (mechanism, response) = sasl(uri, options.login)?;
        if !offered.split(' ').any(|offer| offer == mechanism) {
            return Err(self.failed(format!(
                "it offers the login methods {offered}, not {mechanism}; use one of them, or enable {mechanism} on the broker"
            )));
        }
        self.send(connection::AMQPMethod::StartOk(connection::StartOk {
            client_properties: client_properties(options),
            mechanism: short_string("the login method", mechanism)?,
            response: response.into(),
            locale: short_string("the locale", "en_US")?,
        }))
        .await?;
        match self.login_reply().await? {
            connection::AMQPMethod::Tune(tune) => Ok(tune),
            connection::AMQPMethod::Secure(_) => Err(self.failed(format!(
                "it asks for a second step of the login with {mechanism}"
            ))),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Reads the reply to the login. A broker without `authentication_failure_close` refuses a
    /// login by closing the socket.
    async fn login_reply(&mut self) -> Result<connection::AMQPMethod, Error> {
        let refused = |text: String| Error::AccessRefused {
            peer: self.peer.clone(),
            // RabbitMQ's text is a sentence; the error message continues after it.
            text: text.trim_end_matches('.').to_owned(),
        };
        match self.next_method().await? {
            Some(connection::AMQPMethod::Close(close)) if close.reply_code == 403 => {
                Err(refused(close.reply_text.to_string()))
            }
            Some(connection::AMQPMethod::Close(close)) => Err(self.closed(&close)),
            Some(method) => Ok(method),
            None => Err(refused(
                "connection closed by peer after the login".to_owned(),
            )),
        }
    }

    /// Agrees on limits and sends `connection.tune-ok`.
    async fn tune(
        &mut self,
        tune: &connection::Tune,
        options: &ConnectOptions,
    ) -> Result<Limits, Error> {
        let limits = negotiate_limits(tune, options).map_err(|reason| self.failed(reason))?;
        self.send(connection::AMQPMethod::TuneOk(connection::TuneOk {
            channel_max: limits.channel_max,
            frame_max: u32::try_from(limits.frame_max).unwrap_or(u32::MAX),
            heartbeat: u16::try_from(limits.heartbeat.as_secs()).unwrap_or(u16::MAX),
        }))
        .await?;
        Ok(limits)
    }

    async fn open_vhost(&mut self, vhost: &str) -> Result<(), Error> {
        self.send(connection::AMQPMethod::Open(connection::Open {
            virtual_host: short_string("the vhost", vhost)?,
        }))
        .await?;
        match self.method().await? {
            connection::AMQPMethod::OpenOk(_) => Ok(()),
            connection::AMQPMethod::Close(close) => {
                self.send(connection::AMQPMethod::CloseOk(connection::CloseOk {}))
                    .await
                    .ok();
                Err(match close.reply_code {
                    // 530 not-allowed, 403 access-refused, 402 invalid-path
                    530 | 403 | 402 => Error::NotAllowed {
                        peer: self.peer.clone(),
                        text: close.reply_text.to_string(),
                    },
                    _ => self.closed(&close),
                })
            }
            other => Err(self.unexpected(&other)),
        }
    }

    async fn read(&mut self) -> Result<usize, Error> {
        let count = self
            .reader
            .read(self.frames.spare())
            .await
            // A peer that closes with unread bytes resets the connection.
            .or_else(|error| match error.kind() {
                io::ErrorKind::ConnectionReset => Ok(0),
                _ => Err(self.lost(error.to_string())),
            })?;
        self.frames.filled(count);
        Ok(count)
    }

    /// Reads the next method of the class connection.
    async fn method(&mut self) -> Result<connection::AMQPMethod, Error> {
        self.next_method()
            .await?
            .ok_or_else(|| self.lost("connection closed by peer during the handshake".to_owned()))
    }

    /// Reads the next method of the class connection, `None` at the end of the stream.
    async fn next_method(&mut self) -> Result<Option<connection::AMQPMethod>, Error> {
        loop {
            let parsed = match self.frames.next() {
                Ok(Some(frame)) => match (frame.kind, frame.channel) {
                    (FrameKind::Heartbeat, _) => continue,
                    (FrameKind::Method, 0) => match Method::parse(frame.payload) {
                        Ok(Method::Other(AMQPClass::Connection(method))) => Ok(Some(method)),
                        Ok(other) => Err(format!("{other:?} in the handshake")),
                        Err(reason) => Err(reason),
                    },
                    (kind, channel) => Err(format!(
                        "a {kind:?} frame on channel {channel} in the handshake"
                    )),
                },
                Ok(None) => Ok(None),
                Err(reason) => Err(reason),
            };
            match parsed {
                Ok(Some(method)) => return Ok(Some(method)),
                Ok(None) if self.read().await? == 0 => return Ok(None),
                Ok(None) => {}
                Err(reason) => return Err(self.protocol_error(reason)),
            }
        }
    }

    async fn send(&mut self, method: connection::AMQPMethod) -> Result<(), Error> {
        let mut bytes = Vec::new();
        encode::method(&mut bytes, 0, AMQPClass::Connection(method))?;
        self.write(&bytes).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let written = async {
            self.writer.write_all(bytes).await?;
            self.writer.flush().await
        };
        written.await.map_err(|error| self.lost(error.to_string()))
    }

    fn lost(&self, reason: String) -> Error {
        Error::Lost {
            peer: self.peer.clone(),
            reason,
        }
    }

    fn failed(&self, reason: String) -> Error {
        Error::Handshake {
            peer: self.peer.clone(),
            reason,
        }
    }

    fn protocol_error(&self, reason: String) -> Error {
        Error::Protocol {
            peer: self.peer.clone(),
            reason,
        }
    }

    fn closed(&self, close: &connection::Close) -> Error {
        Error::ConnectionClosed {
            peer: self.peer.clone(),
            code: close.reply_code,
            text: close.reply_text.to_string(),
            class: close.class_id,
            method: close.method_id,
        }
    }

    fn unexpected(&self, method: &connection::AMQPMethod) -> Error {
        match method {
            connection::AMQPMethod::Close(close) => self.closed(close),
            other => self.protocol_error(format!("{other:?} in the handshake")),
        }
    }
}

/// Returns the name of a SASL mechanism and its only response.
fn sasl(uri: &Uri, login: Login) -> Result<(&'static str, Vec<u8>), Error> {
    Ok(match login {
        Login::Plain => (
            "PLAIN",
            format!("\0{}\0{}", uri.user, uri.password).into_bytes(),
        ),
        Login::AmqPlain => {
            let mut response = Vec::new();
            encode::bare_table(
                &mut response,
                &[
                    ("LOGIN", uri.user.as_str()),
                    ("PASSWORD", uri.password.as_str()),
                ]
                .into_iter()
                .collect(),
            )?;
            ("AMQPLAIN", response)
        }
        Login::External => ("EXTERNAL", Vec::new()),
    })
}

fn client_properties(options: &ConnectOptions) -> FieldTable {
    let mut capabilities = FieldTable::default();
    for capability in [
        "publisher_confirms",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "authentication_failure_close",
    ] {
        capabilities.insert(capability.into(), AMQPValue::Boolean(true));
    }
    let mut properties = FieldTable::default();
    properties.insert("product".into(), text(&options.product));
    properties.insert("version".into(), text(env!("CARGO_PKG_VERSION")));
    properties.insert("platform".into(), text("Rust"));
    properties.insert("capabilities".into(), AMQPValue::FieldTable(capabilities));
    if let Some(name) = &options.connection_name {
        properties.insert("connection_name".into(), text(name));
    }
    properties
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

/// Combines the broker's offer with the limits of this client. A zero means no limit.
fn negotiate_limits(offer: &connection::Tune, options: &ConnectOptions) -> Result<Limits, String> {
    let frame_max = [offer.frame_max, options.frame_max]
        .into_iter()
        .filter_map(|limit| usize::try_from(limit).ok().filter(|limit| *limit > 0))
        .fold(MAX_FRAME_BYTES, usize::min);
    if frame_max < MIN_FRAME_BYTES {
        return Err(format!(
            "it accepts frames of at most {frame_max} bytes, AMQP requires at least {MIN_FRAME_BYTES}"
        ));
    }
    let channel_max = [offer.channel_max, options.channel_max]
        .into_iter()
        .filter(|limit| *limit > 0)
        .fold(MAX_CHANNELS, u16::min);
    let heartbeat = match (offer.heartbeat, options.heartbeat) {
        (_, 0) => 0,
        (0, ours) => ours,
        (theirs, ours) => theirs.min(ours),
    };
    Ok(Limits {
        frame_max,
        channel_max,
        heartbeat: Duration::from_secs(heartbeat.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(
        channel_max: u16,
        frame_max: u32,
        theirs: u16,
        ours: u16,
    ) -> Result<(u16, usize, u64), String> {
        let offer = connection::Tune {
            channel_max,
            frame_max,
            heartbeat: theirs,
        };
        let options = ConnectOptions {
            heartbeat: ours,
            channel_max: 2000,
            frame_max: 100_000,
            ..ConnectOptions::new(Vec::new())
        };
        negotiate_limits(&offer, &options).map(|limits| {
            (
                limits.channel_max,
                limits.frame_max,
                limits.heartbeat.as_secs(),
            )
        })
    }

    #[test]
    fn the_smaller_limit_counts_and_zero_means_no_limit() {
        assert_eq!(limits(2047, 131_072, 60, 60), Ok((2000, 100_000, 60)));
        assert_eq!(limits(0, 0, 0, 30), Ok((2000, 100_000, 30)));
        assert_eq!(limits(9, 4096, 10, 60), Ok((9, 4096, 10)));
        assert_eq!(limits(u16::MAX, u32::MAX, 60, 0), Ok((2000, 100_000, 0)));
        assert!(limits(0, 4095, 0, 0).is_err());
    }

    #[test]
    fn passwords_are_sent_percent_decoded() {
        let uri = &Uri::parse_list("amqp://me:p%40ss@h").unwrap()[0];
        assert_eq!(
            sasl(uri, Login::Plain).unwrap(),
            ("PLAIN", b"\0me\0p@ss".to_vec())
        );
        assert_eq!(
            sasl(uri, Login::AmqPlain).unwrap(),
            (
                "AMQPLAIN",
                b"\x05LOGINS\0\0\0\x02me\x08PASSWORDS\0\0\0\x04p@ss".to_vec()
            )
        );
        assert_eq!(
            sasl(uri, Login::External).unwrap(),
            ("EXTERNAL", Vec::new())
        );
    }
}
