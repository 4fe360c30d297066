//! The measured programs without Nameko, and the load generators. Run by `run.py`.

mod bare_axum;
mod cluster_client;
mod connection;
mod handlers;
mod hello;
mod load;
mod load_broker;
mod load_http;
mod load_messages;
mod load_rpc;
mod publishers;
mod reports;
mod rpc;
mod task_caller;

use std::net::SocketAddr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use load_broker::BrokerCaller;
use load_http::HttpCaller;
use load_messages::MessageCaller;
use load_rpc::RpcCaller;
use task_caller::TaskCaller;
use tokio::runtime::{Builder, Runtime};

#[derive(Parser)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure a service over RPC
    Load {
        #[command(flatten)]
        service: Service,
        /// Other services in the program, whose queues are deleted too
        #[arg(long = "with")]
        others: Vec<String>,
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
    /// Measure handlers of events and messages
    LoadMessages {
        #[command(flatten)]
        target: load_messages::Target,
        #[command(flatten)]
        arguments: load::Arguments,
    },
    /// Measure a broker
    LoadBroker {
        /// Broker and virtual host: amqp://user:password@host:port/%2F
        uri: String,
        #[command(flatten)]
        arguments: load::Arguments,
    },
    /// Dispatch events and measure the own process
    Dispatch {
        library: Library,
        /// Broker and virtual host: amqp://user:password@host:port/%2F
        uri: String,
        #[command(flatten)]
        arguments: load::Arguments,
    },
    /// Call a service with the client of Nameko and measure the own process
    Call {
        #[command(flatten)]
        service: Service,
        #[command(flatten)]
        arguments: load::Arguments,
    },
    /// Serve RPC
    Rpc {
        library: Library,
        #[command(flatten)]
        service: Service,
    },
    /// Handle messages
    Handle {
        library: Library,
        #[command(flatten)]
        queues: handlers::Queues,
    },
    /// Serve HTTP with the crate axum
    Axum(HttpService),
}

/// The library of a program.
#[derive(Clone, ValueEnum)]
enum Library {
    /// A loop on the codec amq-protocol
    Loop,
    Lapin,
    Amqprs,
    /// nameko-amqp
    Client,
    Nameko,
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
    match Program::parse().command {
        Command::Load {
            service,
            others,
            arguments,
        } => {
            let timeout = arguments.timeout();
            let caller = RpcCaller::new(&service.uri, &service.name, &others, timeout)?;
            load::run(caller, arguments)
        }
        Command::LoadHttp { service, arguments } => {
            let caller = HttpCaller::new(service.address, arguments.timeout())?;
            load::run(caller, arguments)
        }
        Command::LoadMessages { target, arguments } => {
            let caller = MessageCaller::new(target, arguments.timeout())?;
            load::run(caller, arguments)
        }
        Command::LoadBroker { uri, arguments } => load::run(BrokerCaller::new(&uri), arguments),
        Command::Dispatch {
            library,
            uri,
            arguments,
        } => dispatch(&library, &uri, arguments),
        Command::Call { service, arguments } => {
            let client = cluster_client::ClusterClient::connect(&service.uri, &service.name);
            load::run(TaskCaller::new(Runtime::new()?, client)?, arguments)
        }
        Command::Rpc { library, service } => serve(&library, &service),
        Command::Handle { library, queues } => match library {
            Library::Loop => handlers::bare_loop::run(&queues),
            Library::Lapin => handlers::lapin::run(&queues),
            Library::Amqprs => handlers::amqprs::run(&queues),
            Library::Client => handlers::client::run(&queues),
            _ => Err("no such handler".into()),
        },
        Command::Axum(HttpService { address }) => bare_axum::run(address),
    }
}

fn serve(library: &Library, service: &Service) -> Result<(), hello::Failure> {
    let Service { uri, name } = service;
    match library {
        Library::Loop => rpc::bare_loop::run(uri, name),
        Library::Lapin => rpc::lapin::run(uri, name),
        Library::Amqprs => rpc::amqprs::run(uri, name),
        Library::Client => rpc::client::run(uri, name),
        Library::Nameko => Err("a program of its own".into()),
    }
}

fn dispatch(
    library: &Library,
    uri: &str,
    arguments: load::Arguments,
) -> Result<(), hello::Failure> {
    // As the bare services: lapin and amqprs are cheapest on one thread.
    let single = || Builder::new_current_thread().enable_all().build();
    match library {
        Library::Loop => load::run(publishers::bare_loop::Loop::connect(uri)?, arguments),
        Library::Lapin => {
            let publisher = publishers::lapin::Lapin::connect(uri);
            load::run(TaskCaller::new(single()?, publisher)?, arguments)
        }
        Library::Amqprs => {
            let publisher = publishers::amqprs::Amqprs::connect(uri);
            load::run(TaskCaller::new(single()?, publisher)?, arguments)
        }
        Library::Client => {
            let publisher = publishers::client::Client::connect(uri);
            load::run(TaskCaller::new(Runtime::new()?, publisher)?, arguments)
        }
        Library::Nameko => {
            let publisher = publishers::nameko::Dispatcher::connect(uri);
            load::run(TaskCaller::new(Runtime::new()?, publisher)?, arguments)
        }
    }
}
