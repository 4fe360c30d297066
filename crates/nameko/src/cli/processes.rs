//! `run --workers`: processes of this program that are started, watched, started again and stopped by this one.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use super::client::Failure;
use super::parent::SIGNAL_BYTE;
use super::signals::Received;
use super::terminal::{announce, end_line, print_failure};
use crate::amqp::Backoff;

/// A process that could be called for that long is in good health: when it dies, the next one is started soon.
const HEALTHY: Duration = Duration::from_secs(30);

/// Runs `count` processes of this program until a signal ends them, or until none can start. `broker_uri` is where the
/// broker is that this process has started; `broker` is told to the user.
pub(super) async fn supervise(
    count: u16,
    broker_uri: Option<String>,
    broker: &str,
    signals: &mut impl AsyncFnMut() -> Received,
) -> Result<ExitCode, Failure> {
    let program = Program::this(broker_uri)?;
    let orders = watch::Sender::new(Order::Run);
    let (news, mut heard) = mpsc::unbounded_channel();
    let mut places: FuturesUnordered<_> = (1..=count)
        .map(|number| keep_running(&program, number, orders.subscribe(), news.clone()))
        .collect();
    let mut fleet = Fleet::new(count);
    // What this process ends with, unless all goes well.
    let mut code = 0;
    loop {
        tokio::select! {
            biased;
            Some((number, news)) = heard.recv() => match fleet.hears(number, &news) {
                Verdict::GoOn => news.log(number, true),
                Verdict::AllReady => announce(format_args!("ready at {broker}, {count} processes; press Ctrl-C to stop"))?,
                Verdict::GiveUp => {
                    news.log(number, false);
                    code = news.exit_code();
                    orders.send_replace(Order::Stop);
                }
            },
            ended = places.next() => match ended {
                Some(0) => {}
                Some(ended) => code = if code == 0 { ended } else { code },
                None => break,
            },
            signal = signals() => {
                let before = *orders.borrow();
                orders.send_replace(if before == Order::Run { Order::Stop } else { Order::Kill });
                if before == Order::Run {
                    end_line()?;
                    announce("shutting down (press Ctrl-C again to force)")?;
                } else {
                    code = signal.exit_code().unwrap_or(code);
                }
            }
        }
    }
    if fleet.has_given_up() {
        print_failure(&Failure::new(
            "Error",
            format!("no process could start; the last one ended with exit code {code}"),
        ));
    } else if code == 0 {
        announce("stopped")?;
    }
    Ok(ExitCode::from(code))
}

/// How the processes are started: as this one was, plus a number.
struct Program {
    path: PathBuf,
    /// The command line behind `run`.
    arguments: Vec<OsString>,
    broker_uri: Option<String>,
}

impl Program {
    fn this(broker_uri: Option<String>) -> io::Result<Self> {
        Ok(Self {
            path: std::env::current_exe()?,
            arguments: std::env::args_os().skip(2).collect(),
            broker_uri,
        })
    }

    fn start(&self, number: u16) -> io::Result<Process> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let link = UnixStream::from_std(ours)?;
        let mut command = Command::new(&self.path);
        command
            .args(["run", "--process", &number.to_string()])
            .args(&self.arguments)
            .stdin(OwnedFd::from(theirs))
            // So that Ctrl-C on a terminal reaches this process alone, which tells the others.
            .process_group(0)
            .kill_on_drop(true);
        if let Some(uri) = &self.broker_uri {
            command.env("AMQP_URI", uri);
        }
        Ok(Process {
            child: command.spawn()?,
            link: Some(link),
            listening: true,
        })
    }
}

/// A running process.
struct Process {
    child: Child,
    /// `None` once this one has let go of it.
    link: Option<UnixStream>,
    /// Whether it can still say that it is ready.
    listening: bool,
}

enum Step {
    Ready,
    Ended(io::Result<ExitStatus>),
}

impl Process {
    /// What it does next. Nothing is lost when the caller stops waiting.
    async fn next(&mut self) -> Step {
        if let (true, Some(link)) = (self.listening, &mut self.link) {
            let mut byte = [0];
            let said = tokio::select! {
                biased;
                said = link.read(&mut byte) => said,
                status = self.child.wait() => return Step::Ended(status),
            };
            self.listening = false;
            if matches!(said, Ok(1)) {
                return Step::Ready;
            }
        }
        Step::Ended(self.child.wait().await)
    }

    fn obey(&mut self, order: Order) {
        if order != Order::Run
            && let Some(link) = self.link.take()
        {
            // It fails where the process has ended.
            let _ = link.try_write(&[SIGNAL_BYTE]);
        }
        if order == Order::Kill {
            // As above.
            let _ = self.child.start_kill();
        }
    }
}

/// What all processes shall do.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Order {
    Run,
    Stop,
    Kill,
}

/// Runs a process, and another one whenever it ends, until it is told to stop. The exit code of the one that was stopped.
async fn keep_running(
    program: &Program,
    number: u16,
    mut orders: watch::Receiver<Order>,
    news: mpsc::UnboundedSender<(u16, News)>,
) -> u8 {
    let tell = |what| {
        // The one that listens owns this future.
        let _ = news.send((number, what));
    };
    let mut backoff = Backoff::default();
    loop {
        let (end, was_ready) = match program.start(number) {
            Err(error) => (End::NotStarted(error), false),
            Ok(mut process) => {
                let mut ready_since = None;
                let status = loop {
                    tokio::select! {
                        step = process.next() => match step {
                            Step::Ready => {
                                ready_since = Some(Instant::now());
                                tell(News::Ready);
                            }
                            Step::Ended(status) => break status,
                        },
                        Ok(()) = orders.changed() => process.obey(*orders.borrow_and_update()),
                    }
                };
                if ready_since.is_some_and(|it| it.elapsed() >= HEALTHY) {
                    backoff.reset();
                }
                let end = status.map_or_else(End::NotStarted, End::Exited);
                (end, ready_since.is_some())
            }
        };
        if *orders.borrow() != Order::Run {
            return end.exit_code();
        }
        let pause = backoff.next();
        tell(News::Ended {
            end,
            was_ready,
            pause,
        });
        tokio::select! {
            () = sleep(pause) => {}
            Ok(_) = orders.wait_for(|it| *it != Order::Run) => return 0,
        }
    }
}

