//! `run --workers`: starts, watches, restarts and stops processes of this program.

use std::cell::RefCell;
use std::ffi::OsString;
use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};

use super::failure::Failure;
use super::parent::SIGNAL_BYTE;
use super::signals::Received;
use super::terminal::{announce, end_line, print_failure};
use crate::supervisor::{Action, Exit, ProcessTable};

/// Runs `count` processes of this program until a signal ends them, or until none can start.
///
/// `broker_uri` is the embedded broker of this process, if there is one; `broker` is its address in
/// messages. A process that has not ended `stop_limit` after the stop is killed.
pub(super) async fn supervise(
    count: u16,
    broker_uri: Option<String>,
    broker: &str,
    stop_limit: Duration,
    signals: &mut impl AsyncFnMut() -> Received,
) -> Result<ExitCode, Failure> {
    let supervisor = Supervisor {
        program: Program::this(broker_uri)?,
        broker,
        count,
        stop_limit,
        table: RefCell::new(ProcessTable::new(count)),
        command: watch::Sender::new(Command::Run),
    };
    let mut processes: FuturesUnordered<_> = (1..=count)
        .map(|number| supervisor.keep_running(number, supervisor.command.subscribe()))
        .collect();
    loop {
        tokio::select! {
            biased;
            ended = processes.next() => match ended {
                Some(outcome) => outcome?,
                None => break,
            },
            signal = signals() => supervisor.handle(signal)?,
        }
    }
    supervisor.report()
}

/// State shared by the futures of all processes, on one task.
struct Supervisor<'a> {
    program: Program,
    broker: &'a str,
    count: u16,
    stop_limit: Duration,
    table: RefCell<ProcessTable>,
    command: watch::Sender<Command>,
}

/// Command to all processes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Command {
    Run,
    Stop,
    Kill,
}

impl Supervisor<'_> {
    /// Runs process `number`, restarting it whenever it ends, until the supervisor stops.
    async fn keep_running(
        &self,
        number: u16,
        mut command: watch::Receiver<Command>,
    ) -> Result<(), Failure> {
        loop {
            self.table.borrow_mut().started(number);
            let exit = match self.program.start(number) {
                Err(error) => Exit::NotStarted(error.to_string()),
                Ok(process) => self.watch(number, process, &mut command).await?,
            };
            let action = (self.table.borrow_mut()).ended(number, &exit, Instant::now());
            let delay = match action {
                Action::Restart { message, delay } => {
                    tracing::error!(target: "nameko::run", "{message}");
                    delay
                }
                Action::GiveUp { message } => {
                    tracing::error!(target: "nameko::run", "{message}");
                    self.command.send_replace(Command::Stop);
                    return Ok(());
                }
                Action::Leave => return Ok(()),
            };
            tokio::select! {
                () = sleep(delay) => {}
                Ok(_) = command.wait_for(|command| *command != Command::Run) => return Ok(()),
            }
        }
    }

    /// Passes commands on to a process until it has ended.
    async fn watch(
        &self,
        number: u16,
        mut process: Process,
        command: &mut watch::Receiver<Command>,
    ) -> Result<Exit, Failure> {
        let mut kill_at = None;
        loop {
            let overdue = async {
                match kill_at {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = overdue => {
                    tracing::error!(
                        target: "nameko::run",
                        "process {number} has not stopped within {:?}: killing it", self.stop_limit
                    );
                    kill_at = None;
                    process.apply(Command::Kill);
                }
                event = process.next_event() => match event {
                    Event::Ready => self.ready(number)?,
                    Event::Ended(Ok(status)) => return Ok(exit_of(status)),
                    Event::Ended(Err(error)) => return Ok(Exit::NotStarted(error.to_string())),
                },
                Ok(()) = command.changed() => {
                    let command = *command.borrow_and_update();
                    process.apply(command);
                    kill_at = match command {
                        Command::Stop => Some(tokio::time::Instant::now() + self.stop_limit),
                        Command::Run | Command::Kill => None,
                    };
                }
            }
        }
    }

    fn ready(&self, number: u16) -> io::Result<()> {
        tracing::info!(target: "nameko::run", "process {number} is ready");
        if self.table.borrow_mut().ready(number, Instant::now()) {
            let Self { broker, count, .. } = self;
            announce(format_args!(
                "ready at {broker}, {count} processes; press Ctrl-C to stop"
            ))?;
        }
        Ok(())
    }

    fn handle(&self, signal: Received) -> io::Result<()> {
        if self.table.borrow_mut().stop(signal.exit_code()) {
            self.command.send_replace(Command::Kill);
            return Ok(());
        }
        self.command.send_replace(Command::Stop);
        end_line()?;
        announce("shutting down (press Ctrl-C again to force)")
    }

    fn report(&self) -> Result<ExitCode, Failure> {
        let table = self.table.borrow();
        if let Some(failure) = table.failure() {
            print_failure(&Failure::new("Error", failure));
        } else if table.exit_code() == 0 {
            announce("stopped")?;
        }
        Ok(ExitCode::from(table.exit_code()))
    }
}

