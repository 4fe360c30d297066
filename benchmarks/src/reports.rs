//! Progress of message handlers, reported to the load generator in datagrams.

use std::{
    net::UdpSocket,
    sync::atomic::{AtomicU64, Ordering},
};

/// A message whose body is shorter resets the count.
const RESET_BYTES: usize = 10;

/// Number of messages per report.
const INTERVAL: u64 = 100;

/// The count of handled messages.
pub(crate) struct Reports {
    socket: UdpSocket,
    count: AtomicU64,
}

impl Reports {
    /// Reports to the port in the environment variable `REPORTS_PORT`.
    ///
    /// # Panics
    ///
    /// If the variable is not a port.
    #[expect(clippy::expect_used, reason = "a wrong command line of a benchmark")]
    pub(crate) fn new() -> Self {
        let port = std::env::var("REPORTS_PORT").ok();
        let port: u16 = port
            .and_then(|port| port.parse().ok())
            .expect("REPORTS_PORT is not a port");
        let socket = UdpSocket::bind("127.0.0.1:0").expect("no free UDP port");
        socket
            .connect(("127.0.0.1", port))
            .expect("invalid address");
        Self {
            socket,
            count: AtomicU64::new(0),
        }
    }

    /// Counts a message with a body of this size.
    pub(crate) fn handled(&self, bytes: usize) {
        if bytes < RESET_BYTES {
            self.count.store(0, Ordering::Relaxed);
            self.send(0);
            return;
        }
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        if count.is_multiple_of(INTERVAL) {
            self.send(count);
        }
    }

    /// The load generator ends with an error if a report is lost.
    fn send(&self, count: u64) {
        let _ = self.socket.send(count.to_string().as_bytes());
    }
}
