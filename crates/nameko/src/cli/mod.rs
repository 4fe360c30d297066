//! The command line of programs with services, and of the binary `nameko`.

mod arguments;
#[cfg(feature = "embedded-broker")]
mod broker;
#[cfg(not(feature = "embedded-broker"))]
#[path = "broker_disabled.rs"]
mod broker;
mod call;
mod client;
mod completion;
mod endpoint;
mod expression;
mod failure;
mod literal;
mod logging;
#[cfg(unix)]
mod parent;
#[cfg(unix)]
mod processes;
mod run;
mod scanner;
mod shell;
mod signals;
mod terminal;
#[cfg(test)]
mod tests;

use std::{future::Future, process::ExitCode, time::Duration};

use clap::{FromArgMatches as _, Parser as _, error::ErrorKind};
use tokio::runtime::{Builder, Runtime};

#[cfg(feature = "embedded-broker")]
use self::arguments::BrokerArguments;
use self::arguments::{
    CallArguments, ClientArguments, ConfigArguments, RunArguments, ServicesArguments,
    ServicesCommand, ToolArguments, ToolCommand,
};
use self::failure::Failure;
use crate::config::Config;
use crate::runner::{Runner, Services};

/// Default log filter of `run`. The embedded broker is announced on standard output instead.
const RUN_LOG: &str = "info,nameko_broker=warn";
const CLIENT_LOG: &str = "warn";

/// Grace period for blocked threads after the program has stopped.
const RUNTIME_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// The `main` of a program with services: the commands `run`, `shell`, `call` and `show-config`.
///
/// ```no_run
/// use nameko::prelude::*;
///
/// #[derive(Dependencies)]
/// struct HelloService;
///
/// #[service("hello_service")]
/// impl HelloService {
///     #[rpc]
///     async fn hello(&self, name: String) -> Result<String> {
///         Ok(format!("Hello, {name}!"))
///     }
/// }
///
/// fn main() -> ExitCode {
///     nameko::main(services![HelloService])
/// }
/// ```
///
/// `run --workers N` starts the program's binary N times with the same command line; standard input
/// of these processes is a socket to the supervisor.
///
/// Exit codes: 0 on success, 1 on an error (printed on standard error), 2 on a wrong command line,
/// 130 or 143 after a second signal.
pub fn main(services: Services) -> ExitCode {
    let mut command = ServicesArguments::of_program(&services);
    let arguments = ServicesArguments::from_arg_matches(&command.get_matches_mut())
        .unwrap_or_else(|error| error.exit());
    if let ServicesCommand::Run(run) = &arguments.command
        && let Err(unknown) = services.check(&run.services)
    {
        command.error(ErrorKind::InvalidValue, unknown).exit();
    }
    report(match arguments.command {
        ServicesCommand::Run(arguments) => run_command(&services, &arguments),
        ServicesCommand::Shell(arguments) => shell_command(&arguments, &services),
        ServicesCommand::Call(arguments) => call_command(&arguments),
        ServicesCommand::ShowConfig(arguments) => show_config(&arguments),
    })
}

/// The `main` of the binary `nameko`: `shell`, `call`, `show-config` and, with the feature
/// `embedded-broker`, `broker`.
pub fn tool() -> ExitCode {
    report(match ToolArguments::parse().command {
        ToolCommand::Shell(arguments) => shell_command(&arguments, &Services::new()),
        ToolCommand::Call(arguments) => call_command(&arguments),
        #[cfg(feature = "embedded-broker")]
        ToolCommand::Broker(arguments) => broker_command(&arguments),
        ToolCommand::ShowConfig(arguments) => show_config(&arguments),
    })
}

fn report(outcome: Result<ExitCode, Failure>) -> ExitCode {
    outcome.unwrap_or_else(|failure| {
        terminal::print_failure(&failure);
        ExitCode::FAILURE
    })
}

fn run_command(services: &Services, arguments: &RunArguments) -> Result<ExitCode, Failure> {
    let config = arguments.config.load()?;
    let process = arguments.process();
    logging::start(&arguments.log, &config, RUN_LOG, process)?;
    let outcome = run_to_end(run::run(services, arguments, config))?;
    match process {
        None => outcome,
        Some(number) => outcome.map_err(|failure| failure.in_process(number)),
    }
}

#[cfg(feature = "embedded-broker")]
fn broker_command(arguments: &BrokerArguments) -> Result<ExitCode, Failure> {
    logging::start(&arguments.log, &Config::new(), RUN_LOG, None)?;
    run_to_end(broker::serve(arguments))?
}

fn call_command(arguments: &CallArguments) -> Result<ExitCode, Failure> {
    let config = arguments.client.config.load()?;
    logging::start(&arguments.client.log, &config, CLIENT_LOG, None)?;
    client_runtime()?.block_on(call::run(arguments, &config))?;
    Ok(ExitCode::SUCCESS)
}

fn shell_command(arguments: &ClientArguments, services: &Services) -> Result<ExitCode, Failure> {
    let config = arguments.config.load()?;
    logging::start(&arguments.log, &config, CLIENT_LOG, None)?;
    let known = known_methods(services, &config)?;
    shell::run(&client_runtime()?, &config, arguments.timeout, known)
}

fn show_config(arguments: &ConfigArguments) -> Result<ExitCode, Failure> {
    terminal::echo(arguments.load()?.to_yaml().trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// Runs `program` to its end, without waiting for threads that are still blocked by methods.
fn run_to_end<T>(program: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(program);
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN_TIMEOUT);
    Ok(outcome)
}

/// Builds a runtime with one worker thread, which keeps the connection alive while the main thread
/// reads the keyboard.
fn client_runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
}

/// Returns the RPC methods of the program's services, for completion in the shell.
fn known_methods(services: &Services, config: &Config) -> Result<completion::Names, Failure> {
    let mut names = completion::Names::default();
    for container in Runner::new::<&str>(services, &[], config)?.containers() {
        for (kind, method) in container.entrypoints() {
            if kind == "rpc" {
                names.learn(container.service_name(), method);
            }
        }
    }
    Ok(names)
}
