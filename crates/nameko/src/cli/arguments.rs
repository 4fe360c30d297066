//! What can be written on the command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Command, CommandFactory as _, Parser, Subcommand};

use super::client::{Failure, is_configured};
use crate::config::Config;
use crate::runner::Services;

/// More processes than that are a slip of the finger.
#[cfg(unix)]
const MAX_PROCESSES: i64 = 1024;

/// The command line of a binary that holds services.
#[derive(Debug, Parser)]
#[command(
    name = "nameko",
    version,
    propagate_version = true,
    about = "Nameko services: run them, call them."
)]
#[command(after_help = SERVICES_EXAMPLES)]
pub(super) struct ServicesArguments {
    #[command(subcommand)]
    pub(super) command: ServicesCommand,
}

impl ServicesArguments {
    /// The command line of the very program: its own name and version, and ours beside it.
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

#[derive(Debug, Subcommand)]
pub(super) enum ServicesCommand {
    /// Run the services of this program
    Run(RunArguments),
    /// Call services from an interactive shell, or from a script on standard input
    Shell(ClientArguments),
    /// Call one method of a service and print its result
    Call(CallArguments),
    /// Print the configuration as YAML, with environment variables filled in
    ShowConfig(ConfigArguments),
}

/// The command line of the binary `nameko`, which holds no services.
#[derive(Debug, Parser)]
#[command(
    name = "nameko",
    version,
    propagate_version = true,
    about = "Call Nameko services, and try them out."
)]
#[command(after_help = TOOL_EXAMPLES)]
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
    /// Run an AMQP broker in memory, for trying out, development and tests
    Broker(BrokerArguments),
    /// Print the configuration as YAML, with environment variables filled in
    ShowConfig(ConfigArguments),
}

#[derive(Debug, Args)]
#[command(after_help = RUN_HELP)]
pub(super) struct RunArguments {
    /// Names of the services to run [default: all]
    #[arg(value_name = "SERVICE")]
    pub(super) services: Vec<String>,
    /// Run N processes, each with all the services and its own max_workers; one that dies is started again
    #[cfg(unix)]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MAX_PROCESSES))]
    pub(super) workers: Option<u16>,
    /// The number of this process: set by the one that runs several
    #[cfg(unix)]
    #[arg(long, hide = true, requires = "workers")]
    pub(super) process: Option<u16>,
    #[command(flatten)]
    pub(super) config: ConfigArguments,
    #[command(flatten)]
    pub(super) log: LogArguments,
}

impl RunArguments {
    /// The number of this process, if it is one of several.
    #[cfg(unix)]
    pub(super) fn process(&self) -> Option<u16> {
        self.process
    }

    /// There are never several here.
    #[cfg(not(unix))]
    pub(super) fn process(&self) -> Option<u16> {
        None
    }
}

#[derive(Debug, Args)]
#[command(after_help = SHELL_HELP)]
pub(super) struct ClientArguments {
    #[command(flatten)]
    pub(super) config: ConfigArguments,
    #[command(flatten)]
    pub(super) log: LogArguments,
    /// How long to wait for a reply; 0 waits for ever [default: rpc_timeout of the configuration, else 60]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(super) timeout: Option<Duration>,
}

#[derive(Debug, Args)]
#[command(after_help = CALL_HELP)]
pub(super) struct CallArguments {
    /// What to call: `service.method`, or the whole call as in the shell: "service.method('text', key=1)"
    #[arg(value_name = "SERVICE.METHOD")]
    pub(super) target: String,
    /// Arguments: VALUE or KEY=VALUE, with values as in Python or JSON; other words are text
    #[arg(value_name = "ARGUMENT", allow_negative_numbers = true)]
    pub(super) arguments: Vec<String>,
    #[command(flatten)]
    pub(super) client: ClientArguments,
}

#[derive(Debug, Args)]
#[command(after_help = BROKER_HELP)]
pub(super) struct BrokerArguments {
    /// Address to listen on; 0.0.0.0 lets other machines in
    #[arg(long, default_value = "127.0.0.1")]
    pub(super) host: String,
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 5672)]
    pub(super) port: u16,
    /// Serve the management API over HTTP, on this port; 0 takes a free one [default: none]
    #[arg(long, value_name = "PORT")]
    pub(super) management_port: Option<u16>,
    #[command(flatten)]
    pub(super) log: LogArguments,
}

