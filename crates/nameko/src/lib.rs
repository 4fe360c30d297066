//! nameko

pub mod amqp;
