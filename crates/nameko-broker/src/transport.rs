//! Socket I/O of a connection: one task reads, processes all input, and sends all output with one
//! vectored write.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    broker_state::{BrokerState, ConnectionGuard},
    connection::{Connection, Phase},
    send_buffer::{OutChunk, SendBuffer},
};

/// Read buffer size.
const READ_SIZE_BYTES: usize = 64 << 10;
/// Maximum number of chunks per vectored write.
const MAX_CHUNKS_PER_WRITE: usize = 64;
/// Time that a peer has to send `connection.close-ok`.
const CLOSE_OK_TIMEOUT: Duration = Duration::from_secs(10);
/// The same on shutdown and forced close; also the time to wait for the peer's end of file.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// Deadlines that do not depend on the peer.
#[derive(Debug)]
struct Timers {
    handshake_deadline: Instant,
    /// When to give up waiting for `connection.close-ok`.
    close_deadline: Option<Instant>,
    last_read: Instant,
    last_write: Instant,
    /// Since when the socket has accepted no data although some was pending.
    write_blocked_since: Option<Instant>,
}

/// A byte stream to a client, in two halves.
struct Socket<R, W> {
    reader: R,
    writer: W,
    /// The writer keeps data until it is flushed.
    buffers_writes: bool,
}

/// Serves a client until it disconnects or is closed.
pub(crate) async fn serve(mut stream: TcpStream, guard: ConnectionGuard) {
    let connection = Connection::new(guard.broker.clone(), guard.send_buffer.clone());
    let (reader, writer) = stream.split();
    let socket = Socket {
        reader,
        writer,
        buffers_writes: false,
    };
    run_to_end(socket, connection, &guard).await;
}

/// Serves a client over TLS. `external` is set if EXTERNAL is offered.
#[cfg(feature = "tls")]
pub(crate) async fn serve_tls(
    stream: tokio_rustls::server::TlsStream<TcpStream>,
    external: Option<crate::auth::ExternalLogin>,
    guard: ConnectionGuard,
) {
    let mut connection = Connection::new(guard.broker.clone(), guard.send_buffer.clone());
    connection.tls = true;
    connection.external = external;
    let (reader, writer) = tokio::io::split(stream);
    let socket = Socket {
        reader,
        writer,
        buffers_writes: true,
    };
    run_to_end(socket, connection, &guard).await;
}

async fn run_to_end(
    mut socket: Socket<impl AsyncRead + Unpin, impl AsyncWrite + Unpin>,
    mut connection: Connection,
    guard: &ConnectionGuard,
) {
    match run(
        &mut socket,
        &mut connection,
        &guard.send_buffer,
        &guard.broker,
    )
    .await
    {
        Ok(()) => {
            connection.finish(Phase::Closed);
            close_gracefully(socket).await;
        }
        Err(error) => tracing::debug!(%error, "connection lost"),
    }
}

/// Reads, processes and writes until the connection is closed and everything is sent.
async fn run(
    socket: &mut Socket<impl AsyncRead + Unpin, impl AsyncWrite + Unpin>,
    connection: &mut Connection,
    send_buffer: &SendBuffer,
    broker: &BrokerState,
) -> io::Result<()> {
    let Socket {
        reader,
        writer,
        buffers_writes,
    } = socket;
    let mut unflushed = false;
    let mut input = BytesMut::new();
    let mut pending: VecDeque<OutChunk> = VecDeque::new();
    let now = Instant::now();
    let mut timers = Timers {
        handshake_deadline: now + broker.settings.handshake_timeout,
        close_deadline: None,
        last_read: now,
        last_write: now,
        write_blocked_since: None,
    };
    loop {
        if let Some(reason) = send_buffer.take_forced_close() {
            connection.force_close(&reason);
            timers.close_deadline = Some(Instant::now() + LINGER_TIMEOUT);
        }
        // Frames may be left from when the send buffer was full.
        if !input.is_empty() {
            connection.receive(&mut input);
        }
        if send_buffer.take_resume() {
            connection.resume_deliveries();
        }
        send_buffer.take(&mut pending);
        if pending.is_empty() && !unflushed && connection.phase() == Phase::Closed {
            return Ok(());
        }
        if connection.phase() == Phase::Closing && timers.close_deadline.is_none() {
            timers.close_deadline = Some(Instant::now() + CLOSE_OK_TIMEOUT);
        }
        timers.set_pending(unflushed || !pending.is_empty());
        let slices: Vec<IoSlice<'_>> = pending
            .iter()
            .take(MAX_CHUNKS_PER_WRITE)
            .map(|chunk| IoSlice::new(&chunk.bytes))
            .collect();
        let reading = send_buffer.accepts_input() && connection.phase() != Phase::Closed;
        if !reading {
            // While reading is paused, silence is no sign of a dead peer; the send timeout applies.
            timers.last_read = Instant::now();
        }
        let deadline = timers.next_wakeup(connection, broker.settings.send_timeout);
        tokio::select! {
            biased;
            written = write_or_flush(writer, &slices), if unflushed || !slices.is_empty() => {
                unflushed = *buffers_writes && !slices.is_empty();
                drop(slices);
                advance(&mut pending, written?, send_buffer);
                timers.last_write = Instant::now();
                timers.write_blocked_since = None;
            }
            read = read_some(reader, &mut input), if reading => {
                if read? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                timers.last_read = Instant::now();
            }
            () = send_buffer.wake.notified() => {}
            () = sleep_until(deadline) => timers.on_wakeup(connection, broker.settings.send_timeout)?,
        }
    }
}

