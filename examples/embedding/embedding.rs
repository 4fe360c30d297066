//! A program with a command line, a runtime and a log of its own that runs services:
//!
//! * `embedding greet NAME` makes a call,
//! * `embedding serve` serves until the end of standard input,
//! * `embedding run`, `shell`, `call` and `show-config` are Nameko's.
#![allow(clippy::print_stdout, reason = "a program prints its result")]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use nameko::{Services, cli, prelude::*};

#[derive(Dependencies)]
struct Greeter {
    #[dependency(ContextData::new("tenant"))]
    tenant: Option<String>,
}

#[service("greeter")]
impl Greeter {
    #[rpc]
    async fn greet(&self, name: String) -> Result<String> {
        tracing::info!("greeting");
        let tenant = self.tenant.as_deref().unwrap_or("nobody");
        Ok(format!("Hello, {name} of {tenant}!"))
    }
}

/// Greets people
#[derive(Parser)]
struct CommandLine {
    /// Tenant of the calls
    #[arg(long, default_value = "acme")]
    tenant: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Greet a person
    Greet {
        name: String,
        #[command(flatten)]
        config: cli::ConfigArguments,
    },
    /// Serve until the end of standard input
    Serve {
        #[command(flatten)]
        config: cli::ConfigArguments,
    },
    #[command(flatten)]
    Nameko(cli::Commands),
}

fn services() -> Services {
    services![Greeter]
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .init();
    let CommandLine { tenant, command } = CommandLine::parse();
    let outcome = match command {
        Command::Greet { name, config } => greet(&config, &tenant, &name).await,
        Command::Serve { config } => serve(&config).await,
        Command::Nameko(command) => return command.execute(services()).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn greet(config: &cli::ConfigArguments, tenant: &str, name: &str) -> Result<()> {
    let cluster = Cluster::connect(&config.load()?).await?;
    let tenant = cluster.with_context("tenant", tenant);
    let greeting: String = tenant.service("greeter").call("greet", (name,)).await?;
    println!("{greeting}");
    cluster.stop().await;
    Ok(())
}

async fn serve(config: &cli::ConfigArguments) -> Result<()> {
    let shutdown = async {
        let input = tokio::task::spawn_blocking(|| std::io::read_to_string(std::io::stdin()));
        // An error ends the input as well.
        let _ = input.await;
    };
    nameko::serve(services(), config.load()?, shutdown).await?;
    println!("served");
    Ok(())
}
