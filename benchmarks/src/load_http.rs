//! Asks a hello service over HTTP: connections that stay open, each with one request after the other.

use std::{
    cell::Cell,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{
    hello::Failure,
    load::{Caller, Run, until_answered},
};
use futures_util::future::try_join_all;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::{Builder, Runtime},
    time::timeout,
};

/// What the service has to answer.
const GREETING: &str = "Hello, zq!";

pub(crate) struct HttpCaller {
    runtime: Runtime,
    address: SocketAddr,
    request: String,
    patience: Duration,
}

impl HttpCaller {
    pub(crate) fn new(address: SocketAddr, patience: Duration) -> Result<Self, Failure> {
        let request = format!("GET /hello/zq HTTP/1.1\r\nHost: {address}\r\nAccept: */*\r\n\r\n");
        Ok(Self {
            runtime: Builder::new_current_thread().enable_all().build()?,
            address,
            request,
            patience,
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

    /// Asks on one connection while `left` says that more are wanted. Returns how long each took.
    async fn ask(
        &self,
        mut connection: Connection,
        left: &Cell<usize>,
        end: Instant,
    ) -> Result<Vec<Duration>, Failure> {
        let mut latencies = Vec::new();
        while left.get() > 0 {
            left.set(left.get() - 1);
            let begun = Instant::now();
            let asking = connection.ask(self.request.as_bytes());
            timeout(self.patience, asking).await??;
            let now = Instant::now();
            latencies.push(now - begun);
            if now >= end {
                break;
            }
        }
        Ok(latencies)
    }
}

impl Caller for HttpCaller {
    fn first_answer(&mut self, patience: Duration) -> Result<(), Failure> {
        until_answered(patience, || {
            self.runtime.block_on(async {
                match self.connect().await {
                    Ok(mut connection) => connection.ask(self.request.as_bytes()).await?,
                    Err(_) => return Ok(false),
                }
                Ok(true)
            })
        })
    }

    fn run(&mut self, in_flight: usize, calls: usize, seconds: f64) -> Result<Run, Failure> {
        self.runtime.block_on(async {
            let connections = try_join_all((0..in_flight).map(|_| self.connect())).await?;
            let left = Cell::new(calls);
            let begin = Instant::now();
            let end = begin + Duration::from_secs_f64(seconds);
            let asking = connections.into_iter().map(|it| self.ask(it, &left, end));
            let latencies = try_join_all(asking).await?.concat();
            Ok(Run {
                latencies,
                elapsed: begin.elapsed(),
            })
        })
    }

    fn clean(self) -> Result<(), Failure> {
        Ok(())
    }
}

struct Connection {
    stream: TcpStream,
    /// What came of the answer.
    received: Vec<u8>,
}

impl Connection {
    async fn ask(&mut self, request: &[u8]) -> Result<(), Failure> {
        self.stream.write_all(request).await?;
        self.received.clear();
        loop {
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err("the service has closed the connection".into());
            }
            if let Some(body) = body(&self.received)? {
                return check(body);
            }
        }
    }
}

/// The body of an answer, once it is whole.
fn body(answer: &[u8]) -> Result<Option<&[u8]>, Failure> {
    let Some(end) = answer.windows(4).position(|it| it == b"\r\n\r\n") else {
        return Ok(None);
    };
    let (head, rest) = answer.split_at(end);
    let head = std::str::from_utf8(head)?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(format!("not the expected answer: {head}").into());
    }
    let length: usize = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .ok_or("an answer without a length")?
        .1
        .trim()
        .parse()?;
    Ok(rest.get(4..).filter(|body| body.len() >= length))
}

fn check(body: &[u8]) -> Result<(), Failure> {
    let answer: Value = serde_json::from_slice(body)?;
    if answer["greeting"] == GREETING {
        Ok(())
    } else {
        Err(format!("not the expected answer: {answer}").into())
    }
}
