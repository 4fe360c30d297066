//! The hello service without a framework: RPC with lapin, HTTP with axum.

#[path = "../bare_axum.rs"]
mod bare_axum;
#[path = "../hello.rs"]
mod hello;
#[path = "../rpc/lapin.rs"]
mod lapin_service;

use std::{net::SocketAddr, thread};

fn main() -> Result<(), hello::Failure> {
    let address = SocketAddr::from(([127, 0, 0, 1], 8000));
    thread::spawn(move || bare_axum::run(address));
    lapin_service::run("amqp://guest:guest@localhost", "bench_lapin_axum")
}
