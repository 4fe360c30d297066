//! A connection's socket: one task that reads, handles all that came, and writes all there is to say with one call.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    broker_state::{BrokerState, ConnectionGuard},
    connection::{Connection, Phase},
    send_buffer::{OutChunk, SendBuffer},
};

/// How much is read at once, at most.
const READ: usize = 64 << 10;
/// How many pieces are written at once, at most.
const PIECES: usize = 64;
/// How long a peer may take to confirm that its connection is closed.
const CLOSING: Duration = Duration::from_secs(10);
/// How long it may take when the broker stops or its connections are closed by force, and how long to wait for its end.
const GOODBYE: Duration = Duration::from_secs(1);

/// Times at which something has to be done without the peer.
#[derive(Debug)]
struct Timers {
    handshake: Instant,
    /// When to give up on a connection closed from this side.
    closing: Option<Instant>,
    read: Instant,
    written: Instant,
    /// Since when the socket took nothing although there was something.
    stuck: Option<Instant>,
}

/// Serves one client until it goes or is closed.
pub(crate) async fn serve(mut stream: TcpStream, registration: ConnectionGuard) {
    // Small frames must not wait for each other.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "could not turn off Nagle's algorithm");
    }
    let shared = &registration.shared;
    let mut connection = Connection::new(shared.clone(), registration.outbox.clone());
    match run(&mut stream, &mut connection, &registration.outbox, shared).await {
        Ok(()) => {
            connection.finish(Phase::Closed);
            goodbye(stream).await;
        }
        Err(error) => tracing::debug!(%error, "connection lost"),
    }
}

/// Reads, handles and writes until the connection is over and all of it is sent.
async fn run(
    stream: &mut TcpStream,
    connection: &mut Connection,
    outbox: &SendBuffer,
    shared: &BrokerState,
) -> io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    let mut input = BytesMut::new();
    let mut pending: VecDeque<OutChunk> = VecDeque::new();
    let now = Instant::now();
    let mut clock = Timers {
        handshake: now + shared.settings.handshake_timeout,
        closing: None,
        read: now,
        written: now,
        stuck: None,
    };
    loop {
        if let Some(reason) = outbox.take_forced() {
            connection.force_close(&reason);
            clock.closing = Some(Instant::now() + GOODBYE);
        }
        // Frames may have been left from before, when the outbox was full.
        if !input.is_empty() {
            connection.receive(&mut input);
        }
        if outbox.take_held_back() {
            connection.resume();
        }
        outbox.take(&mut pending);
        if pending.is_empty() && connection.phase() == Phase::Closed {
            return Ok(());
        }
        if connection.phase() == Phase::Closing && clock.closing.is_none() {
            clock.closing = Some(Instant::now() + CLOSING);
        }
        clock.note_pending(!pending.is_empty());
        let slices: Vec<IoSlice<'_>> = pending
            .iter()
            .take(PIECES)
            .map(|piece| IoSlice::new(&piece.bytes))
            .collect();
        let reading = outbox.takes_answers() && connection.phase() != Phase::Closed;
        if !reading {
            // A peer is not silent because nobody listens; that it takes what it is sent is watched instead.
            clock.read = Instant::now();
        }
        let deadline = clock.next(connection, shared.settings.send_timeout);
        tokio::select! {
            biased;
            written = writer.write_vectored(&slices), if !slices.is_empty() => {
                drop(slices);
                let written = written?;
                advance(&mut pending, written, outbox);
                clock.written = Instant::now();
                clock.stuck = None;
            }
            read = read_some(&mut reader, &mut input), if reading => {
                if read? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                clock.read = Instant::now();
            }
            () = outbox.wake.notified() => {}
            () = sleep_until(deadline) => clock.due(connection, shared.settings.send_timeout)?,
        }
    }
}

async fn read_some(
    reader: &mut tokio::net::tcp::ReadHalf<'_>,
    input: &mut BytesMut,
) -> io::Result<usize> {
    // Room for one read; what is left over of a frame stays in front of it.
    if input.capacity() - input.len() < READ / 4 {
        input.reserve(READ);
    }
    reader.read_buf(input).await
}

