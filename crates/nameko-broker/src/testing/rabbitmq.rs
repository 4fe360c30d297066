//! A temporary virtual host on RabbitMQ, through its management API.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    time::Duration,
};

use data_encoding::BASE64;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

const API_TIMEOUT: Duration = Duration::from_secs(30);

/// Distance of the management plugin's port from the AMQP port, by default 5672 and 15672.
const API_PORT_OFFSET: u16 = 10_000;

/// A virtual host, deleted on drop together with its contents.
#[derive(Debug)]
pub(super) struct Vhost {
    name: String,
    server: Server,
}

impl Vhost {
    /// Creates a virtual host with a random name on the RabbitMQ at `uri`. Blocks.
    pub(super) fn create(uri: &str) -> Result<Self, String> {
        let server = Server::from_uri(uri)?;
        let name = format!("nameko-test-{}", uuid::Uuid::new_v4().simple());
        server.request("PUT", &format!("/api/vhosts/{name}"))?;
        Ok(Self { name, server })
    }

    pub(super) fn uri(&self) -> String {
        let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
        let Server {
            user,
            password,
            host,
            port,
        } = &self.server;
        let (user, password) = (encode(user), encode(password));
        format!("amqp://{user}:{password}@{host}:{port}/{}", self.name)
    }

    pub(super) fn addr(&self) -> Result<SocketAddr, String> {
        let Server { host, port, .. } = &self.server;
        let resolved = (host.as_str(), *port).to_socket_addrs();
        resolved
            .map_err(|error| format!("cannot resolve {host}: {error}"))?
            .next()
            .ok_or_else(|| format!("{host} has no address"))
    }
}

impl Drop for Vhost {
    fn drop(&mut self) {
        let path = format!("/api/vhosts/{}", self.name);
        if let Err(error) = self.server.request("DELETE", &path) {
            tracing::error!("cannot delete the virtual host of a test: {error}");
        }
    }
}

/// Host, AMQP port and credentials of a RabbitMQ. `Debug` hides the password.
struct Server {
    user: String,
    password: String,
    host: String,
    port: u16,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<RabbitMQ at {}:{}>", self.host, self.port)
    }
}

impl Server {
    /// Parses `amqp://user:password@host:port`. User and password default to `guest`, the port to
    /// 5672; a path is ignored.
    fn from_uri(uri: &str) -> Result<Self, String> {
        let rest = uri
            .strip_prefix("amqp://")
            .ok_or("expected amqp://user:password@host:port")?;
        let authority = rest.split('/').next().unwrap_or_default();
        let (login, address) = authority
            .rsplit_once('@')
            .unwrap_or(("guest:guest", authority));
        let (user, password) = login.split_once(':').unwrap_or((login, "guest"));
        let (host, port) = address.split_once(':').unwrap_or((address, "5672"));
        let decode = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
        Ok(Self {
            user: decode(user),
            password: decode(password),
            host: host.to_owned(),
            port: port
                .parse()
                .map_err(|error| format!("invalid port `{port}`: {error}"))?,
        })
    }

    fn request(&self, method: &str, path: &str) -> Result<(), String> {
        let port = self.port.saturating_add(API_PORT_OFFSET);
        let api = format!("the management API at {}:{port}", self.host);
        let response = self
            .exchange(port, method, path)
            .map_err(|error| format!("{api}: {error}; is the management plugin enabled?"))?;
        match response.split(' ').nth(1) {
            Some(status) if status.starts_with('2') => Ok(()),
            _ => Err(format!("{method} {path} at {api}: {response}")),
        }
    }

    fn exchange(&self, port: u16, method: &str, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect((self.host.as_str(), port))?;
        stream.set_read_timeout(Some(API_TIMEOUT))?;
        let login = BASE64.encode(format!("{}:{}", self.user, self.password).as_bytes());
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Basic {login}\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n",
            self.host
        )?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_server_from_an_amqp_uri() {
        for (uri, expected) in [
            ("amqp://me:p%40ss@rabbit:7", ("me", "p@ss", "rabbit", 7)),
            ("amqp://rabbit/", ("guest", "guest", "rabbit", 5672)),
        ] {
            let server = Server::from_uri(uri).unwrap();
            let read = (
                server.user.as_str(),
                server.password.as_str(),
                server.host.as_str(),
                server.port,
            );
            assert_eq!(read, expected, "{uri}");
        }
        assert!(Server::from_uri("http://rabbit").is_err());
        assert!(Server::from_uri("amqp://rabbit:x").is_err());
    }
}