/// Where the configuration comes from. What comes first in this list wins: `-d`, `--broker`, `--config`, environment.
#[derive(Debug, Args)]
pub(super) struct ConfigArguments {
    /// A YAML file; ${NAME} and ${NAME:default} in it stand for environment variables
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The broker: amqp://user:password@host:port/vhost [default: AMQP_URI of the configuration, of the environment, else localhost]
    #[arg(long, value_name = "URI")]
    broker: Option<String>,
    /// Set one key of the configuration; VALUE is YAML. May be repeated
    #[arg(short, long, value_name = "KEY=VALUE")]
    define: Vec<String>,
}

impl ConfigArguments {
    /// The configuration that the arguments and the environment give.
    pub(super) fn load(&self) -> Result<Config, Failure> {
        let mut config = match &self.config {
            Some(path) => Config::from_file(path)?,
            None => Config::new(),
        };
        // What is empty says nothing, wherever it stands: a variable of a script may be.
        if let Some(uri) = self.broker.as_deref().filter(|uri| !uri.is_empty()) {
            config.set("AMQP_URI", uri);
        }
        for definition in &self.define {
            config.merge(&Config::from_definition(definition)?);
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
    /// What to log on standard error: error, warn, info, debug, trace, or a filter like `nameko=debug,info` [default: LOG of the configuration]
    #[arg(long, value_name = "FILTER", env = "RUST_LOG", hide_env_values = true)]
    pub(super) log: Option<String>,
    /// How to log: text for people, json for machines, one object per line [default: LOG_FORMAT of the configuration, else text]
    #[arg(long, value_name = "FORMAT", env = "NAMEKO_LOG_FORMAT", hide_env_values = true, value_parser = LogFormat::parse)]
    pub(super) log_format: Option<LogFormat>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum LogFormat {
    Text,
    Json,
}

impl LogFormat {
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "json" => Ok(Self::Json),
            // A variable that is set to nothing says nothing.
            "text" | "" => Ok(Self::Text),
            _ => Err("write text or json"),
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "expected a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

const SERVICES_EXAMPLES: &str = "\
Examples:
  run                                           all services, on the broker at localhost (or one of its own)
  run --broker amqp://user:password@rabbit/     on RabbitMQ
  shell                                         then: n.rpc.hello_service.hello(name='you')
  call hello_service.hello name=you             one call";

const TOOL_EXAMPLES: &str = "\
Examples:
  nameko broker                                 a broker to try things out, in memory
  nameko shell                                  then: n.rpc.hello_service.hello(name='you')
  nameko call hello_service.hello name=you      one call";

const RUN_HELP: &str = "\
With a broker configured (--broker, AMQP_URI in the configuration file or in the environment), `run` waits until it can
be reached. With none configured and none at localhost:5672, it starts one of its own there, in memory, for trying out.

Ctrl-C or SIGTERM finishes the calls at hand and stops; a second one stops at once. When one service dies, the others
are stopped, and the exit code is 1.

With --workers, this process runs no service itself: it starts the others, starts another one where one dies (after a
wait that grows from 0.2 s to 30 s), and stops them all when it is stopped. Where none of them can start, it ends with
their exit code.

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

A script on standard input is run line by line; the first error ends it with exit code 1:
  echo \"n.rpc.hello_service.hello(name='you')\" | nameko shell";

const CALL_HELP: &str = "\
Values are written as in Python or JSON: 1, 2.5, True, None, 'text', [1, 2], {'key': null}. Words that are none of these
are text, so quotes are needed only for text that looks like something else: \"'42'\".

Examples:
  call hello_service.hello name=you
  call hello_service.hello '\"you\"'
  call orders.place 17 \"{'express': True}\" --timeout 5
  call \"hello_service.hello(name='you')\"";

const BROKER_HELP: &str = "\
Speaks AMQP 0-9-1 to any client. Messages live in memory and are gone when it stops: use RabbitMQ in production.
User and password are guest and guest.

Examples:
  nameko broker
  nameko broker --port 5673
  nameko broker --management-port 15672     # with the part of RabbitMQ's management API that tests and tools use";
