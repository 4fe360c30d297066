//! `run`: the program's services, until a signal.

use std::process::ExitCode;

use super::arguments::RunArguments;
use super::broker;
use super::client::{Failure, broker_of};
use super::signals::Signals;
use super::terminal::say;
use crate::runner::{Runner, Services};

/// Runs services until Ctrl-C or SIGTERM, or until one of them dies.
pub(super) async fn run(
    services: &Services,
    arguments: &RunArguments,
) -> Result<ExitCode, Failure> {
    let mut config = arguments.config.load()?;
    let mut signals = Signals::new()?;
    // A wrong name or a wrong configuration shows before anything is started.
    Runner::new(services, &arguments.services, &config)?;
    let broker = broker::start_if_none(&config).await;
    if let Some(broker) = &broker {
        say(format_args!(
            "no broker is configured and none runs at localhost:5672: started one in this process, at {}; \
             it is for trying out, its messages live in memory",
            broker.uri()
        ))?;
        config.set("AMQP_URI", broker.uri());
    }
    let runner = Runner::new(services, &arguments.services, &config)?;
    let outcome = serve(&runner, &broker_of(&config), &mut signals).await;
    if let Some(broker) = broker {
        broker.stop().await;
    }
    outcome
}

async fn serve(runner: &Runner, broker: &str, signals: &mut Signals) -> Result<ExitCode, Failure> {
    say(format_args!("connecting to {broker}"))?;
    tokio::select! {
        started = runner.start() => started?,
        _ = signals.next() => return stop(runner, signals).await,
    }
    for container in runner.containers() {
        let methods: Vec<String> = container
            .entrypoints()
            .map(|(kind, method)| format!("{method} ({kind})"))
            .collect();
        let methods = if methods.is_empty() {
            "nothing to call".to_owned()
        } else {
            methods.join(", ")
        };
        say(format_args!("{}: {methods}", container.service_name()))?;
    }
    say(format_args!("ready at {broker}; Ctrl-C stops"))?;
    tokio::select! {
        ended = runner.wait() => {
            ended?;
            Ok(ExitCode::SUCCESS)
        }
        _ = signals.next() => stop(runner, signals).await,
    }
}

/// Lets the calls at hand end; a second signal does not.
async fn stop(runner: &Runner, signals: &mut Signals) -> Result<ExitCode, Failure> {
    // A terminal shows ^C at the start of this line.
    say("\nstopping; once more stops at once")?;
    tokio::select! {
        () = runner.stop() => {
            say("stopped")?;
            Ok(ExitCode::SUCCESS)
        }
        signal = signals.next() => {
            runner.kill();
            Ok(signal.exit_code())
        }
    }
}
