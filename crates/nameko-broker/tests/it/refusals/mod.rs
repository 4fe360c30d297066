mod declarations;
mod operations;

use std::sync::Arc;

use lapin::{Channel, Connection, Error};

use crate::support::*;

/// What is refused, with which code and text.
pub(super) struct Refusal {
    pub(super) code: u16,
    pub(super) text: &'static str,
}

pub(super) const fn refused(code: u16, text: &'static str) -> Refusal {
    Refusal { code, text }
}

/// A channel of its own connection, to be closed by a refusal.
pub(super) async fn fresh(env: &Arc<TestEnv>) -> (Connection, Channel) {
    let connection = env.connect().await;
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

/// Checks an error against what is expected, with this test's names made plain.
pub(super) fn check(env: &TestEnv, error: Error, expected: &Refusal) {
    let (code, text) = refusal(&error);
    assert_eq!(
        (code, env.without_prefix(&text)),
        (expected.code, expected.text.to_owned())
    );
}
