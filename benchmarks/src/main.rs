//! The hello on bare crates and on a bare loop, and what calls it. `run.py` runs it.

mod bare_amqprs;
mod bare_axum;
mod bare_client;
mod bare_lapin;
mod bare_loop;
mod connection;
mod hello;
mod load;
mod load_http;
mod load_rpc;

use std::net::SocketAddr;

use clap::{Args, Parser};
use load_http::HttpCaller;
use load_rpc::RpcCaller;

#[derive(Parser)]
enum Program {
    /// Call a hello service, and measure
    Load {
        #[command(flatten)]
        service: Service,
        #[command(flatten)]
        arguments: load::Arguments,
    },
    /// Ask a hello service over HTTP, and measure
    LoadHttp {
        #[command(flatten)]
        service: HttpService,
        #[command(flatten)]
        arguments: load::Arguments,
    },
    /// Serve on a bare loop on the codec amq-protocol
    Loop(Service),
    /// Serve on the crate lapin
    Lapin(Service),
    /// Serve on the crate amqprs
    Amqprs(Service),
    /// Serve on Nameko's own AMQP client
    Client(Service),
    /// Serve HTTP on the crate axum
    Axum(HttpService),
}

#[derive(Args)]
struct Service {
    /// The broker, with its virtual host: amqp://user:password@host:port/%2F
    uri: String,
    /// The name of the service
    name: String,
}

#[derive(Args)]
struct HttpService {
    /// Where it listens: address:port
    address: SocketAddr,
}

fn main() -> Result<(), hello::Failure> {
    match Program::parse() {
        Program::Load { service, arguments } => {
            let caller = RpcCaller::new(&service.uri, &service.name, arguments.patience())?;
            load::run(caller, arguments)
        }
        Program::LoadHttp { service, arguments } => {
            let caller = HttpCaller::new(service.address, arguments.patience())?;
            load::run(caller, arguments)
        }
        Program::Loop(Service { uri, name }) => bare_loop::run(&uri, &name),
        Program::Lapin(Service { uri, name }) => bare_lapin::run(&uri, &name),
        Program::Amqprs(Service { uri, name }) => bare_amqprs::run(&uri, &name),
        Program::Client(Service { uri, name }) => bare_client::run(&uri, &name),
        Program::Axum(HttpService { address }) => bare_axum::run(address),
    }
}
