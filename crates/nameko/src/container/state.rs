//! The states of a container.

/// The state of a container. It only advances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(super) enum State {
    New,
    Started,
    Stopping,
    Ended,
}
