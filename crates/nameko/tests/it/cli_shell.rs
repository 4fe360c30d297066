//! The command `shell`: scripts on standard input, and a user at a terminal.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use nameko::{Container, prelude::*};
use pty_process::blocking::Pty;

use crate::NAMEKO;
use crate::cli_call::greeter;
use crate::program::{command, run, wait};
use crate::services::{Hearing, Received};
use crate::support::broker;

#[tokio::test(flavor = "multi_thread")]
async fn a_script_prints_only_results() {
    let (broker, container) = greeter().await;
    let script = "\
# a comment
n.rpc.cli_greeter.hello(name='zq')

n.rpc['cli_greeter'].hello(
  'more'   # than
  ' lines',
)
n.rpc.cli_greeter.nothing()
print(n.rpc.cli_greeter.hello('you'))
n.rpc.cli_greeter.echo({'a': (1, [2.5]), 'b': None})
n.config['AMQP_URI']
exit()
n.rpc.cli_greeter.fail()
";
    let ended = run(command(NAMEKO, ["shell", "--broker", broker.uri()]), script);
    let expected = format!(
        "'Hello, zq!'\n'Hello, more lines!'\nHello, you!\n{{'a': [1, [2.5]], 'b': None}}\n'{}'\n",
        broker.uri()
    );
    assert_eq!(
        (ended.code, ended.stdout, ended.stderr),
        (Some(0), expected, String::new())
    );
    container.stop().await;
}

#[derive(Dependencies)]
struct Till {
    #[dependency(Hearing)]
    received: Received,
}

