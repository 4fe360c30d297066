//! Tests of the crate as a user sees it.

// Configuration files and keys.
mod config;
// JSON as Python writes it.
mod serialization;
