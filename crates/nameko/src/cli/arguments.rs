//! Command line arguments.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Command, CommandFactory as _, Parser, Subcommand};

use super::endpoint::is_configured;
use crate::config::Config;
use crate::error::Result;
use crate::runner::Services;

/// Whether `run` and `nameko broker` can start a broker.
const EMBEDS_BROKER: bool = cfg!(feature = "embedded-broker");

/// Limit of `--workers`; more is taken for a typing error.
#[cfg(unix)]
const MAX_PROCESSES: i64 = 1024;

/// Command line of a binary with services.
#[derive(Debug, Parser)]
#[command(
    name = "nameko",
    version,
    propagate_version = true,
    about = "Nameko services: run them, call them."
)]
#[command(after_help = services_examples())]
pub(super) struct ServicesArguments {
    #[command(subcommand)]
    pub(super) command: Commands,
}

impl ServicesArguments {
    /// Returns the command line with the name and version of the program, and Nameko's version.
    pub(super) fn of_program(services: &Services) -> Command {
        let ours = concat!("nameko ", env!("CARGO_PKG_VERSION"));
        let version = match services.program_version() {
            Some(version) => format!("{version} ({ours})"),
            None => format!("({ours})"),
        };
        let path = std::env::args_os().next().map(PathBuf::from);
        let name = path.as_deref().and_then(Path::file_stem);
        let command = Self::command().version(version);
        match name {
            Some(name) => command.display_name(name.to_string_lossy()),
            None => command,
        }
    }
}

/// The subcommands of [`nameko::main`](crate::main), for the command line of another program.
///
/// ```
/// use clap::{Parser, Subcommand};
/// use nameko::{cli, prelude::*};
///
/// # #[derive(Dependencies)] struct Shop;
/// # #[service("shop")] impl Shop {}
/// #[derive(Parser)]
/// struct CommandLine {
///     #[command(subcommand)]
///     command: Command,
/// }
///
/// #[derive(Subcommand)]
/// enum Command {
///     /// Creates the tables
///     Migrate {
///         #[command(flatten)]
///         config: cli::ConfigArguments,
///     },
///     #[command(flatten)]
///     Nameko(cli::Commands),
/// }
///
/// fn run(line: CommandLine) -> Result<ExitCode> {
///     match line.command {
///         Command::Migrate { config } => {
///             println!("migrating {:?}", config.load()?.str("DATABASE")?);
///             Ok(ExitCode::SUCCESS)
///         }
///         Command::Nameko(command) => Ok(command.run(services![Shop])),
///     }
/// }
///
/// let line = ["shop", "show-config", "-d", "max_workers=4"];
/// let code = run(CommandLine::parse_from(line))?;
/// # assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::SUCCESS));
/// # Ok::<(), nameko::Error>(())
/// ```
///
/// The program needs `clap` 4 with the feature `derive`. `run --workers` starts the program again
/// with the same command line and a further option at its end.
#[derive(Debug, Subcommand)]
#[non_exhaustive]
pub enum Commands {
    /// Run the services of this program
    Run(RunArguments),
    /// Call services from an interactive shell, or from a script on standard input
    Shell(ClientArguments),
    /// Call one method of a service and print its result
    Call(CallArguments),
    /// Print the configuration as YAML, with environment variables substituted
    ShowConfig(ConfigArguments),
}

/// Command line of the binary `nameko`, which has no services.
#[derive(Debug, Parser)]
#[command(
    name = "nameko",
    version,
    propagate_version = true,
    about = "Call Nameko services, and try them out."
)]
#[command(after_help = tool_examples())]
pub(super) struct ToolArguments {
    #[command(subcommand)]
    pub(super) command: ToolCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum ToolCommand {
    /// Call services from an interactive shell, or from a script on standard input
    Shell(ClientArguments),
    /// Call one method of a service and print its result
    Call(CallArguments),
    /// Run an in-memory AMQP broker for development and tests
    #[cfg(feature = "embedded-broker")]
    Broker(BrokerArguments),
    /// Print the configuration as YAML, with environment variables filled in
    ShowConfig(ConfigArguments),
}

/// The arguments of `run`.
#[derive(Debug, Args)]
#[command(about = None, long_about = None, after_help = run_help())]
pub struct RunArguments {
    /// Names of the services to run [default: all]
    #[arg(value_name = "SERVICE")]
    pub(super) services: Vec<String>,
    /// Run N processes, each with all services and its own max_workers; restart those that die
    #[cfg(unix)]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MAX_PROCESSES))]
    pub(super) workers: Option<u16>,
    /// Number of this process; set by the supervising process
    #[cfg(unix)]
    #[arg(long, hide = true, requires = "workers")]
    pub(super) process: Option<u16>,
    #[command(flatten)]
    pub(super) config: ConfigArguments,
    #[command(flatten)]
    pub(super) log: LogArguments,
}

impl RunArguments {
    /// Returns the number of this process under a supervisor.
    #[cfg(unix)]
    pub(super) fn process(&self) -> Option<u16> {
        self.process
    }

