//! An HTTP client on the level of bytes.

use std::net::SocketAddr;

use nameko::{Config, Container, Service, web};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::within;

/// Starts a container with a web server on a free port, without a broker.
pub(crate) async fn serve<S: Service>(config: Config) -> (Container, SocketAddr) {
    let config = config.with("WEB_SERVER_ADDRESS", "127.0.0.1:0");
    let container = Container::new::<S>(config).unwrap();
    container.start().await.unwrap();
    let address = web::address(&container).unwrap();
    (container, address)
}

/// A connection.
pub(crate) struct Client {
    stream: TcpStream,
    /// Received bytes that are not consumed yet.
    buffer: Vec<u8>,
}

/// A received response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Headers, with lower-case names.
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Returns the value of a header, or an empty string.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .iter()
            .find(|(it, _)| it == name)
            .map_or("", |(_, value)| value)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Returns the status and the body.
    pub(crate) fn short(&self) -> (u16, &str) {
        (self.status, self.text())
    }
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self {
            stream: within("a connection", TcpStream::connect(address))
                .await
                .unwrap(),
            buffer: Vec::new(),
        }
    }

    /// Sends bytes.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.unwrap();
    }

    /// Sends bytes, which the server may refuse.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        within("taking the request", self.stream.write_all(bytes.as_ref())).await
    }

    /// Sends a request with a body and reads the response.
    pub(crate) async fn ask(&mut self, line: &str, headers: &str, body: &str) -> Answer {
        let length = body.len();
        self.send(format!(
            "{line} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        ))
        .await;
        match line.starts_with("HEAD ") {
            true => self.head().await,
            false => self.answer().await,
        }
    }

    /// Sends a request without a body and reads the response.
    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"))
            .await;
        self.answer().await
    }

    /// Shuts down the sending side.
    pub(crate) async fn finish(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// Reads a response with a fixed-length or chunked body.
    pub(crate) async fn answer(&mut self) -> Answer {
        let mut answer = self.head().await;
        if answer.header("transfer-encoding") == "chunked" {
            while let Some(chunk) = self.chunk().await {
                answer.body.extend(chunk);
            }
        } else {
            let length = answer.header("content-length").parse().unwrap_or(0);
            answer.body = self.take(length).await;
        }
        answer
    }

    /// Reads the head of a response.
    pub(crate) async fn head(&mut self) -> Answer {
        let mut lines = Vec::new();
        loop {
            match self.line().await {
                line if line.is_empty() => break,
                line => lines.push(line),
            }
        }
        let status = lines.remove(0).split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .iter()
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        Answer {
            status,
            headers,
            body: Vec::new(),
        }
    }

    /// Reads a chunk; `None` for the last one.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        let length = usize::from_str_radix(&self.line().await, 16).unwrap();
        let chunk = self.take(length).await;
        assert_eq!(self.line().await, "");
        (length > 0).then_some(chunk)
    }

    /// Reads until the server closes the connection.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.buffer);
        within("the end of the connection", async {
            // A reset ends the connection too.
            while let Ok(1..) = self.stream.read_buf(&mut rest).await {}
        })
        .await;
        rest
    }

    async fn line(&mut self) -> String {
        let end = loop {
            if let Some(end) = self.buffer.windows(2).position(|bytes| bytes == b"\r\n") {
                break end;
            }
            self.more().await;
        };
        let line = String::from_utf8(self.take(end).await).unwrap();
        self.take(2).await;
        line
    }

    async fn take(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length {
            self.more().await;
        }
        self.buffer.drain(..length).collect()
    }

    async fn more(&mut self) {
        let read = within("the answer", self.stream.read_buf(&mut self.buffer)).await;
        assert!(
            read.unwrap() > 0,
            "the connection was closed after {:?}",
            String::from_utf8_lossy(&self.buffer)
        );
    }
}
