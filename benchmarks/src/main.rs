//! The RPC hello on bare client crates and on a bare loop, and what calls it. `run.py` runs it.

mod bare_amqprs;
mod bare_client;
mod bare_lapin;
mod bare_loop;
mod connection;
mod hello;
mod load;

use clap::{Args, Parser};

#[derive(Parser)]
enum Program {
    /// Call a hello service, and measure
    Load(load::Arguments),
    /// Serve on a bare loop on the codec amq-protocol
    Loop(Service),
    /// Serve on the crate lapin
    Lapin(Service),
    /// Serve on the crate amqprs
    Amqprs(Service),
    /// Serve on Nameko's own AMQP client
    Client(Service),
}

#[derive(Args)]
struct Service {
    /// The broker, with its virtual host: amqp://user:password@host:port/%2F
    uri: String,
    /// The name of the service
    name: String,
}

fn main() -> Result<(), hello::Failure> {
    match Program::parse() {
        Program::Load(arguments) => load::run(arguments),
        Program::Loop(Service { uri, name }) => bare_loop::run(&uri, &name),
        Program::Lapin(Service { uri, name }) => bare_lapin::run(&uri, &name),
        Program::Amqprs(Service { uri, name }) => bare_amqprs::run(&uri, &name),
        Program::Client(Service { uri, name }) => bare_client::run(&uri, &name),
    }
}