#[service("cli_till")]
impl Till {
    #[event_handler("cli_shop", "paid")]
    async fn on_paid(&self, order: serde_json::Value) -> Result<()> {
        self.received.record(order.to_string());
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_dispatches_events() {
    let broker = broker().await;
    let received = Received::new();
    let container = Container::builder::<Till>(broker.config())
        .replace("received", received.clone())
        .build()
        .unwrap();
    container.start().await.unwrap();
    let script = "\
n.dispatch_event('cli_shop', 'paid', {'id': 17, 'by': None})
n.dispatch_event('cli_shop', event_type='paid', event_data='é')
n.dispatch_event('cli_shop', 'unheard of', 1)
n.dispatch_event('nobody', 'paid', 1)
";
    let ended = run(command(NAMEKO, ["shell", "--broker", broker.uri()]), script);
    let mut received = received.take_when(2).await.unwrap();
    // Workers run concurrently: the order is not fixed.
    received.sort_by_key(String::len);
    assert_eq!(received, ["\"é\"", r#"{"id":17,"by":null}"#]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    assert!(
        ended.stderr.starts_with("ConnectionError: ")
            && ended.stderr.contains("'nobody.events'")
            && ended
                .stderr
                .contains("\n  no service has dispatched or handled events of nobody on amqp://"),
        "{}",
        ended.stderr
    );
    container.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_error_aborts_a_script() {
    let (broker, container) = greeter().await;
    let hello = "n.rpc.cli_greeter.hello('zq')\n";
    let table = [
        (
            format!("{hello}n.rpc.cli_greeter.fail()\n{hello}"),
            "RemoteError: ValueError bad\n",
        ),
        (
            format!("{hello}n.rpc.cli_greeter.hello(name=)\n{hello}"),
            "  n.rpc.cli_greeter.hello(name=)\n                               ^\nSyntaxError: expected a value, not `)`\n",
        ),
        (
            format!("{hello}n.rpc.cli_greeter.hello('x'"),
            "  n.rpc.cli_greeter.hello('x'\n                             ^\nSyntaxError: expected `,` or `)`\n",
        ),
        (
            format!("{hello}n.config['nothing']"),
            "KeyError: the configuration has no `nothing`\n",
        ),
    ];
    for (script, expected) in table {
        let ended = run(
            command(NAMEKO, ["shell", "--broker", broker.uri()]),
            &script,
        );
        assert_eq!(
            (ended.code, ended.stdout.as_str(), ended.stderr.as_str()),
            (Some(1), "'Hello, zq!'\n", expected)
        );
    }
    container.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_session_calls_completes_recalls_and_cancels() {
    let (broker, container) = greeter().await;
    let home = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::start(broker.uri(), home.path());
    terminal.wait_for("`help` for help");
    terminal.wait_for(">>> ");
    terminal.type_keys("n.rpc.cli_greeter.hello(name='zq')\r");
    terminal.wait_for("'Hello, zq!'");
    // Tab completes names of earlier calls.
    terminal.wait_for(">>> ");
    terminal.type_keys("n.r\tcli\the\t'tab')\r");
    terminal.wait_for("'Hello, tab!'");
    // An open bracket continues the line.
    terminal.wait_for(">>> ");
    terminal.type_keys("n.rpc.cli_greeter.hello(\r'lines')\r");
    terminal.wait_for("'Hello, lines!'");
    // An error does not end the shell; Ctrl-C discards a line.
    terminal.wait_for(">>> ");
    terminal.type_keys("n.rpc.cli_greeter.hello(zq)\r");
    terminal.wait_for("SyntaxError: `zq` is not a value");
    terminal.wait_for(">>> ");
    terminal.type_keys("n.rpc.cli_greeter.fail(\x03");
    terminal.wait_for(">>> ");
    // Ctrl-C cancels a call.
    terminal.type_keys("n.rpc.cli_greeter.hang()\r");
    terminal.wait_for("hang()");
    terminal.wait_for("\n");
    terminal.type_keys("\x03");
    terminal.wait_for("Call cancelled");
    // An error of an event does not end the shell either; its names are completed too.
    terminal.wait_for(">>> ");
    terminal.type_keys("n.d\t'cli_g\t'gone', 1)\r");
    terminal.wait_for("no service has dispatched or handled events of cli_greeter");
    // The arrow key recalls a line; Ctrl-D exits.
    terminal.wait_for(">>> ");
    terminal.type_keys("n.rpc.cli_greeter.hello('again')\r");
    terminal.wait_for("'Hello, again!'");
    terminal.wait_for(">>> ");
    terminal.type_keys("\x1b[A\r");
    terminal.wait_for("'Hello, again!'");
    terminal.wait_for(">>> ");
    terminal.type_keys("\x04");
    terminal.wait_for_end();
    let history = std::fs::read_to_string(home.path().join("state/nameko/history")).unwrap();
    assert!(history.contains("hello(name='zq')"), "{history}");
    container.stop().await;
}

/// `nameko shell` on a pseudo terminal, without an intermediate process: keys, signals and exit
/// status are exact.
struct Terminal {
    child: Child,
    keys: Arc<Pty>,
    output: Receiver<Vec<u8>>,
    /// The output so far.
    seen: String,
    /// The length of the output that earlier waits have matched.
    waited: usize,
}

impl Terminal {
    fn start(uri: &str, home: &Path) -> Self {
        let (terminal, inside) = pty_process::blocking::open().unwrap();
        let mut shell = command(NAMEKO, ["shell", "--broker", uri]);
        shell
            .env("XDG_STATE_HOME", home.join("state"))
            .env("TERM", "xterm");
        let child = pty_process::blocking::Command::from(shell)
            .spawn(inside)
            .unwrap();
        let keys = Arc::new(terminal);
        let screen = Arc::clone(&keys);
        let (sender, output) = channel();
        // Reading fails once the shell, the last process with the terminal open, exits.
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = (&*screen).read(&mut buffer) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            keys,
            output,
            seen: String::new(),
            waited: 0,
        }
    }

    fn type_keys(&mut self, keys: &str) {
        (&*self.keys).write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for `text` after the output of the last wait.
    fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(at) = self.seen[self.waited..].find(text) {
                self.waited += at + text.len();
                return;
            }
            match self
                .output
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(error) => {
                    let (before, behind) = self.seen.split_at(self.waited);
                    panic!(
                        "no `{text}` came ({error}); the shell: {:?}; what came: {behind:?}; and before that: {before:?}",
                        self.child.try_wait()
                    )
                }
            }
        }
    }

    fn wait_for_end(&mut self) {
        let status = wait(&mut self.child);
        self.seen.extend(
            self.output
                .iter()
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        );
        assert!(
            status.success(),
            "the shell ended with {status}; what came: {:?}",
            self.seen
        );
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Both fail only if the shell has exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
