//! `run`: the program's services, until a signal.

use std::io;
use std::process::ExitCode;

use super::arguments::RunArguments;
use super::broker;
use super::client::{Failure, broker_of};
#[cfg(unix)]
use super::parent;
#[cfg(unix)]
use super::processes::supervise;
use super::signals::{Received, Signals};
use super::terminal::{announce, end_line};
use crate::config::Config;
use crate::runner::{Runner, Services};

/// Runs services until Ctrl-C or SIGTERM, or until one of them dies.
pub(super) async fn run(
    services: &Services,
    arguments: &RunArguments,
    mut config: Config,
) -> Result<ExitCode, Failure> {
    let mut signals = Signals::new()?;
    // A wrong name or a wrong configuration shows before anything is started.
    Runner::new(services, &arguments.services, &config)?;
    config.connect_options()?;
    #[cfg(unix)]
    if arguments.process.is_some() {
        return run_as_one_of_several(services, arguments, config, signals).await;
    }
    let broker = broker::start_if_none(&config).await;
    if let Some(broker) = &broker {
        announce(format_args!(
            "no broker is configured and none runs at localhost:5672: started one in this process, at {}; \
             it is for trying out, its messages live in memory",
            broker.addr()
        ))?;
        config.set("AMQP_URI", broker.uri());
    }
    let runner = Runner::new(services, &arguments.services, &config)?;
    let place = broker_of(&config);
    let mut next = async || signals.next().await;
    announce(format_args!("connecting to {place}"))?;
    #[cfg(unix)]
    if let Some(count) = arguments.workers {
        show(&runner)?;
        let uri = broker.as_ref().map(|it| it.uri());
        let outcome = supervise(count, uri, &place, &mut next).await;
        if let Some(broker) = broker {
            broker.stop().await;
        }
        return outcome;
    }
    let outcome = serve(&runner, &mut next, &mut |stage| match stage {
        Stage::Ready => {
            show(&runner)?;
            announce(format_args!("ready at {place}; Ctrl-C stops"))
        }
        Stage::Stopping => {
            end_line()?;
            announce("stopping; once more stops at once")
        }
        Stage::Stopped => announce("stopped"),
    })
    .await;
    if let Some(broker) = broker {
        broker.stop().await;
    }
    outcome
}

/// Runs them as one of the processes that another one has started, and speaks for.
#[cfg(unix)]
async fn run_as_one_of_several(
    services: &Services,
    arguments: &RunArguments,
    mut config: Config,
    mut signals: Signals,
) -> Result<ExitCode, Failure> {
    let (mut parent, report) = parent::link()?;
    // All listen at one address.
    if config.get(REUSE_PORT).is_none() {
        config.set(REUSE_PORT, true);
    }
    let runner = Runner::new(services, &arguments.services, &config)?;
    let mut next = async || {
        tokio::select! {
            signal = signals.next() => signal,
            gone = parent.lets_go() => gone,
        }
    };
    serve(&runner, &mut next, &mut |stage| {
        if let Stage::Ready = stage {
            report.ready();
        }
        Ok(())
    })
    .await
}

/// Whether other processes may listen where this one does: the config key of the HTTP server.
#[cfg(unix)]
const REUSE_PORT: &str = "WEB_SERVER_REUSE_PORT";

/// Tells what the services can be asked for.
fn show(runner: &Runner) -> io::Result<()> {
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
        announce(format_args!("{}: {methods}", container.service_name()))?;
    }
    Ok(())
}

/// How far the services are.
#[derive(Clone, Copy)]
enum Stage {
    Ready,
    Stopping,
    Stopped,
}

/// Runs to the end. A signal stops; a second one does not wait for the calls at hand.
async fn serve(
    runner: &Runner,
    signals: &mut impl AsyncFnMut() -> Received,
    tell: &mut impl FnMut(Stage) -> io::Result<()>,
) -> Result<ExitCode, Failure> {
    let first = tokio::select! {
        started = runner.start() => {
            started?;
            None
        }
        first = signals() => Some(first),
    };
    let first = match first {
        Some(first) => first,
        None => {
            tell(Stage::Ready)?;
            tokio::select! {
                ended = runner.wait() => {
                    ended?;
                    return Ok(ExitCode::SUCCESS);
                }
                first = signals() => first,
            }
        }
    };
    tell(Stage::Stopping)?;
    let mut signalled = first.exit_code().is_some();
    loop {
        tokio::select! {
            () = runner.stop() => break,
            next = signals() => if let Some(code) = next.exit_code() {
                if signalled {
                    runner.kill();
                    return Ok(ExitCode::from(code));
                }
                signalled = true;
            }
        }
    }
    // One that died on the way is told.
    runner.wait().await?;
    tell(Stage::Stopped)?;
    Ok(ExitCode::SUCCESS)
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
        let (sender, mut receiver) = mpsc::channel(2);
        let mut next = async || match receiver.recv().await {
            Some(signal) => signal,
            None => pending().await,
        };
        let ready = Notify::new();
        let mut tell = |stage| {
            if let Stage::Ready = stage {
                ready.notify_one();
            }
            Ok(())
        };
        let serving = serve(&runner, &mut next, &mut tell);
        let sending = async {
            ready.notified().await;
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
        let success = format!("{:?}", ExitCode::SUCCESS);
        assert_eq!(exit_code(&[Received::Terminate], false).await, success);
        #[cfg(unix)]
        assert_eq!(exit_code(&[Received::Parent], false).await, success);
    }

    #[tokio::test]
    async fn the_second_signal_does_not_wait_for_calls() {
        let code = |signal: Received| {
            let code = signal.exit_code().map(ExitCode::from);
            format!("{:?}", code.expect("a signal"))
        };
        for signal in [Received::Interrupt, Received::Terminate] {
            let ended = exit_code(&[Received::Interrupt, signal], true).await;
            assert_eq!(ended, code(signal));
        }
        // A parent that lets go is no signal, be it before or after.
        #[cfg(unix)]
        for first in [Received::Parent, Received::Terminate] {
            let then = [Received::Parent, Received::Terminate];
            let then = then.into_iter().find(|it| *it != first).expect("the other");
            let ended = exit_code(&[first, then, Received::Interrupt], true).await;
            assert_eq!(ended, code(Received::Interrupt));
        }
    }
}
