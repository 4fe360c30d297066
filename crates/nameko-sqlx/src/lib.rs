#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

// The samples of the guide's chapter.
#[cfg(doctest)]
#[doc = include_str!("../docs/transactions.md")]
mod guide {}

mod database;
mod error;
mod isolation;
mod session;
mod transaction;

pub use database::Database;
pub use error::CommitOutcomeUnknown;
pub use isolation::Isolation;
pub use sqlx;
pub use transaction::{Guard, Transaction, Transactions};