/// Command line of the processes: that of this one, plus a number.
struct Program {
    path: PathBuf,
    /// Arguments before the place of an option, and after it.
    arguments: (Vec<OsString>, Vec<OsString>),
    broker_uri: Option<String>,
}

impl Program {
    fn this(broker_uri: Option<String>) -> io::Result<Self> {
        Ok(Self {
            path: std::env::current_exe()?,
            arguments: split(std::env::args_os().skip(1).collect()),
            broker_uri,
        })
    }

    fn start(&self, number: u16) -> io::Result<Process> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let link = UnixStream::from_std(ours)?;
        let mut command = tokio::process::Command::new(&self.path);
        command
            .args(&self.arguments.0)
            .args(["--process", &number.to_string()])
            .args(&self.arguments.1)
            .stdin(OwnedFd::from(theirs))
            // Ctrl-C on a terminal reaches only this process, which stops the others over their
            // links.
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

/// Splits arguments at the place of a further option of the innermost subcommand: the end, or `--`.
fn split(mut arguments: Vec<OsString>) -> (Vec<OsString>, Vec<OsString>) {
    let end = arguments.iter().position(|argument| argument == "--");
    let rest = arguments.split_off(end.unwrap_or(arguments.len()));
    (arguments, rest)
}

/// A running process and the link to it.
struct Process {
    child: Child,
    /// `None` after the stop request.
    link: Option<UnixStream>,
    /// Set until the process has reported that it is ready, or closed the link.
    listening: bool,
}

enum Event {
    Ready,
    Ended(io::Result<ExitStatus>),
}

impl Process {
    /// Returns the next event of the process. Cancel-safe.
    async fn next_event(&mut self) -> Event {
        if let (true, Some(link)) = (self.listening, &mut self.link) {
            let mut byte = [0];
            let received = tokio::select! {
                biased;
                received = link.read(&mut byte) => received,
                status = self.child.wait() => return Event::Ended(status),
            };
            self.listening = false;
            if matches!(received, Ok(1)) {
                return Event::Ready;
            }
        }
        Event::Ended(self.child.wait().await)
    }

    fn apply(&mut self, command: Command) {
        if command != Command::Run
            && let Some(link) = self.link.take()
        {
            // Fails if the process has ended.
            let _ = link.try_write(&[SIGNAL_BYTE]);
        }
        if command == Command::Kill {
            // Fails if the process has ended.
            let _ = self.child.start_kill();
        }
    }
}

fn exit_of(status: ExitStatus) -> Exit {
    match status.signal() {
        Some(signal) => Exit::Signal(signal),
        None => Exit::Code(status.code().unwrap_or(1)),
    }
}
