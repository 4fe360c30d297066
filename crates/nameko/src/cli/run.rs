//! The command `run`: serves until a signal.

use std::io;
use std::process::ExitCode;

use super::arguments::RunArguments;
use super::broker;
use super::endpoint::broker_of;
use super::failure::Failure;
#[cfg(unix)]
use super::parent;
#[cfg(unix)]
use super::processes::supervise;
use super::signals::{Received, Signals};
use super::stop_guard::StopGuard;
use super::terminal::{announce, end_line};
use crate::config::Config;
use crate::runner::{Runner, Services};

/// Runs services until Ctrl-C or SIGTERM, or until one of them dies.
pub(super) async fn run(
    services: &Services,
    arguments: &RunArguments,
    mut config: Config,
) -> Result<ExitCode, Failure> {
    // Reports a wrong name or configuration before starting anything.
    let stop_timeout = Runner::new(services, &arguments.services, &config)?.stop_timeout();
    config.connect_options()?;
    let mut guard = StopGuard::new(stop_timeout);
    #[cfg(unix)]
    if arguments.process.is_some() {
        return run_supervised(services, arguments, config, guard).await;
    }
    let mut signals = Signals::new()?;
    let broker = broker::start_if_none(&config).await?;
    if let Some(broker) = &broker {
        announce(format_args!(
            "no broker is configured and none runs at localhost:5672: started an embedded one at {}; \
             it keeps messages in memory, for development only",
            broker.addr()
        ))?;
        config.set("AMQP_URI", broker.uri());
    }
    let runner = Runner::new(services, &arguments.services, &config)?;
    let place = broker_of(&config);
    announce(format_args!("connecting to {place}"))?;
    #[cfg(unix)]
    if let Some(count) = arguments.workers {
        show(&runner)?;
        let uri = broker.as_ref().map(|broker| broker.uri());
        let mut next = async || signals.next().await;
        let outcome = supervise(count, uri, &place, runner.stop_limit(), &mut next).await;
        if let Some(broker) = broker {
            broker.stop().await;
        }
        return outcome;
    }
    let mut next = async || {
        let received = signals.next().await;
        guard.stopping(received.exit_code());
        received
    };
    let outcome = serve(&runner, &mut next, &mut |stage| match stage {
        Stage::Ready => {
            show(&runner)?;
            announce(format_args!("ready at {place}; press Ctrl-C to stop"))
        }
        Stage::Stopping => {
            end_line()?;
            announce("shutting down (press Ctrl-C again to force)")
        }
        Stage::Stopped => announce("stopped"),
    })
    .await;
    if let Some(broker) = broker {
        broker.stop().await;
    }
    outcome
}

/// Runs services in a process of `run --workers`; the supervisor prints for it.
#[cfg(unix)]
async fn run_supervised(
    services: &Services,
    arguments: &RunArguments,
    mut config: Config,
    mut guard: StopGuard,
) -> Result<ExitCode, Failure> {
    let (parent, ready) = parent::link()?;
    let mut signals = Signals::with_parent(parent)?;
    // The processes share their HTTP addresses.
    if config.get(REUSE_PORT).is_none() {
        config.set(REUSE_PORT, true);
    }
    let runner = Runner::new(services, &arguments.services, &config)?;
    let mut next = async || {
        let received = signals.next().await;
        guard.stopping(received.exit_code());
        received
    };
    serve(&runner, &mut next, &mut |stage| {
        if let Stage::Ready = stage {
            ready.notify();
        }
        Ok(())
    })
    .await
}

/// Config key of the HTTP server that lets processes share an address.
#[cfg(unix)]
const REUSE_PORT: &str = "WEB_SERVER_REUSE_PORT";

/// Prints the entrypoints of each service.
fn show(runner: &Runner) -> io::Result<()> {
    for container in runner.containers() {
        let methods: Vec<String> = container
            .entrypoints()
            .map(|(kind, method)| format!("{method} ({kind})"))
            .collect();
        let methods = if methods.is_empty() {
            "no entrypoints".to_owned()
        } else {
            methods.join(", ")
        };
        announce(format_args!("{}: {methods}", container.service_name()))?;
    }
    Ok(())
}

/// Progress of the services.
#[derive(Clone, Copy)]
enum Stage {
    Ready,
    Stopping,
    Stopped,
}

/// Serves until a signal or the end of a service. A second signal aborts calls in progress.
async fn serve(
    runner: &Runner,
    signals: &mut impl AsyncFnMut() -> Received,
    report: &mut impl FnMut(Stage) -> io::Result<()>,
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
            report(Stage::Ready)?;
            tokio::select! {
                ended = runner.wait() => {
                    ended?;
                    return Ok(ExitCode::SUCCESS);
                }
                first = signals() => first,
            }
        }
    };
    report(Stage::Stopping)?;
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
    // Reports a service that died during the shutdown.
    runner.wait().await?;
    report(Stage::Stopped)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(all(test, feature = "macros"))]
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

    /// Returns the exit code of a service that receives `signals`, with a call in progress if
    /// `busy`.
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
        let mut report = |stage| {
            if let Stage::Ready = stage {
                ready.notify_one();
            }
            Ok(())
        };
        let serving = serve(&runner, &mut next, &mut report);
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
                sender.send(*signal).await.expect("the receiver is alive");
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
    async fn the_first_signal_shuts_down_gracefully() {
        let success = format!("{:?}", ExitCode::SUCCESS);
        assert_eq!(exit_code(&[Received::Terminate], false).await, success);
        #[cfg(unix)]
        assert_eq!(exit_code(&[Received::Parent], false).await, success);
    }

    #[tokio::test]
    async fn the_second_signal_aborts_calls() {
        let code = |signal: Received| {
            let code = signal.exit_code().map(ExitCode::from);
            format!("{:?}", code.expect("a signal"))
        };
        for signal in [Received::Interrupt, Received::Terminate] {
            let ended = exit_code(&[Received::Interrupt, signal], true).await;
            assert_eq!(ended, code(signal));
        }
        // The supervisor's stop request does not count as a signal, before or after one.
        #[cfg(unix)]
        for first in [Received::Parent, Received::Terminate] {
            let then = [Received::Parent, Received::Terminate];
            let then = then
                .into_iter()
                .find(|received| *received != first)
                .expect("the other");
            let ended = exit_code(&[first, then, Received::Interrupt], true).await;
            assert_eq!(ended, code(Received::Interrupt));
        }
    }
}
