//! The command line of programs with services, and of the binary `nameko`.
//!
//! [`main`] is a whole command line; [`Commands`] are its subcommands, for the command
//! line of another program.

mod arguments;
#[cfg(feature = "embedded-broker")]
mod broker;
#[cfg(not(feature = "embedded-broker"))]
#[path = "broker_disabled.rs"]
mod broker;
mod call;
mod client;
mod completion;
mod context;
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
mod stop_guard;
mod terminal;
#[cfg(test)]
mod tests;

use std::{panic::resume_unwind, process::ExitCode, time::Duration};

use clap::{FromArgMatches as _, Parser as _, error::ErrorKind};
use tokio::runtime::{Builder, Handle, Runtime};

#[cfg(feature = "embedded-broker")]
use self::arguments::BrokerArguments;
pub use self::arguments::{
    CallArguments, ClientArguments, Commands, ConfigArguments, RunArguments,
};
use self::arguments::{ServicesArguments, ToolArguments, ToolCommand};
use self::failure::Failure;
pub(crate) use self::logging::InstalledLog;
use crate::config::Config;
use crate::runner::{Runner, Services};

/// Default log filter of `run`. The embedded broker is announced on standard output instead.
const RUN_LOG: &str = "info,nameko_broker=warn";
const CLIENT_LOG: &str = "warn";

/// Exit code after a wrong command line, as of clap.
const WRONG_COMMAND_LINE: u8 = 2;

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
/// Creates a Tokio runtime, and a log unless the program has installed a `tracing` subscriber. In a
/// runtime of your own, use [`main_async`], or [`serve`](crate::serve) without a command line.
/// [`cli::Commands`](Commands) adds the commands to your own command line.
///
/// Exit codes: 0 on success, 1 on an error (printed on standard error), 2 on a wrong command line,
/// 130 or 143 after a second signal.
pub fn main(services: Services) -> ExitCode {
    Commands::of_command_line(&services).run(services)
}

/// Like [`main`], on the caller's Tokio runtime, whose I/O and time drivers must be enabled.
///
/// ```no_run
/// use nameko::prelude::*;
///
/// # #[derive(Dependencies)] struct HelloService;
/// # #[service("hello_service")] impl HelloService {}
/// #[tokio::main]
/// async fn main() -> ExitCode {
///     nameko::main_async(services![HelloService]).await
/// }
/// ```
pub async fn main_async(services: Services) -> ExitCode {
    Commands::of_command_line(&services).execute(services).await
}

impl Commands {
    /// Parses the command line of this process. Exits if it is wrong.
    fn of_command_line(services: &Services) -> Self {
        let mut command = ServicesArguments::of_program(services);
        let arguments = ServicesArguments::from_arg_matches(&command.get_matches_mut())
            .unwrap_or_else(|error| error.exit());
        if let Err(unknown) = arguments.command.check(services) {
            command.error(ErrorKind::InvalidValue, unknown).exit();
        }
        arguments.command
    }

    /// Executes the command on a Tokio runtime of its own, and returns the exit code of the
    /// process. Errors are printed on standard error, as by [`main`].
    ///
    /// In a runtime, use [`execute`](Self::execute): this function fails there.
    pub fn run(self, services: Services) -> ExitCode {
        report(self.run_to_end(&services))
    }

    /// Executes the command on the caller's Tokio runtime, whose I/O and time drivers must be
    /// enabled, and returns the exit code of the process. Errors are printed on standard error, as
    /// by [`main`].
    pub async fn execute(self, services: Services) -> ExitCode {
        report(self.dispatch(&services).await)
    }

    fn run_to_end(self, services: &Services) -> Result<ExitCode, Failure> {
        if Handle::try_current().is_ok() {
            return Err(Failure::new(
                "Error",
                "`nameko::main` creates a Tokio runtime and cannot be called inside one",
            )
            .hint(
                "use `nameko::main_async(services).await` (`Commands::execute` with your own \
                 command line), or make `main` a plain function without `#[tokio::main]`",
            ));
        }
        let runtime = match &self {
            Self::Run(_) => Builder::new_multi_thread().enable_all().build()?,
            _ => client_runtime()?,
        };
        let outcome = runtime.block_on(self.dispatch(services));
        // Without waiting for threads that are still blocked by methods.
        runtime.shutdown_timeout(RUNTIME_SHUTDOWN_TIMEOUT);
        outcome
    }

