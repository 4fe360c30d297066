//! Whether the routes of a container accept requests.

use std::sync::{
    OnceLock,
    atomic::{AtomicU8, Ordering},
};

use tokio::time::Instant;

/// Whether the routes of a container accept requests. Shared by all of them.
#[derive(Debug, Default)]
pub(super) struct Gate {
    phase: AtomicU8,
    /// Time of the first stop request.
    draining_since: OnceLock<Instant>,
}

/// The life of a container's routes. Only advances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum GatePhase {
    Starting,
    Open,
    /// Requests on connections that are older than the stop are served.
    Draining,
    Closed,
}

/// The answer of a [`Gate`] to a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Admitted,
    Starting,
    Stopping,
}

impl Gate {
    pub(super) fn advance(&self, phase: GatePhase) {
        if phase == GatePhase::Draining {
            self.draining_since();
        }
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
    }

    /// Returns the time of the first stop request, which is now if there was none.
    pub(super) fn draining_since(&self) -> Instant {
        *self.draining_since.get_or_init(Instant::now)
    }

    pub(super) fn is(&self, phase: GatePhase) -> bool {
        self.phase.load(Ordering::Acquire) == phase as u8
    }

    /// Decides about a request on a connection that was accepted at `connected`.
    pub(super) fn admit(&self, connected: Instant) -> Admission {
        match self.phase.load(Ordering::Acquire) {
            phase if phase == GatePhase::Open as u8 => Admission::Admitted,
            phase if phase == GatePhase::Starting as u8 => Admission::Starting,
            phase if phase == GatePhase::Draining as u8 && connected < self.draining_since() => {
                Admission::Admitted
            }
            _ => Admission::Stopping,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_draining_gate_admits_older_connections_only() {
        let gate = Gate::default();
        let before = Instant::now();
        assert_eq!(gate.admit(before), Admission::Starting);
        gate.advance(GatePhase::Open);
        assert_eq!(gate.admit(before), Admission::Admitted);
        gate.advance(GatePhase::Draining);
        let after = gate.draining_since() + Duration::from_millis(1);
        assert_eq!(
            (
                gate.admit(before - Duration::from_millis(1)),
                gate.admit(after)
            ),
            (Admission::Admitted, Admission::Stopping)
        );
        // A late start does not reopen it.
        gate.advance(GatePhase::Open);
        gate.advance(GatePhase::Closed);
        assert_eq!(gate.admit(before), Admission::Stopping);
    }
}