/// Takes off the front what was written.
fn advance(pending: &mut VecDeque<OutChunk>, mut written: usize, outbox: &SendBuffer) {
    while let Some(front) = pending.front_mut() {
        let taken = written.min(front.bytes.len());
        outbox.sent(taken, front.delivered);
        front.bytes.advance(taken);
        written -= taken;
        if !front.bytes.is_empty() {
            return;
        }
        pending.pop_front();
    }
}

impl Timers {
    /// Notes whether something waits to be written.
    fn note_pending(&mut self, pending: bool) {
        match (pending, self.stuck) {
            (true, None) => self.stuck = Some(Instant::now()),
            (false, Some(_)) => self.stuck = None,
            _ => {}
        }
    }

    /// When to look at the clock next.
    fn next(&self, connection: &Connection, send_timeout: Duration) -> Instant {
        // A day is as good as never, and an instant can't overflow with it.
        let mut next = self.read + Duration::from_secs(86_400);
        match connection.phase() {
            Phase::Running | Phase::Closed => {}
            Phase::Closing => next = self.closing.unwrap_or(next),
            _ => next = self.handshake,
        }
        if let Some(stuck) = self.stuck {
            next = next.min(stuck + send_timeout);
        }
        let heartbeat = connection.heartbeat();
        if !heartbeat.is_zero() && connection.phase() == Phase::Running {
            next = next.min(self.read + heartbeat * 2);
            // No heartbeat goes before what the peer does not take.
            if self.stuck.is_none() {
                next = next.min(self.written + heartbeat / 2);
            }
        }
        next
    }

    /// Does what is due.
    fn due(&mut self, connection: &Connection, send_timeout: Duration) -> io::Result<()> {
        let now = Instant::now();
        let over = |what: &str| Err(io::Error::new(io::ErrorKind::TimedOut, what.to_owned()));
        if self.stuck.is_some_and(|stuck| stuck + send_timeout <= now) {
            return over("the peer takes nothing of what is sent to it");
        }
        match connection.phase() {
            Phase::Closed => return Ok(()),
            Phase::Closing if self.closing.is_some_and(|at| at <= now) => {
                return over("the peer did not confirm the close");
            }
            Phase::Closing => return Ok(()),
            Phase::Running => {}
            _ if self.handshake <= now => return over("the peer did not finish the handshake"),
            _ => return Ok(()),
        }
        let heartbeat = connection.heartbeat();
        if heartbeat.is_zero() {
            return Ok(());
        }
        if self.read + heartbeat * 2 <= now {
            return over("missed heartbeats from the client");
        }
        if self.written + heartbeat / 2 <= now && self.stuck.is_none() {
            connection.send_heartbeat();
            self.written = now;
        }
        Ok(())
    }
}

/// Closes in a way that lets the peer read the last words: what it sent and nobody read would cut them off.
async fn goodbye(mut stream: TcpStream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut rest = [0; 1024];
    let drained = timeout(GOODBYE, async {
        while matches!(stream.read(&mut rest).await, Ok(1..)) {}
    });
    if drained.await.is_err() {
        tracing::debug!("a closed peer kept its side open");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::settings::Settings;

    #[tokio::test]
    async fn a_peer_that_takes_nothing_is_looked_at_when_its_time_is_up_and_not_all_the_time() {
        let (shared, _timers) = BrokerState::new(Settings::default());
        let shared = Arc::new(shared);
        let registration = shared.register(None);
        let mut connection = Connection::new(shared, registration.outbox.clone());
        connection.phase = Phase::Running;
        connection.heartbeat = Duration::from_secs(20);
        let send_timeout = Duration::from_secs(30);
        let now = Instant::now();
        // The last write was longer ago than heartbeats are apart, and what came up since is not taken.
        let mut clock = Timers {
            handshake: now,
            closing: None,
            read: now,
            written: now - Duration::from_secs(15),
            stuck: Some(now),
        };
        assert_eq!(clock.next(&connection, send_timeout), now + send_timeout);
        clock.stuck = None;
        assert!(clock.next(&connection, send_timeout) < now);
    }
}
