//! The hello service on bare crates and on a bare loop, and the load generators. Run by `run.py`.

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
    /// Measure a hello service over RPC
    Load {
        #[command(flatten)]
        service: Service,
        #[command(flatten)]
        arguments: load::Arguments,
    },
    /// Measure a hello service over HTTP
    LoadHttp {
        #[command(flatten)]
        service: HttpService,
        #[command(flatten)]
        arguments: load::Arguments,
    },
    /// Serve with a bare loop on the codec amq-protocol
    Loop(Service),
    /// Serve with the crate lapin
    Lapin(Service),
    /// Serve with the crate amqprs
    Amqprs(Service),
    /// Serve with the crate nameko-amqp
    Client(Service),
    /// Serve HTTP with the crate axum
    Axum(HttpService),
}

#[derive(Args)]
struct Service {
    /// Broker and virtual host: amqp://user:password@host:port/%2F
    uri: String,
    /// Name of the service
    name: String,
}

#[derive(Args)]
struct HttpService {
    /// Address to listen on or to call: address:port
    address: SocketAddr,
}

fn main() -> Result<(), hello::Failure> {
    match Program::parse() {
        Program::Load { service, arguments } => {
            let caller = RpcCaller::new(&service.uri, &service.name, arguments.timeout())?;
            load::run(caller, arguments)
        }
        Program::LoadHttp { service, arguments } => {
            let caller = HttpCaller::new(service.address, arguments.timeout())?;
            load::run(caller, arguments)
        }
        Program::Loop(Service { uri, name }) => bare_loop::run(&uri, &name),
        Program::Lapin(Service { uri, name }) => bare_lapin::run(&uri, &name),
        Program::Amqprs(Service { uri, name }) => bare_amqprs::run(&uri, &name),
        Program::Client(Service { uri, name }) => bare_client::run(&uri, &name),
        Program::Axum(HttpService { address }) => bare_axum::run(address),
    }
}
