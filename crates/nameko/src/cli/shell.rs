//! The shell: runs lines from a terminal or a script.

use std::borrow::Cow;
use std::fs;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;

use futures_util::TryFutureExt as _;
use futures_util::future::BoxFuture;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{CompletionType, Context, Editor, Helper};
use tokio::runtime::Handle;

use super::arguments::ClientArguments;
use super::client::Client;
use super::completion::Names;
use super::expression::Line;
use super::failure::Failure;
use super::literal::Literal;
use super::signals::Interrupts;
use super::terminal::{echo, print_failure};
use crate::config::Config;

const HELP: &str = "\
n.rpc.service.method('text', 1, key=True)   calls a method and prints the result; values are Python literals
n.rpc['my-service'].method()                a name that is not a Python identifier
print(n.rpc.service.method())               prints a string without quotes
n.dispatch_event('service', 'type', {'id': 1})  dispatches an event as the service
n.config, n.config['AMQP_URI']              the configuration
exit(), Ctrl-D                              exits; Ctrl-C cancels a line or a call; Tab completes; arrows recall lines";

/// Reads and runs lines: from a terminal until the user exits, from a script until its end or its
/// first error. Blocks the thread, which must not be one of the runtime's workers.
pub(super) fn run(
    runtime: &Handle,
    config: &Config,
    arguments: &ClientArguments,
    names: Names,
) -> Result<ExitCode, Failure> {
    let client = runtime.block_on(Client::connect(config, arguments))?;
    let shell = Shell {
        runtime,
        config,
        client,
    };
    let outcome = if io::stdin().is_terminal() {
        shell.interact(names)
    } else {
        shell.run_script(io::stdin().lock())
    };
    runtime.block_on(shell.client.close());
    outcome.map(|()| ExitCode::SUCCESS)
}

struct Shell<'a> {
    runtime: &'a Handle,
    config: &'a Config,
    client: Client,
}

/// The pending operation of a line.
struct Operation<'a> {
    result: BoxFuture<'a, Result<Literal, Failure>>,
    /// Message after Ctrl-C.
    cancelled: &'static str,
}

/// The action after a line.
#[derive(PartialEq)]
enum Next {
    Line,
    Leave,
}

impl Shell<'_> {
    /// Runs lines without a prompt. Open brackets continue a line.
    fn run_script(&self, script: impl io::BufRead) -> Result<(), Failure> {
        let mut pending = String::new();
        for line in script.lines() {
            pending.push_str(&line?);
            pending.push('\n');
            match Line::parse(&pending) {
                Err(fault) if fault.is_incomplete() => continue,
                Err(fault) => return Err(Failure::in_text(&fault, &pending)),
                Ok(line) => {
                    let wait = |operation: Operation<'_>| {
                        self.runtime.block_on(operation.result).map(Some)
                    };
                    if self.execute(&line, wait)? == Next::Leave {
                        return Ok(());
                    }
                }
            }
            pending.clear();
        }
        match Line::parse(&pending) {
            Ok(_) => Ok(()),
            Err(fault) => Err(Failure::in_text(&fault, &pending)),
        }
    }

    fn interact(&self, names: Names) -> Result<(), Failure> {
        echo(format_args!(
            "Nameko {} shell, broker {}",
            env!("CARGO_PKG_VERSION"),
            self.client.broker()
        ))?;
        echo("n.rpc.service.method(...) calls a service; `help` for help, Ctrl-D to exit.")?;
        let mut editor = Prompt::new(names)?;
        // Before the first line, so that an early Ctrl-C does not end the shell.
        let mut interrupts = self.runtime.block_on(async { Interrupts::new() })?;
        loop {
            interrupts.forget();
            let Some(text) = editor.read()? else {
                return Ok(());
            };
            let line = match Line::parse(&text) {
                Ok(line) => line,
                Err(fault) => {
                    print_failure(&Failure::in_text(&fault, &text));
                    continue;
                }
            };
            match self.execute(&line, |operation| {
                self.wait_unless_interrupted(operation, &mut interrupts)
            }) {
                Ok(Next::Line) => editor.learn(&line),
                Ok(Next::Leave) => return Ok(()),
                Err(failure) => print_failure(&failure),
            }
        }
    }

    /// Executes a line. `wait` returns `None` if the user cancelled the operation.
    fn execute(
        &self,
        line: &Line,
        wait: impl FnOnce(Operation<'_>) -> Result<Option<Literal>, Failure>,
    ) -> Result<Next, Failure> {
        let start = |call| Operation {
            result: Box::pin(self.client.call(call)),
            cancelled: "Call cancelled; the service may still run it.",
        };
        match line {
            Line::Empty => {}
            Line::Help => echo(HELP)?,
            Line::Exit => return Ok(Next::Leave),
            Line::Config(None) => echo(self.config.to_yaml().trim_end())?,
            Line::Config(Some(key)) => match self.config.get(key) {
                None => {
                    return Err(Failure::new(
                        "KeyError",
                        format!("the configuration has no `{key}`"),
                    ));
                }
                Some(value) => {
                    let json = value.to_string();
                    let value =
                        Literal::parse(&json).map_err(|fault| Failure::in_text(&fault, &json))?;
                    echo(value)?;
                }
            },
            Line::Call(call) => match wait(start(call))? {
                None | Some(Literal::None) => {}
                Some(value) => echo(value)?,
            },
            Line::Print(call) => match wait(start(call))? {
                None => {}
                Some(Literal::Text(text)) => echo(text)?,
                Some(value) => echo(value)?,
            },
            Line::Event(event) => {
                let dispatch = self.client.dispatch(event);
                wait(Operation {
                    result: Box::pin(dispatch.map_ok(|()| Literal::None)),
                    cancelled: "Event cancelled; it may have been dispatched.",
                })?;
            }
        }
        Ok(Next::Line)
    }

    fn wait_unless_interrupted(
        &self,
        operation: Operation<'_>,
        interrupts: &mut Interrupts,
    ) -> Result<Option<Literal>, Failure> {
        self.runtime.block_on(async {
            tokio::select! {
                result = operation.result => result.map(Some),
                () = interrupts.next() => {
                    echo(format_args!("\n{}", operation.cancelled))?;
                    Ok(None)
                }
            }
        })
    }
}

