//! The timeout of tests.

use std::time::Duration;

/// Default timeout of hooks, waiters and recorders; the same as upstream's.
pub const TIMEOUT: Duration = Duration::from_secs(30);
