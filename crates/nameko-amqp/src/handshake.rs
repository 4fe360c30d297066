//! The first words on a connection: protocol header, login, limits, virtual host.

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

/// Every peer must take frames of this size: AMQP 0-9-1, constant frame-min-size.
const MIN_FRAME_BYTES: usize = 4096;

/// The most channels to use on a connection, as RabbitMQ's own default.
const MAX_CHANNELS: u16 = 2047;

/// What client and broker agreed on.
pub(crate) struct Agreed {
    pub(crate) limits: Limits,
    /// What came after the last frame of the handshake.
    pub(crate) frames: FrameReader,
}

/// Does the handshake.
pub(crate) async fn negotiate(
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
    uri: &Uri,
    options: &ConnectOptions,
    peer: &Peer,
) -> Result<Agreed, Error> {
    let mut talk = Talk {
        reader,
        writer,
        frames: FrameReader::new(),
        peer,
    };
    talk.write(b"AMQP\x00\x00\x09\x01").await?;
    talk.greeting().await?;

    let start = match talk.method().await? {
        connection::AMQPMethod::Start(start) => start,
        other => return Err(talk.unexpected(&other)),
    };
    if (start.version_major, start.version_minor) != (0, 9) {
        return Err(talk.disagree(format!(
            "it speaks AMQP {}.{}, not 0-9-1",
            start.version_major, start.version_minor
        )));
    }
    let offered = String::from_utf8_lossy(start.mechanisms.as_bytes()).into_owned();
    let (mechanism, response) = sasl(uri, options.login)?;
    if !offered.split(' ').any(|offer| offer == mechanism) {
        return Err(talk.disagree(format!(
            "it offers the login methods {offered}, not {mechanism}; set LOGIN_METHOD to one of them, or enable {mechanism} on the broker"
        )));
    }
    talk.send(connection::AMQPMethod::StartOk(connection::StartOk {
        client_properties: client_properties(options),
        mechanism: short_string("the login method", mechanism)?,
        response: response.into(),
        locale: short_string("the locale", "en_US")?,
    }))
    .await?;

    let tune = match talk.login_answer().await? {
        connection::AMQPMethod::Tune(tune) => tune,
        connection::AMQPMethod::Secure(_) => {
            return Err(talk.disagree(format!(
                "it wants more than one step to log in with {mechanism}"
            )));
        }
        other => return Err(talk.unexpected(&other)),
    };
    let limits = agree(&tune, options.heartbeat).map_err(|reason| talk.disagree(reason))?;
    talk.send(connection::AMQPMethod::TuneOk(connection::TuneOk {
        channel_max: limits.channel_max,
        frame_max: u32::try_from(limits.frame_max).unwrap_or(u32::MAX),
        heartbeat: u16::try_from(limits.heartbeat.as_secs()).unwrap_or(u16::MAX),
    }))
    .await?;
    talk.send(connection::AMQPMethod::Open(connection::Open {
        virtual_host: short_string("the vhost", &uri.vhost)?,
    }))
    .await?;
    match talk.method().await? {
        connection::AMQPMethod::OpenOk(_) => {}
        connection::AMQPMethod::Close(close) => {
            let text = close.reply_text.to_string();
            talk.send(connection::AMQPMethod::CloseOk(connection::CloseOk {}))
                .await
                .ok();
            return Err(match close.reply_code {
                // 530 not-allowed, 403 access-refused, 402 invalid-path
                530 | 403 | 402 => Error::NotAllowed {
                    peer: peer.clone(),
                    text,
                },
                code => Error::ConnectionClosed {
                    peer: peer.clone(),
                    code,
                    text,
                    class: close.class_id,
                    method: close.method_id,
                },
            });
        }
        other => return Err(talk.unexpected(&other)),
    }
    let Talk { mut frames, .. } = talk;
    frames.set_limit(limits.frame_max);
    Ok(Agreed { limits, frames })
}