    /// Always `None`: `--workers` requires Unix.
    #[cfg(not(unix))]
    pub(super) fn process(&self) -> Option<u16> {
        None
    }
}

/// The arguments of `shell`, and common arguments of `call`.
#[derive(Debug, Args)]
#[command(about = None, long_about = None, after_help = SHELL_HELP)]
pub struct ClientArguments {
    #[command(flatten)]
    pub(super) config: ConfigArguments,
    #[command(flatten)]
    pub(super) log: LogArguments,
    /// Timeout of calls in seconds; 0 disables it [default: rpc_timeout of the configuration, else
    /// 60]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(super) timeout: Option<Duration>,
    /// Send a value as context data, with a Python or JSON value; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) context: Vec<String>,
}

/// The arguments of `call`.
#[derive(Debug, Args)]
#[command(about = None, long_about = None, after_help = CALL_HELP)]
pub struct CallArguments {
    /// Method to call: `service.method`, or a call as in the shell: "service.method('text', key=1)"
    #[arg(value_name = "SERVICE.METHOD")]
    pub(super) target: String,
    /// Arguments: VALUE or KEY=VALUE, with Python or JSON values; other words are strings
    #[arg(value_name = "ARGUMENT", allow_negative_numbers = true)]
    pub(super) arguments: Vec<String>,
    #[command(flatten)]
    pub(super) client: ClientArguments,
}

#[cfg(feature = "embedded-broker")]
#[derive(Debug, Args)]
#[command(after_help = broker_help())]
pub(super) struct BrokerArguments {
    /// Host name or address to listen on, may be given several times; 0.0.0.0 and :: listen on all
    /// interfaces
    #[arg(long, default_value = "localhost")]
    pub(super) host: Vec<String>,
    /// Port to listen on; 0 selects a free port
    #[arg(long, default_value_t = 5672)]
    pub(super) port: u16,
    /// Port of the HTTP management API; 0 selects a free port [default: off]
    #[arg(long, value_name = "PORT")]
    pub(super) management_port: Option<u16>,
    #[cfg(feature = "tls")]
    #[command(flatten)]
    pub(super) tls: TlsArguments,
    #[command(flatten)]
    pub(super) log: LogArguments,
}

/// The TLS port of `nameko broker`.
#[cfg(all(feature = "embedded-broker", feature = "tls"))]
#[derive(Debug, Args)]
#[command(about = None, long_about = None)]
pub(super) struct TlsArguments {
    /// Port for clients over TLS, in addition to --port; 0 selects a free port [default: off]
    #[arg(long, value_name = "PORT", requires = "certfile")]
    pub(super) tls_port: Option<u16>,
    /// Certificate of the broker, in PEM, followed by those of intermediate authorities
    #[arg(long, value_name = "FILE", requires = "tls_port")]
    pub(super) certfile: Option<PathBuf>,
    /// Private key of the certificate, in PEM [default: the file of --certfile]
    #[arg(long, value_name = "FILE", requires = "tls_port")]
    pub(super) keyfile: Option<PathBuf>,
    /// Authorities of client certificates, in PEM; clients with a certificate may log in by
    /// EXTERNAL
    #[arg(long, value_name = "FILE", requires = "tls_port")]
    pub(super) cacertfile: Option<PathBuf>,
    /// Refuse TLS clients without a certificate
    #[arg(long, requires = "cacertfile")]
    pub(super) fail_if_no_peer_cert: bool,
}

/// Sources of the configuration: `--config`, `--broker` and `-d`. Later ones win, the variable
/// `AMQP_URI` of the environment comes last.
#[derive(Debug, Args)]
#[command(about = None, long_about = None)]
pub struct ConfigArguments {
    /// YAML configuration file; ${NAME} and ${NAME:default} are environment variables; repeatable:
    /// later files override earlier ones, mappings are merged
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Broker URI: amqp://user:password@host:port/vhost [default: AMQP_URI of the configuration or
    /// environment, else localhost]
    #[arg(long, value_name = "URI")]
    broker: Option<String>,
    /// Set a configuration key to a YAML value; SECTION.KEY=VALUE sets a nested one; repeatable
    #[arg(short, long, value_name = "KEY=VALUE")]
    define: Vec<String>,
}

impl ConfigArguments {
    /// Loads the configuration from the arguments and the environment.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if a file or a definition cannot be read.
    pub fn load(&self) -> Result<Config> {
        let mut config = Config::new();
        for path in &self.config {
            config.merge(&Config::from_file(path)?);
        }
        // Empty values are ignored in all sources: a script may pass an empty variable.
        if let Some(uri) = self.broker.as_deref().filter(|uri| !uri.is_empty()) {
            config.set("AMQP_URI", uri);
        }
        for definition in &self.define {
            config.define(definition)?;
        }
        if !is_configured(&config)
            && let Ok(uri) = std::env::var("AMQP_URI")
            && !uri.is_empty()
        {
            config.set("AMQP_URI", uri);
        }
        Ok(config)
    }
}

#[derive(Debug, Args)]
pub(super) struct LogArguments {
    /// Log level or filter: error, warn, info, debug, trace, or e.g. `nameko=debug,info` [default:
    /// LOG of the configuration]
    #[arg(long, value_name = "FILTER", env = "RUST_LOG", hide_env_values = true)]
    pub(super) log: Option<String>,
    /// Log format: text, or json with one object per line [default: LOG_FORMAT of the
    /// configuration, else text]
    #[arg(long, value_name = "FORMAT", env = "NAMEKO_LOG_FORMAT", hide_env_values = true, value_parser = LogFormat::parse)]
    pub(super) log_format: Option<LogFormat>,
}

impl LogArguments {
    /// Returns the names of the log settings that the user gave to this program. `RUST_LOG` is not
    /// one, since it is also read by other libraries.
    pub(super) fn given(&self, config: &Config) -> Vec<&'static str> {
        let from_environment =
            |name: &str, value: &str| std::env::var(name).is_ok_and(|variable| variable == value);
        let log = self
            .log
            .as_deref()
            .filter(|text| !from_environment("RUST_LOG", text));
        let format = self.log_format.map(LogFormat::name);
        [
            log.map(|_| "--log"),
            format.map(|text| match from_environment("NAMEKO_LOG_FORMAT", text) {
                true => "NAMEKO_LOG_FORMAT",
                false => "--log-format",
            }),
            config.get("LOG").map(|_| "LOG of the configuration"),
            config
                .get("LOG_FORMAT")
                .map(|_| "LOG_FORMAT of the configuration"),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum LogFormat {
    Text,
    Json,
}

impl LogFormat {
    fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }

    pub(super) fn parse(text: &str) -> std::result::Result<Self, &'static str> {
        match text {
            "json" => Ok(Self::Json),
            // An empty environment variable is ignored.
            "text" | "" => Ok(Self::Text),
            _ => Err("expected text or json"),
        }
    }
}

fn seconds(text: &str) -> std::result::Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "expected a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn services_examples() -> String {
    let broker = match EMBEDS_BROKER {
        true => ", with the broker at localhost or an embedded one",
        false => ", with the broker at localhost",
    };
    format!(
        "\
Examples:
  run                                           all services{broker}
  run --broker amqp://user:password@rabbit/     with RabbitMQ
  shell                                         then: n.rpc.hello_service.hello(name='you')
  call hello_service.hello name=you             one call"
    )
}

