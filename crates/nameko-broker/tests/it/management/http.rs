use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::with_timeout;

/// A client of the management API, with one connection per request.
pub(crate) struct Api {
    addr: String,
    credentials: Option<String>,
}

/// A response.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    /// Null if there is no body.
    pub(crate) json: Value,
}

impl Api {
    /// Parses a URI such as `http://guest:guest@127.0.0.1:15672`.
    pub(crate) fn new(uri: &str) -> Self {
        let rest = uri.strip_prefix("http://").unwrap();
        let (credentials, addr) = rest.rsplit_once('@').unwrap();
        Self {
            addr: addr.to_owned(),
            credentials: Some(credentials.to_owned()),
        }
    }

    pub(crate) fn addr(&self) -> &str {
        &self.addr
    }

    /// Returns a client with other credentials, or with none.
    pub(crate) fn as_user(&self, credentials: Option<&str>) -> Self {
        Self {
            addr: self.addr.clone(),
            credentials: credentials.map(str::to_owned),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.request("GET", path, "", "").await
    }

    pub(crate) async fn put(&self, path: &str, body: impl ToString) -> Reply {
        self.request("PUT", path, "", &body.to_string()).await
    }

    pub(crate) async fn post(&self, path: &str, body: impl ToString) -> Reply {
        self.request("POST", path, "", &body.to_string()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.request("DELETE", path, "", "").await
    }

    /// Sends a request for a path after `/api/`. `headers` are complete lines.
    pub(crate) async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> Reply {
        let login = match &self.credentials {
            None => String::new(),
            Some(plain) => {
                let encoded = data_encoding::BASE64.encode(plain.as_bytes());
                format!("Authorization: Basic {encoded}\r\n")
            }
        };
        // HTTP/1.0 has no chunked encoding and one request per connection.
        let request = format!(
            "{method} /api/{path} HTTP/1.0\r\nHost: it\r\n{login}{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = with_timeout(send_raw(&self.addr, request.as_bytes())).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| {
            panic!("no answer to {method} {path}: {answer:?}");
        });
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let json = match body.trim() {
            "" => Value::Null,
            body => serde_json::from_str(body).unwrap(),
        };
        Reply {
            status,
            head: head.to_lowercase(),
            json,
        }
    }
}

/// Sends bytes and reads the response to the end.
pub(crate) async fn send_raw(addr: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    // The peer may close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}
