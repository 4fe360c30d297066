mod declarations;
mod operations;

use std::sync::Arc;

use lapin::{Channel, Connection, Error};

use crate::support::*;

/// An expected error.
pub(super) struct Refusal {
    pub(super) code: u16,
    pub(super) text: &'static str,
}

pub(super) const fn refused(code: u16, text: &'static str) -> Refusal {
    Refusal { code, text }
}

/// Opens a connection and a channel for one error, which closes them.
pub(super) async fn fresh(env: &Arc<TestEnv>) -> (Connection, Channel) {
    let connection = env.connect().await;
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

/// Compares an error, with the unique prefix removed.
pub(super) fn check(env: &TestEnv, error: Error, expected: &Refusal) {
    let (code, text) = refusal(&error);
    assert_eq!(
        (code, env.without_prefix(&text)),
        (expected.code, expected.text.to_owned())
    );
}