fn tool_examples() -> String {
    let broker = match EMBEDS_BROKER {
        true => {
            "\n  nameko broker                                 an in-memory broker for development"
        }
        false => "",
    };
    format!(
        "\
Examples:{broker}
  nameko shell                                  then: n.rpc.hello_service.hello(name='you')
  nameko call hello_service.hello name=you      one call"
    )
}

fn run_help() -> String {
    let default = match EMBEDS_BROKER {
        true => "starts an embedded in-memory broker there",
        false => "fails",
    };
    format!("\
If a broker is configured (--broker, or AMQP_URI in the configuration file or environment), `run` waits until it is
reachable. If none is configured and none listens at localhost:5672, `run` {default}.

{RUN_HELP}")
}

const RUN_HELP: &str = "\
Ctrl-C or SIGTERM shuts down gracefully: calls in progress finish first. A second signal forces the exit. If a service
dies, the others are stopped and the exit code is 1.

With --workers, this process supervises N processes and runs no service itself. It restarts processes that die (with a
backoff from 0.2 s to 30 s) and stops all of them on shutdown. If none of them can start, it exits with their exit code.

Examples:
  run
  run hello_service --config config.yaml
  run --broker amqp://user:password@rabbit:5672/vhost -d max_workers=20
  run --config config.yaml --workers 4 --log-format json";

const SHELL_HELP: &str = "\
In the shell:
  >>> n.rpc.hello_service.hello(name='you')
  'Hello, you!'
  >>> n.dispatch_event('shop', 'order_paid', {'id': 17})

A script on standard input is run line by line; the first error aborts it with exit code 1:
  echo \"n.rpc.hello_service.hello(name='you')\" | nameko shell";

const CALL_HELP: &str = "\
Values are Python or JSON literals: 1, 2.5, True, None, 'text', [1, 2], {'key': null}. Other words are strings, so quotes
are only needed for strings that look like another literal: \"'42'\".

Examples:
  call hello_service.hello name=you
  call hello_service.hello '\"you\"'
  call orders.place 17 \"{'express': True}\" --timeout 5 --context tenant=acme
  call \"hello_service.hello(name='you')\"";

#[cfg(feature = "embedded-broker")]
fn broker_help() -> String {
    let tls = match cfg!(feature = "tls") {
        true => {
            "\n  nameko broker --tls-port 5671 --certfile server.pem --keyfile server.key   # amqps://, too"
        }
        false => "",
    };
    format!("{BROKER_HELP}{tls}")
}

#[cfg(feature = "embedded-broker")]
const BROKER_HELP: &str = "\
An AMQP 0-9-1 broker for any client. Messages are kept in memory and lost on exit: use RabbitMQ in production.
User and password are both guest.

Examples:
  nameko broker
  nameko broker --port 5673
  nameko broker --management-port 15672     # with a subset of RabbitMQ's management API";
