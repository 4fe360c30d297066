//! Waiting for an unreachable broker: the first connection that returns wakes all others.

use std::{
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use crate::{backoff::Backoff, error::Error, sync::lock, uri::Uri};

/// A connection that waits before its next attempt.
struct Waiter {
    uris: Vec<Uri>,
    wake: Notify,
}

/// The waiting connections of this process.
static WAITING: Mutex<Vec<Weak<Waiter>>> = Mutex::new(Vec::new());

/// Waits `delay` before the next attempt to connect. After a failure that may end with an outage,
/// also ends once another connection of this process reaches one of the brokers, but not before
/// [`Backoff::INITIAL_DELAY`], which bounds the rate of connections that wake each other.
pub(crate) async fn wait_to_reconnect(uris: &[Uri], error: &Error, delay: Duration) {
    if !error.is_recoverable() {
        return sleep(delay).await;
    }
    let waiter = Arc::new(Waiter {
        uris: uris.to_vec(),
        wake: Notify::new(),
    });
    lock(&WAITING).push(Arc::downgrade(&waiter));
    let first = delay.min(Backoff::INITIAL_DELAY);
    sleep(first).await;
    // The notification is kept if it came during the sleep. Either result means an attempt.
    let _ = timeout(delay.saturating_sub(first), waiter.wake.notified()).await;
}

/// Wakes the connections that wait for the broker of `uri`, which has accepted one.
pub(crate) fn broker_reached(uri: &Uri) {
    lock(&WAITING).retain(|waiter| {
        let Some(waiter) = waiter.upgrade() else {
            return false;
        };
        let same = |other: &Uri| (&other.host, other.port) == (&uri.host, uri.port);
        if waiter.uris.iter().any(same) {
            waiter.wake.notify_one();
        }
        true
    });
}
