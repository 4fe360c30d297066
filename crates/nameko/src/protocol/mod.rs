//! Nameko's wire protocol: names, queues and envelopes. No other module contains them.
//!
//! Source: code and traffic of Nameko 2.14.1.

mod argument_shape;
mod events;
mod fault;
mod message;
mod names;
mod reply;
mod request;
mod topology;

pub(crate) use self::events::{
    broadcast_identifier, event_exchange, event_exchange_name, event_queue_name,
};
pub(crate) use self::fault::Details;
pub use self::fault::Fault;
#[cfg(feature = "http")]
pub(crate) use self::fault::FaultExtension;
pub use self::message::default_properties;
pub(crate) use self::message::message;
pub(crate) use self::names::{
    AUTH_TOKEN, CALL_ID_STACK, HEADER_PREFIX, LANGUAGE, PARENT_CALLS_TRACKED, STANDALONE,
    USER_AGENT, USER_ID, call_id, method_of, request_key,
};
pub(crate) use self::reply::{decode_reply, encode_fault, encode_result};
pub(crate) use self::request::{Call, decode_request};
pub(crate) use self::topology::{reply_queue, request_queue, rpc_exchange};
