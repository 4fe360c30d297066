//! The shell: scripts on standard input, and a user at a terminal.

use std::io::{Read as _, Write as _};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::NAMEKO;
use crate::cli_call::greeter;
use crate::program::{command, run};

#[tokio::test(flavor = "multi_thread")]
async fn a_script_prints_results_and_nothing_else() {
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

#[tokio::test(flavor = "multi_thread")]
async fn the_first_error_ends_a_script() {
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
async fn a_user_at_a_terminal_calls_completes_recalls_and_abandons() {
    let (broker, container) = greeter().await;
    let home = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::start(broker.uri(), home.path());
    terminal.wait_for("`help` tells more");
    terminal.wait_for(">>> ");
    terminal.type_keys("n.rpc.cli_greeter.hello(name='zq')\r");
    terminal.wait_for("'Hello, zq!'");
    // Tab: the names that were called are known now.
    terminal.wait_for(">>> ");
    terminal.type_keys("n.r\tcli\the\t'tab')\r");
    terminal.wait_for("'Hello, tab!'");
    // An open bracket goes on in the next line.
    terminal.wait_for(">>> ");
    terminal.type_keys("n.rpc.cli_greeter.hello(\r'lines')\r");
    terminal.wait_for("'Hello, lines!'");
    // An error does not end it; Ctrl-C abandons a line.
    terminal.wait_for(">>> ");
    terminal.type_keys("n.rpc.cli_greeter.hello(zq)\r");
    terminal.wait_for("SyntaxError: `zq` is not a value");
    terminal.wait_for(">>> ");
    terminal.type_keys("n.rpc.cli_greeter.fail(\x03");
    terminal.wait_for(">>> ");
    // Ctrl-C abandons a call.
    terminal.type_keys("n.rpc.cli_greeter.hang()\r");
    terminal.wait_for("hang()");
    terminal.wait_for("\n");
    terminal.type_keys("\x03");
    terminal.wait_for("The call was abandoned");
    // The arrow recalls a line; Ctrl-D leaves.
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

/// `nameko shell` on a pseudo terminal, which the tool `script` makes.
struct Terminal {
    child: std::process::Child,
    keys: ChildStdin,
    output: Receiver<Vec<u8>>,
    /// What came and was not waited for yet.
    pending: String,
}

impl Terminal {
    fn start(uri: &str, home: &std::path::Path) -> Self {
        let line = format!("'{}' shell --broker '{uri}'", NAMEKO);
        let mut child = Command::new("script")
            .args([
                "--quiet",
                "--flush",
                "--return",
                "--command",
                &line,
                "/dev/null",
            ])
            .env("XDG_STATE_HOME", home.join("state"))
            .env("TERM", "xterm")
            .env_remove("RUST_LOG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, output) = channel();
        let mut stdout = child.stdout.take().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = stdout.read(&mut buffer) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            keys: child.stdin.take().unwrap(),
            child,
            output,
            pending: String::new(),
        }
    }

    fn type_keys(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    /// Waits until `text` comes, and forgets all up to its end.
    fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(at) = self.pending.find(text) {
                self.pending.drain(..at + text.len());
                return;
            }
            match self
                .output
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(bytes) => self.pending.push_str(&String::from_utf8_lossy(&bytes)),
                Err(error) => panic!("no `{text}` came ({error}); what came: {:?}", self.pending),
            }
        }
    }

    fn wait_for_end(&mut self) {
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Both fail only where it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
