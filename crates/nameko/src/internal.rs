//! Internals shared with the Python package's compiled module. Not a public API: exempt from
//! semantic versioning.

pub use crate::{
    config::connect::PRODUCT,
    config::known_keys::{KEYS, misspelled},
    messaging::destination::publish_time_limit,
    messaging::requeue::RequeuePause,
    protocol::default_properties,
    rpc::{
        reply_table::{PendingCall, REPLY_GRACE_PERIOD, ReplyTable},
        settlement::{Settlement, publish_reply},
    },
    sync::lock,
};
