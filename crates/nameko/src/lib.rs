//! nameko

pub mod amqp;
pub mod config;
pub mod serialization;