    async fn dispatch(self, services: &Services) -> Result<ExitCode, Failure> {
        if let Err(unknown) = self.check(services) {
            terminal::print_failure(&Failure::from(unknown));
            return Ok(ExitCode::from(WRONG_COMMAND_LINE));
        }
        match self {
            Self::Run(arguments) => run_command(services, &arguments).await,
            Self::Shell(arguments) => shell_command(arguments, services).await,
            Self::Call(arguments) => call_command(&arguments).await,
            Self::ShowConfig(arguments) => show_config(&arguments),
        }
    }

    /// Checks the names of services.
    fn check(&self, services: &Services) -> crate::Result<()> {
        match self {
            Self::Run(run) => services.check(&run.services),
            _ => Ok(()),
        }
    }
}

/// The `main` of the binary `nameko`: `shell`, `call`, `show-config` and, with the feature
/// `embedded-broker`, `broker`.
pub fn tool() -> ExitCode {
    match ToolArguments::parse().command {
        ToolCommand::Shell(arguments) => Commands::Shell(arguments).run(Services::new()),
        ToolCommand::Call(arguments) => Commands::Call(arguments).run(Services::new()),
        #[cfg(feature = "embedded-broker")]
        ToolCommand::Broker(arguments) => report(broker_command(&arguments)),
        ToolCommand::ShowConfig(arguments) => Commands::ShowConfig(arguments).run(Services::new()),
    }
}

fn report(outcome: Result<ExitCode, Failure>) -> ExitCode {
    outcome.unwrap_or_else(|failure| {
        terminal::print_failure(&failure);
        ExitCode::FAILURE
    })
}

async fn run_command(services: &Services, arguments: &RunArguments) -> Result<ExitCode, Failure> {
    let config = arguments.config.load()?;
    let process = arguments.process();
    logging::start(&arguments.log, &config, RUN_LOG, process)?;
    let outcome = run::run(services, arguments, config).await;
    match process {
        None => outcome,
        Some(number) => outcome.map_err(|failure| failure.in_process(number)),
    }
}

#[cfg(feature = "embedded-broker")]
fn broker_command(arguments: &BrokerArguments) -> Result<ExitCode, Failure> {
    logging::start(&arguments.log, &Config::new(), RUN_LOG, None)?;
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(broker::serve(arguments));
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN_TIMEOUT);
    outcome
}

async fn call_command(arguments: &CallArguments) -> Result<ExitCode, Failure> {
    let config = arguments.client.config.load()?;
    logging::start(&arguments.client.log, &config, CLIENT_LOG, None)?;
    config.log_warnings();
    call::run(arguments, &config).await?;
    Ok(ExitCode::SUCCESS)
}

async fn shell_command(
    arguments: ClientArguments,
    services: &Services,
) -> Result<ExitCode, Failure> {
    let config = arguments.config.load()?;
    logging::start(&arguments.log, &config, CLIENT_LOG, None)?;
    config.log_warnings();
    let known = known_methods(services, &config)?;
    // On another thread, since the shell blocks while it waits for the keyboard.
    let shell = move || shell::run(&Handle::current(), &config, &arguments, known);
    match tokio::task::spawn_blocking(shell).await {
        Ok(outcome) => outcome,
        Err(error) => resume_unwind(error.into_panic()),
    }
}

fn show_config(arguments: &ConfigArguments) -> Result<ExitCode, Failure> {
    let config = arguments.load()?;
    for warning in config.warnings() {
        terminal::print_warning(&warning);
    }
    terminal::echo(config.to_yaml().trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// Builds a runtime with one worker thread, which keeps the connection alive while the shell reads
/// the keyboard.
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