/// How a process ended.
#[derive(Debug)]
enum End {
    NotStarted(io::Error),
    Exited(ExitStatus),
}

impl End {
    /// As a shell has it: 128 and the signal's number for a process that a signal ended.
    fn exit_code(&self) -> u8 {
        let code = match self {
            Self::NotStarted(_) => 1,
            Self::Exited(status) => match status.signal() {
                Some(signal) => 128 + signal,
                None => status.code().unwrap_or(1),
            },
        };
        u8::try_from(code).unwrap_or(1)
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotStarted(error) => write!(f, "can't be started: {error}"),
            Self::Exited(status) => match status.signal() {
                Some(signal) => write!(f, "was ended by signal {signal}"),
                None => write!(f, "ended with exit code {}", self.exit_code()),
            },
        }
    }
}

/// What is told of a process.
#[derive(Debug)]
enum News {
    /// Its services can be called.
    Ready,
    Ended {
        end: End,
        was_ready: bool,
        /// How long it takes until the next one is started.
        pause: Duration,
    },
}

impl News {
    /// `again` says that another one follows.
    fn log(&self, number: u16, again: bool) {
        match self {
            Self::Ready => {
                tracing::info!(target: "nameko::run", "process {number} is ready");
            }
            Self::Ended {
                end,
                was_ready,
                pause,
            } => {
                let when = if *was_ready {
                    ""
                } else {
                    " before it was ready"
                };
                let then = match again {
                    true => format!("; another one is started in {pause:.1?}"),
                    false => String::new(),
                };
                tracing::error!(target: "nameko::run", "process {number} {end}{when}{then}");
            }
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Ready => 0,
            Self::Ended { end, .. } => end.exit_code(),
        }
    }
}

/// Where each process stands.
struct Fleet {
    places: Vec<Place>,
    /// Whether all have been ready at a time, and that was told.
    was_complete: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Starting,
    Ready,
    /// The last one that was started here ended before it was ready.
    Failing,
}

#[derive(Debug, PartialEq)]
enum Verdict {
    GoOn,
    /// All are ready, for the first time.
    AllReady,
    /// None can start.
    GiveUp,
}

impl Fleet {
    fn new(count: u16) -> Self {
        Self {
            places: vec![Place::Starting; usize::from(count)],
            was_complete: false,
        }
    }

    /// What news of process `number`, from 1, come to.
    fn hears(&mut self, number: u16, news: &News) -> Verdict {
        if let Some(place) = self.places.get_mut(usize::from(number).wrapping_sub(1)) {
            *place = match news {
                News::Ready => Place::Ready,
                News::Ended {
                    was_ready: true, ..
                } => Place::Starting,
                News::Ended { .. } => Place::Failing,
            };
        }
        if self.has_given_up() {
            return Verdict::GiveUp;
        }
        if !self.was_complete && self.places.iter().all(|it| *it == Place::Ready) {
            self.was_complete = true;
            return Verdict::AllReady;
        }
        Verdict::GoOn
    }

    /// Whether none could start at the last try.
    fn has_given_up(&self) -> bool {
        self.places.iter().all(|it| *it == Place::Failing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: i32, was_ready: bool) -> News {
        News::Ended {
            end: End::Exited(ExitStatus::from_raw(code << 8)),
            was_ready,
            pause: Duration::ZERO,
        }
    }

    #[test]
    fn it_gives_up_only_when_no_process_can_start() {
        use Verdict::{AllReady, GiveUp, GoOn};
        type Event = (u16, fn() -> News, Verdict);
        let failed: fn() -> News = || ended(3, false);
        let died: fn() -> News = || ended(3, true);
        let ready: fn() -> News = || News::Ready;
        let stories: &[Vec<Event>] = &[
            vec![(2, failed, GoOn), (1, failed, GiveUp)],
            vec![
                (2, failed, GoOn),
                (1, ready, GoOn),
                (2, failed, GoOn),
                (2, ready, AllReady),
            ],
            vec![
                (1, ready, GoOn),
                (2, ready, AllReady),
                (2, died, GoOn),
                (2, ready, GoOn),
            ],
            // They ran, but can't any more.
            vec![
                (1, ready, GoOn),
                (2, failed, GoOn),
                (1, died, GoOn),
                (1, failed, GiveUp),
            ],
            vec![
                (1, ready, GoOn),
                (2, ready, AllReady),
                (1, died, GoOn),
                (2, died, GoOn),
            ],
        ];
        for story in stories {
            let mut fleet = Fleet::new(2);
            for (step, (number, news, verdict)) in story.iter().enumerate() {
                assert_eq!(fleet.hears(*number, &news()), *verdict, "step {step}");
            }
        }
    }

    #[test]
    fn an_end_reads_and_counts_as_in_a_shell() {
        let killed = End::Exited(ExitStatus::from_raw(9));
        assert_eq!(
            (killed.to_string().as_str(), killed.exit_code()),
            ("was ended by signal 9", 137)
        );
        let failed = End::Exited(ExitStatus::from_raw(3 << 8));
        assert_eq!(
            (failed.to_string().as_str(), failed.exit_code()),
            ("ended with exit code 3", 3)
        );
    }
}