/// The line editor and its history.
struct Prompt {
    editor: Editor<Help, DefaultHistory>,
    /// `None` if there is no directory for it.
    history: Option<PathBuf>,
}

impl Prompt {
    fn new(names: Names) -> Result<Self, Failure> {
        let config = rustyline::Config::builder()
            .completion_type(CompletionType::List)
            .build();
        let history = DefaultHistory::with_config(&config);
        let mut editor = Editor::with_history(config, history).map_err(unusable)?;
        editor.set_helper(Some(Help { names }));
        let history = history_file();
        if let Some(path) = &history
            && let Err(error) = editor.load_history(path)
        {
            tracing::debug!("cannot read the history from {}: {error}", path.display());
        }
        Ok(Self { editor, history })
    }

    /// Reads the next non-blank line; `None` if the user exits. Ctrl-C discards the line.
    fn read(&mut self) -> Result<Option<String>, Failure> {
        loop {
            match self.editor.readline(">>> ") {
                Ok(text) if text.trim().is_empty() => {}
                Ok(text) => {
                    self.remember(&text);
                    return Ok(Some(text));
                }
                Err(ReadlineError::Interrupted) => {}
                Err(ReadlineError::Eof) => return Ok(None),
                Err(error) => return Err(unusable(error)),
            }
        }
    }

    /// Appends to the history at once, so that it survives a killed shell.
    fn remember(&mut self, text: &str) {
        let added = self.editor.add_history_entry(text);
        if let (Ok(true), Some(path)) = (added, &self.history)
            && let Err(error) = self.editor.append_history(path)
        {
            tracing::debug!("cannot write the history to {}: {error}", path.display());
        }
    }

    /// Adds the names of a successful line to the completions.
    fn learn(&mut self, line: &Line) {
        let Some(Help { names }) = self.editor.helper_mut() else {
            return;
        };
        match line {
            Line::Call(call) | Line::Print(call) => names.learn(&call.service, &call.method),
            Line::Event(event) => names.learn_event(&event.service, &event.event_type),
            _ => {}
        }
    }
}

fn unusable(error: ReadlineError) -> Failure {
    Failure::new("Error", format!("cannot read from the terminal: {error}"))
}

/// Returns `$XDG_STATE_HOME/nameko/history`, by default below `~/.local/state`; creates its
/// directory.
fn history_file() -> Option<PathBuf> {
    let directory = |name: &str| {
        std::env::var_os(name)
            .filter(|path| !path.is_empty())
            .map(PathBuf::from)
    };
    let state = directory("XDG_STATE_HOME")
        .or_else(|| directory("HOME").map(|home| home.join(".local/state")))?;
    let nameko = state.join("nameko");
    fs::create_dir_all(&nameko).ok()?;
    Some(nameko.join("history"))
}

/// Callbacks of the line editor.
struct Help {
    names: Names,
}

impl Helper for Help {}

impl Completer for Help {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.names.complete(line.get(..pos).unwrap_or(line)))
    }
}

impl Validator for Help {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(match Line::parse(context.input()) {
            Err(fault) if fault.is_incomplete() => ValidationResult::Incomplete,
            _ => ValidationResult::Valid(None),
        })
    }
}

impl Highlighter for Help {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _: bool) -> Cow<'b, str> {
        Cow::Owned(format!("\x1b[1m{prompt}\x1b[0m"))
    }
}

impl Hinter for Help {
    type Hint = String;
}
