//! HTTP load on a hello service: persistent connections with one request at a time each.

use std::{
    cell::Cell,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{
    hello::Failure,
    load::{Caller, Limit, Load, Run, until_answered},
};
use futures_util::future::try_join_all;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::{Builder, Runtime},
    time::timeout,
};

/// The expected greeting.
const GREETING: &str = "Hello, zq!";

pub(crate) struct HttpCaller {
    runtime: Runtime,
    address: SocketAddr,
    request: String,
    timeout: Duration,
}

impl HttpCaller {
    pub(crate) fn new(address: SocketAddr, timeout: Duration) -> Result<Self, Failure> {
        let request = format!("GET /hello/zq HTTP/1.1\r\nHost: {address}\r\nAccept: */*\r\n\r\n");
        Ok(Self {
            runtime: Builder::new_current_thread().enable_all().build()?,
            address,
            request,
            timeout,
        })
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(Connection {
            stream,
            received: Vec::new(),
        })
    }

    /// Sends requests on one connection until none are `left` or `end` has passed. Returns their
    /// latencies.
    async fn request_all(
        &self,
        mut connection: Connection,
        left: &Cell<usize>,
        end: Instant,
    ) -> Result<Vec<Duration>, Failure> {
        let mut latencies = Vec::new();
        while left.get() > 0 {
            left.set(left.get() - 1);
            let start = Instant::now();
            let exchange = connection.exchange(self.request.as_bytes());
            timeout(self.timeout, exchange).await??;
            let now = Instant::now();
            latencies.push(now - start);
            if now >= end {
                break;
            }
        }
        Ok(latencies)
    }
}

impl Caller for HttpCaller {
    fn first_answer(&mut self, timeout: Duration) -> Result<(), Failure> {
        until_answered(timeout, || {
            self.runtime.block_on(async {
                let Ok(mut connection) = self.connect().await else {
                    return Ok(false);
                };
                match connection.exchange(self.request.as_bytes()).await {
                    Ok(()) => Ok(true),
                    // The port is open, the service is starting.
                    Err(error) if error.to_string().contains(" 503 ") => Ok(false),
                    Err(error) => Err(error),
                }
            })
        })
    }

    fn run(&mut self, load: &Load, limit: Limit) -> Result<Run, Failure> {
        self.runtime.block_on(async {
            let connections = try_join_all((0..load.number).map(|_| self.connect())).await?;
            let left = Cell::new(limit.calls);
            let begin = Instant::now();
            let end = begin + Duration::from_secs_f64(limit.seconds);
            let requests = connections
                .into_iter()
                .map(|connection| self.request_all(connection, &left, end));
            let latencies = try_join_all(requests).await?.concat();
            Ok(Run::timed(latencies, begin.elapsed()))
        })
    }

    fn clean_up(self) -> Result<(), Failure> {
        Ok(())
    }
}

struct Connection {
    stream: TcpStream,
    /// The received part of the response.
    received: Vec<u8>,
}

impl Connection {
    async fn exchange(&mut self, request: &[u8]) -> Result<(), Failure> {
        self.stream.write_all(request).await?;
        self.received.clear();
        loop {
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err("connection closed by the service".into());
            }
            if let Some(body) = body(&self.received)? {
                return check(body);
            }
        }
    }
}

/// Returns the body of a response, or `None` while it is incomplete.
fn body(response: &[u8]) -> Result<Option<&[u8]>, Failure> {
    let Some(end) = response.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let (head, rest) = response.split_at(end);
    let head = std::str::from_utf8(head)?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(format!("unexpected response: {head}").into());
    }
    let length: usize = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .ok_or("response without content-length")?
        .1
        .trim()
        .parse()?;
    Ok(rest.get(4..).filter(|body| body.len() >= length))
}

fn check(body: &[u8]) -> Result<(), Failure> {
    let response: Value = serde_json::from_slice(body)?;
    if response["greeting"] == GREETING {
        Ok(())
    } else {
        Err(format!("unexpected response: {response}").into())
    }
}