/// Writes some bytes and returns their number, or flushes if there are none.
async fn write_or_flush(
    writer: &mut (impl AsyncWrite + Unpin),
    slices: &[IoSlice<'_>],
) -> io::Result<usize> {
    match slices {
        [] => writer.flush().await.map(|()| 0),
        slices => writer.write_vectored(slices).await,
    }
}

async fn read_some(
    reader: &mut (impl AsyncRead + Unpin),
    input: &mut BytesMut,
) -> io::Result<usize> {
    // Room for one read; the rest of an incomplete frame precedes it.
    if input.capacity() - input.len() < READ_SIZE_BYTES / 4 {
        input.reserve(READ_SIZE_BYTES);
    }
    reader.read_buf(input).await
}

/// Removes written bytes from the front.
fn advance(pending: &mut VecDeque<OutChunk>, mut written: usize, send_buffer: &SendBuffer) {
    while let Some(front) = pending.front_mut() {
        let taken = written.min(front.bytes.len());
        send_buffer.sent(taken, front.is_delivery_body);
        front.bytes.advance(taken);
        written -= taken;
        if !front.bytes.is_empty() {
            return;
        }
        pending.pop_front();
    }
}

impl Timers {
    /// Records whether data is waiting to be written.
    fn set_pending(&mut self, pending: bool) {
        match (pending, self.write_blocked_since) {
            (true, None) => self.write_blocked_since = Some(Instant::now()),
            (false, Some(_)) => self.write_blocked_since = None,
            _ => {}
        }
    }

    /// Returns when [`Timers::on_wakeup`] is due next.
    fn next_wakeup(&self, connection: &Connection, send_timeout: Duration) -> Instant {
        // A day is equivalent to never, and cannot overflow an `Instant`.
        let mut next = self.last_read + Duration::from_secs(86_400);
        match connection.phase() {
            Phase::Running | Phase::Closed => {}
            Phase::Closing => next = self.close_deadline.unwrap_or(next),
            _ => next = self.handshake_deadline,
        }
        if let Some(write_blocked_since) = self.write_blocked_since {
            next = next.min(write_blocked_since + send_timeout);
        }
        let heartbeat = connection.heartbeat();
        if !heartbeat.is_zero() && connection.phase() == Phase::Running {
            next = next.min(self.last_read + heartbeat * 2);
            // Heartbeats are pointless while the peer accepts no data.
            if self.write_blocked_since.is_none() {
                next = next.min(self.last_write + heartbeat / 2);
            }
        }
        next
    }

    /// Sends a heartbeat if one is due, or fails if a deadline has passed.
    fn on_wakeup(&mut self, connection: &Connection, send_timeout: Duration) -> io::Result<()> {
        let now = Instant::now();
        let timed_out = |reason: &str| Err(io::Error::new(io::ErrorKind::TimedOut, reason));
        if self
            .write_blocked_since
            .is_some_and(|write_blocked_since| write_blocked_since + send_timeout <= now)
        {
            return timed_out("peer accepts no data");
        }
        match connection.phase() {
            Phase::Closed => return Ok(()),
            Phase::Closing if self.close_deadline.is_some_and(|at| at <= now) => {
                return timed_out("timed out waiting for connection.close-ok");
            }
            Phase::Closing => return Ok(()),
            Phase::Running => {}
            _ if self.handshake_deadline <= now => {
                return timed_out("handshake timed out");
            }
            _ => return Ok(()),
        }
        let heartbeat = connection.heartbeat();
        if heartbeat.is_zero() {
            return Ok(());
        }
        if self.last_read + heartbeat * 2 <= now {
            return timed_out("missed heartbeats from the client");
        }
        if self.last_write + heartbeat / 2 <= now && self.write_blocked_since.is_none() {
            connection.send_heartbeat();
            self.last_write = now;
        }
        Ok(())
    }
}

/// Closes the socket so that the peer can read the final frame: unread input would cause a reset
/// that discards it.
async fn close_gracefully(mut socket: Socket<impl AsyncRead + Unpin, impl AsyncWrite + Unpin>) {
    let mut rest = [0; 1024];
    let drained = timeout(LINGER_TIMEOUT, async {
        if socket.writer.shutdown().await.is_ok() {
            while matches!(socket.reader.read(&mut rest).await, Ok(1..)) {}
        }
    });
    if drained.await.is_err() {
        tracing::debug!("peer did not close its side");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::settings::Settings;

    #[tokio::test]
    async fn a_blocked_peer_is_checked_only_at_the_send_timeout() {
        let (broker, _timers) = BrokerState::new(Settings::default());
        let broker = Arc::new(broker);
        let guard = broker.register(None, false);
        let mut connection = Connection::new(broker, guard.send_buffer.clone());
        connection.phase = Phase::Running;
        connection.heartbeat = Duration::from_secs(20);
        let send_timeout = Duration::from_secs(30);
        let now = Instant::now();
        // The last write is older than a heartbeat interval, and pending data is not accepted.
        let mut timers = Timers {
            handshake_deadline: now,
            close_deadline: None,
            last_read: now,
            last_write: now - Duration::from_secs(15),
            write_blocked_since: Some(now),
        };
        assert_eq!(
            timers.next_wakeup(&connection, send_timeout),
            now + send_timeout
        );
        timers.write_blocked_since = None;
        assert!(timers.next_wakeup(&connection, send_timeout) < now);
    }
}
