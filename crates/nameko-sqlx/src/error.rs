//! Errors of commits.

use nameko::{Error, Exception};

/// The connection broke during the commit, so the database may or may not have committed.
///
/// Callers receive the class path `nameko.contrib.sqlalchemy.CommitOutcomeUnknown`, that of the
/// Python front. A caller may repeat the call only if the method is idempotent.
#[derive(Debug, thiserror::Error, Exception)]
#[error("{0}")]
#[exception("nameko.contrib.sqlalchemy.CommitOutcomeUnknown")]
pub struct CommitOutcomeUnknown(String);

/// Converts an error of `COMMIT`.
///
/// Only an error that the server reports for the transaction means that it was rolled back.
pub(crate) fn commit_error(error: sqlx::Error) -> Error {
    match &error {
        sqlx::Error::Database(reported) if !is_shutdown(reported.code().as_deref()) => {
            Error::from_error(error)
        }
        _ => Error::from_exception(CommitOutcomeUnknown(format!(
            "the outcome of the transaction is unknown: the connection broke during the commit: \
             {error}"
        ))),
    }
}

/// Whether the server ended the connection: SQLSTATE classes 08 (connection) and 57P (shutdown,
/// `pg_terminate_backend`).
fn is_shutdown(code: Option<&str>) -> bool {
    code.is_some_and(|code| code.starts_with("08") || code.starts_with("57P"))
}

/// Whether a repeated transaction may succeed: serialization failure (40001), deadlock (40P01).
pub(crate) fn is_retriable(error: &Error) -> bool {
    let Some(sqlx::Error::Database(reported)) = error.downcast_ref::<sqlx::Error>() else {
        return false;
    };
    matches!(reported.code().as_deref(), Some("40001" | "40P01"))
}
