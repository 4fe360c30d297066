//! A virtual host of one's own on RabbitMQ, through its management API.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use nameko::amqp::Uri;

/// Made for one test, deleted after it with everything in it.
pub(crate) struct Vhost {
    name: String,
    api: Api,
}

impl Vhost {
    /// A new one on the RabbitMQ at `uri`, and the URI of it. The management plugin must be on.
    pub(crate) fn create(uri: &str) -> (Self, String) {
        let api = Api::of(&Uri::parse_list(uri).unwrap().remove(0));
        let name = format!("nameko-test-{}", uuid::Uuid::new_v4().simple());
        api.request("PUT", &format!("/api/vhosts/{name}"));
        let Api {
            user,
            password,
            host,
            port,
        } = &api;
        let own = format!("amqp://{user}:{password}@{host}:{port}/{name}");
        (Self { name, api }, own)
    }
}

impl Drop for Vhost {
    fn drop(&mut self) {
        self.api
            .request("DELETE", &format!("/api/vhosts/{}", self.name));
    }
}

struct Api {
    user: String,
    password: String,
    host: String,
    port: u16,
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

    fn request(&self, method: &str, path: &str) {
        let place = format!("the management API at {}:{}", self.host, Self::PORT);
        let mut stream = TcpStream::connect((self.host.as_str(), Self::PORT))
            .unwrap_or_else(|error| panic!("{place}: {error}; is the management plugin on?"));
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let login = base64(format!("{}:{}", self.user, self.password).as_bytes());
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Basic {login}\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n",
            self.host
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(
            status.starts_with('2'),
            "{method} {path} at {place}: {answer}"
        );
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
