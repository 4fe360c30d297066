//! The hello service over RPC, without Nameko.

pub(crate) mod amqprs;
pub(crate) mod bare_loop;
pub(crate) mod client;
pub(crate) mod lapin;
