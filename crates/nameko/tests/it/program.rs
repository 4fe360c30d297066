//! Child processes with arguments, input and signals.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Timeout of waits for output or exit of a program.
const DEADLINE: Duration = Duration::from_secs(60);

/// A running program, killed on drop.
pub(crate) struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    /// Lines of standard output and standard error.
    pub(crate) lines: Receiver<String>,
    /// All lines received so far.
    pub(crate) seen: String,
}

/// The result of a program.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit code; `None` after a signal.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Creates a command with a cleared configuration environment.
pub(crate) fn command<S: AsRef<OsStr>>(
    program: &str,
    arguments: impl IntoIterator<Item = S>,
) -> Command {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_remove("AMQP_URI")
        .env_remove("NAMEKO_LOG_FORMAT")
        .env_remove("RUST_LOG");
    command
}

/// Runs a program to its end.
pub(crate) fn run(mut command: Command, stdin: &str) -> Ended {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let text = stdin.to_owned();
    let writing = thread::spawn(move || {
        // Fails if the program exits before reading all input.
        let _ = input.write_all(text.as_bytes());
    });
    let (stdout, stderr) = (
        read(child.stdout.take().unwrap()),
        read(child.stderr.take().unwrap()),
    );
    let code = wait(&mut child).code();
    writing.join().unwrap();
    Ended {
        code,
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
    }
}

fn read(mut source: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = String::new();
        source.read_to_string(&mut text).unwrap();
        text
    })
}

/// Waits for a program to exit. A thread enforces the deadline, which the standard library lacks.
pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    let pid = child.id().to_string();
    let (done, watch) = channel::<()>();
    let watchdog = thread::spawn(move || {
        if watch.recv_timeout(DEADLINE) == Err(RecvTimeoutError::Timeout) {
            Command::new("kill").args(["-KILL", &pid]).status().unwrap();
        }
    });
    let status = child.wait().unwrap();
    drop(done);
    watchdog.join().unwrap();
    status
}

impl Program {
    pub(crate) fn start(mut command: Command) -> Self {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (sender, lines) = channel();
        let sources: [Box<dyn Read + Send>; 2] = [
            Box::new(child.stdout.take().unwrap()),
            Box::new(child.stderr.take().unwrap()),
        ];
        for source in sources {
            let sender = sender.clone();
            thread::spawn(move || {
                for line in BufReader::new(source).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        Self {
            stdin: child.stdin.take(),
            child,
            lines,
            seen: String::new(),
        }
    }

    /// Waits for a line that contains `text`, and returns it.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => {
                    self.seen.push_str(&line);
                    self.seen.push('\n');
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(error) => panic!("no `{text}` came ({error}); what came:\n{}", self.seen),
            }
        }
    }

    /// Sends a signal: "INT", "TERM", "KILL".
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status();
        assert!(status.unwrap().success());
    }

    /// Waits for the exit; returns the exit code, `None` after a signal.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        self.stdin = None;
        wait(&mut self.child).code()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail only after the exit.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