struct Talk<'a, R, W> {
    reader: &'a mut R,
    writer: &'a mut W,
    frames: FrameReader,
    peer: &'a Peer,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Talk<'_, R, W> {
    /// Waits for the first bytes and looks whether they are AMQP.
    async fn greeting(&mut self) -> Result<(), Error> {
        /// As much of an answer that is not AMQP as is quoted.
        const MAX_QUOTED_BYTES: usize = 40;

        loop {
            let begun = self.frames.rest();
            // `connection.start` comes on channel 0.
            let is_amqp = begun
                .iter()
                .zip([FRAME_METHOD, 0, 0])
                .all(|(came, wanted)| *came == wanted);
            if is_amqp {
                if begun.len() >= 3 {
                    return Ok(());
                }
            } else if begun.starts_with(b"AMQP") || b"AMQP".starts_with(begun) {
                if let Some([_, major, minor, revision]) = begun.get(4..8) {
                    return Err(self.disagree(format!(
                        "it speaks only AMQP {major}-{minor}-{revision}, not 0-9-1"
                    )));
                }
            } else {
                let quoted = begun.get(..MAX_QUOTED_BYTES).unwrap_or(begun);
                let hint = match quoted {
                    // A TLS alert
                    [0x15, 3, ..] => ", which is TLS: use amqps:// or AMQP_SSL",
                    [b'H', b'T', b'T', b'P', ..] => ", which is HTTP",
                    [b'S', b'S', b'H', ..] => ", which is SSH",
                    _ => "",
                };
                return Err(Error::NotAmqp {
                    peer: self.peer.clone(),
                    read: format!("\"{}\"{hint}", quoted.escape_ascii()),
                });
            }
            let nothing_yet = begun.is_empty();
            let count = self.read().await?;
            if count == 0 && nothing_yet {
                return Err(self.lost("it hung up without a word; is that an AMQP broker, is it still starting, or does the port want TLS?".to_owned()));
            }
            if count == 0 {
                return Err(self.lost("it hung up in its first frame".to_owned()));
            }
        }
    }

    async fn read(&mut self) -> Result<usize, Error> {
        let count = self
            .reader
            .read(self.frames.spare())
            .await
            // A reset is how a peer hangs up on what it has not read.
            .or_else(|error| match error.kind() {
                io::ErrorKind::ConnectionReset => Ok(0),
                _ => Err(self.lost(error.to_string())),
            })?;
        self.frames.filled(count);
        Ok(count)
    }

    /// The next method of the connection.
    async fn method(&mut self) -> Result<connection::AMQPMethod, Error> {
        self.next_method()
            .await?
            .ok_or_else(|| self.lost("the broker closed it during the handshake".to_owned()))
    }

    /// The answer to the login. A broker that does not say why it refuses one just hangs up.
    async fn login_answer(&mut self) -> Result<connection::AMQPMethod, Error> {
        let refused = |text: String| Error::AccessRefused {
            peer: self.peer.clone(),
            // A sentence of the broker goes on here.
            text: text.trim_end_matches('.').to_owned(),
        };
        match self.next_method().await? {
            Some(connection::AMQPMethod::Close(close)) if close.reply_code == 403 => {
                Err(refused(close.reply_text.to_string()))
            }
            Some(connection::AMQPMethod::Close(close)) => Err(Error::ConnectionClosed {
                peer: self.peer.clone(),
                code: close.reply_code,
                text: close.reply_text.to_string(),
                class: close.class_id,
                method: close.method_id,
            }),
            Some(method) => Ok(method),
            None => Err(refused("it hung up after the login".to_owned())),
        }
    }

    /// `None` at the end of the stream.
    async fn next_method(&mut self) -> Result<Option<connection::AMQPMethod>, Error> {
        loop {
            let came = match self.frames.next() {
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
            match came {
                Ok(Some(method)) => return Ok(Some(method)),
                Ok(None) if self.read().await? == 0 => return Ok(None),
                Ok(None) => {}
                Err(reason) => return Err(self.broken(reason)),
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

    fn disagree(&self, reason: String) -> Error {
        Error::Handshake {
            peer: self.peer.clone(),
            reason,
        }
    }

    fn broken(&self, reason: String) -> Error {
        Error::Protocol {
            peer: self.peer.clone(),
            reason,
        }
    }

    fn unexpected(&self, method: &connection::AMQPMethod) -> Error {
        match method {
            connection::AMQPMethod::Close(close) => Error::ConnectionClosed {
                peer: self.peer.clone(),
                code: close.reply_code,
                text: close.reply_text.to_string(),
                class: close.class_id,
                method: close.method_id,
            },
            other => self.broken(format!("{other:?} in the handshake")),
        }
    }
}

/// The name of a SASL mechanism and its first and only response.
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
    properties.insert("product".into(), text("nameko"));
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

/// What both can do, of what the broker offers and the client wants. A zero in an offer means no limit.
fn agree(offer: &connection::Tune, heartbeat: u16) -> Result<Limits, String> {
    let frame_max = match usize::try_from(offer.frame_max) {
        Ok(0) | Err(_) => MAX_FRAME_BYTES,
        Ok(offered) => offered.min(MAX_FRAME_BYTES),
    };
    if frame_max < MIN_FRAME_BYTES {
        return Err(format!(
            "it takes frames of at most {frame_max} bytes, AMQP asks for at least {MIN_FRAME_BYTES}"
        ));
    }
    let channel_max = match offer.channel_max {
        0 => MAX_CHANNELS,
        offered => offered.min(MAX_CHANNELS),
    };
    let heartbeat = match (offer.heartbeat, heartbeat) {
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
        agree(&offer, ours).map(|l| (l.channel_max, l.frame_max, l.heartbeat.as_secs()))
    }

    #[test]
    fn the_smaller_limit_counts_and_zero_is_none() {
        assert_eq!(limits(2047, 131_072, 60, 60), Ok((2047, 131_072, 60)));
        assert_eq!(limits(0, 0, 0, 30), Ok((2047, 131_072, 30)));
        assert_eq!(limits(9, 4096, 10, 60), Ok((9, 4096, 10)));
        assert_eq!(limits(u16::MAX, u32::MAX, 60, 0), Ok((2047, 131_072, 0)));
        assert!(limits(0, 4095, 0, 0).is_err());
    }

    #[test]
    fn passwords_reach_the_broker_as_they_are() {
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
