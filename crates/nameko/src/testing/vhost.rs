//! A virtual host of one's own on RabbitMQ, through its management API.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::amqp::Uri;

/// How long the management API has to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Made for one test, deleted after it with everything in it.
#[derive(Debug)]
pub(super) struct Vhost {
    name: String,
    api: Api,
}

impl Vhost {
    /// A new one on the RabbitMQ at `uri`, and the URI of it. Blocks.
    pub(super) fn create(uri: &str) -> Result<(Self, String), String> {
        let uris = Uri::parse_list(uri).map_err(|error| error.to_string())?;
        let api = Api::of(uris.first().ok_or("the URI is empty")?);
        let name = format!("nameko-test-{}", uuid::Uuid::new_v4().simple());
        api.request("PUT", &format!("/api/vhosts/{name}"))?;
        let encoded = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
        let (user, password) = (encoded(&api.user), encoded(&api.password));
        let own = format!("amqp://{user}:{password}@{}:{}/{name}", api.host, api.port);
        Ok((Self { name, api }, own))
    }
}

impl Drop for Vhost {
    fn drop(&mut self) {
        let path = format!("/api/vhosts/{}", self.name);
        if let Err(error) = self.api.request("DELETE", &path) {
            tracing::error!("a test's virtual host is left behind: {error}");
        }
    }
}

/// The management API, and the AMQP address beside it.
struct Api {
    user: String,
    password: String,
    host: String,
    port: u16,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "<management API at {}:{}>", self.host, Self::PORT)
    }
}

impl Api {
    /// Where RabbitMQ's management plugin listens.
    const PORT: u16 = 15672;

    fn of(uri: &Uri) -> Self {
        Self {
            user: uri.user.clone(),
            password: uri.password.clone(),
            host: uri.host.clone(),
            port: uri.port,
        }
    }

    fn request(&self, method: &str, path: &str) -> Result<(), String> {
        let place = format!("the management API at {}:{}", self.host, Self::PORT);
        let answer = self
            .exchange(method, path)
            .map_err(|error| format!("{place}: {error}; is the management plugin on?"))?;
        match answer.split(' ').nth(1) {
            Some(status) if status.starts_with('2') => Ok(()),
            _ => Err(format!("{method} {path} at {place}: {answer}")),
        }
    }

    fn exchange(&self, method: &str, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect((self.host.as_str(), Self::PORT))?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        let login = base64(format!("{}:{}", self.user, self.password).as_bytes());
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Basic {login}\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n",
            self.host
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

/// RFC 4648.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk
            .iter()
            .chain([&0, &0])
            .take(3)
            .fold(0_u32, |group, byte| group << 8 | u32::from(*byte));
        for index in 0..4 {
            let sextet = (group >> (18 - 6 * index)) & 63;
            let used = index <= chunk.len();
            text.push(if used {
                char::from(ALPHABET[sextet as usize])
            } else {
                '='
            });
        }
    }
    text
}
