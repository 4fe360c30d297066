//! `run`: the program's services, until a signal.

use std::process::ExitCode;

use super::arguments::RunArguments;
use super::broker;
use super::client::{Failure, broker_of};
use super::signals::{Received, Signals};
use super::terminal::{end_line, say};
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
    config.connect_options()?;
    let broker = broker::start_if_none(&config).await;
    if let Some(broker) = &broker {
        say(format_args!(
            "no broker is configured and none runs at localhost:5672: started one in this process, at {}; \
             it is for trying out, its messages live in memory",
            broker.addr()
        ))?;
        config.set("AMQP_URI", broker.uri());
    }
    let runner = Runner::new(services, &arguments.services, &config)?;
    let outcome = serve(&runner, &broker_of(&config), &mut async || {
        signals.next().await
    })
    .await;
    if let Some(broker) = broker {
        broker.stop().await;
    }
    outcome
}

async fn serve(
    runner: &Runner,
    broker: &str,
    signals: &mut impl AsyncFnMut() -> Received,
) -> Result<ExitCode, Failure> {
    say(format_args!("connecting to {broker}"))?;
    tokio::select! {
        started = runner.start() => started?,
        _ = signals() => return stop(runner, signals).await,
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
    until_signal(runner, signals).await
}

/// Waits for a signal and stops; or for a service that dies.
async fn until_signal(
    runner: &Runner,
    signals: &mut impl AsyncFnMut() -> Received,
) -> Result<ExitCode, Failure> {
    tokio::select! {
        ended = runner.wait() => {
            ended?;
            Ok(ExitCode::SUCCESS)
        }
        _ = signals() => stop(runner, signals).await,
    }
}

/// Lets the calls at hand end; a second signal does not.
async fn stop(
    runner: &Runner,
    signals: &mut impl AsyncFnMut() -> Received,
) -> Result<ExitCode, Failure> {
    end_line()?;
    say("stopping; once more stops at once")?;
    tokio::select! {
        () = runner.stop() => {
            say("stopped")?;
            Ok(ExitCode::SUCCESS)
        }
        signal = signals() => {
            runner.kill();
            Ok(signal.exit_code())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use nameko_broker::Broker;
    use tokio::sync::{Notify, mpsc};

    use super::*;
    use crate::prelude::*;
    use crate::services;

    static HANGING: Notify = Notify::const_new();

    #[derive(Dependencies)]
    struct Hanging;

    #[service("hanging")]
    impl Hanging {
        #[rpc]
        async fn hang(&self) -> Result<()> {
            HANGING.notify_one();
            pending().await
        }
    }

    /// The exit code of a service, with one call at hand if `busy`, that gets `signals`.
    async fn exit_code(signals: &[Received], busy: bool) -> String {
        let broker = Broker::start("127.0.0.1:0").await.expect("a broker");
        let config = Config::new().with("AMQP_URI", broker.uri());
        let runner = Runner::new::<&str>(&services![Hanging], &[], &config).expect("a runner");
        runner.start().await.expect("started");
        let (sender, mut receiver) = mpsc::channel(2);
        let mut next = async || receiver.recv().await.expect("a signal");
        let serving = until_signal(&runner, &mut next);
        let sending = async {
            let cluster = Cluster::connect(&config).await.expect("a client");
            let hanging = cluster.service("hanging");
            let call =
                busy.then(|| tokio::spawn(async move { hanging.call::<()>("hang", ()).await }));
            if busy {
                HANGING.notified().await;
            }
            for signal in signals {
                sender.send(*signal).await.expect("somebody listens");
            }
            call
        };
        let (code, call) = tokio::join!(serving, sending);
        if let Some(call) = call {
            call.abort();
        }
        broker.stop().await;
        format!("{:?}", code.expect("no failure"))
    }

    #[tokio::test]
    async fn the_first_signal_stops_cleanly() {
        assert_eq!(
            exit_code(&[Received::Terminate], false).await,
            format!("{:?}", ExitCode::SUCCESS)
        );
    }

    #[tokio::test]
    async fn the_second_signal_does_not_wait_for_calls() {
        for signal in [Received::Interrupt, Received::Terminate] {
            let code = exit_code(&[Received::Interrupt, signal], true).await;
            assert_eq!(code, format!("{:?}", signal.exit_code()));
        }
    }
}
