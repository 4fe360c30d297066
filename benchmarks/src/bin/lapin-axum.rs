//! The hello service without a framework: RPC with lapin, HTTP with axum.

#[path = "../bare_axum.rs"]
mod bare_axum;
#[path = "../bare_lapin.rs"]
mod bare_lapin;
#[path = "../hello.rs"]
mod hello;

use std::{net::SocketAddr, thread};

fn main() -> Result<(), hello::Failure> {
    let address = SocketAddr::from(([127, 0, 0, 1], 8000));
    thread::spawn(move || bare_axum::run(address));
    bare_lapin::run("amqp://guest:guest@localhost", "bench_lapin_axum")
}
