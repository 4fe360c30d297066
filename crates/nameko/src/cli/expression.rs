//! Parser of the shell's lines: `n.rpc.hello_service.hello(name='zq')`,
//! `n.dispatch_event('shop', 'paid', 17)`, `n.config`, `help`, `exit()`.

use super::literal::{self, Literal};
use super::scanner::{Fault, Scanner};

/// A parsed line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Line {
    /// White space or a comment.
    Empty,
    Call(Call),
    /// `print(...)` of a call: prints a string without quotes.
    Print(Call),
    /// `n.dispatch_event(...)`
    Event(Event),
    /// `n.config`, or a single key of it.
    Config(Option<String>),
    Help,
    Exit,
}

/// A call of a remote method.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Call {
    pub(crate) service: String,
    pub(crate) method: String,
    pub(crate) args: Vec<Literal>,
    pub(crate) kwargs: Vec<(String, Literal)>,
}

/// An event, dispatched as `service`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) service: String,
    pub(crate) event_type: String,
    pub(crate) data: Literal,
}

impl Line {
    /// Parses a line of the shell, which may contain line ends inside brackets.
    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        let mut scanner = Scanner::new(text);
        scanner.space();
        if scanner.rest().is_empty() {
            return Ok(Self::Empty);
        }
        let start = scanner.offset();
        let line = match scanner.word() {
            "n" => root(&mut scanner)?,
            "print" => print(&mut scanner)?,
            "help" => {
                brackets(&mut scanner)?;
                Self::Help
            }
            "exit" | "quit" => {
                brackets(&mut scanner)?;
                Self::Exit
            }
            _ => {
                let example = "this shell makes calls, like n.rpc.service.method('text', 1, key=True); see `help`";
                return Err(Fault::new(start, example));
            }
        };
        scanner.end()?;
        Ok(line)
    }
}

impl Call {
    /// Parses `service.method(...)`, with or without the prefix `n.rpc.`.
    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        let mut scanner = Scanner::new(text);
        scanner.space();
        if scanner.rest().starts_with("n.rpc") {
            scanner.advance("n.rpc".len());
        } else {
            // Without `n.rpc.` there is no dot before the service.
            let service = name(&mut scanner, "the name of a service")?;
            let call = method(&mut scanner, service)?;
            scanner.end()?;
            return Ok(call);
        }
        let service = attribute(&mut scanner, "a service: n.rpc.service.method(...)")?;
        let call = method(&mut scanner, service)?;
        scanner.end()?;
        Ok(call)
    }

    /// Adds a command line argument, `KEY=VALUE` or `VALUE`. A value that is not a literal is a
    /// string.
    ///
    /// # Errors
    /// Returns the syntax error and the text it refers to.
    pub(crate) fn argument(&mut self, argument: &str) -> Result<(), (Fault, String)> {
        let mut scanner = Scanner::new(argument);
        let key = scanner.word();
        if !key.is_empty() && scanner.skip('=') && scanner.peek() != Some('=') {
            if self.kwargs.iter().any(|(known, _)| known == key) {
                return Err((
                    Fault::new(0, format!("the argument `{key}` is given twice")),
                    argument.into(),
                ));
            }
            let value = word_or_literal(scanner.rest())?;
            self.kwargs.push((key.into(), value));
        } else {
            self.args.push(word_or_literal(argument)?);
        }
        Ok(())
    }
}

/// Parses a literal; a text that is not meant as one is a string.
pub(super) fn word_or_literal(text: &str) -> Result<Literal, (Fault, String)> {
    match Literal::parse(text) {
        Ok(value) => Ok(value),
        Err(fault) => {
            let meant_as_literal = text.trim_start().starts_with(|c: char| {
                c.is_ascii_digit()
                    || matches!(c, '[' | '(' | '{' | '\'' | '"' | '+' | '-' | '.' | '*')
            });
            let prefixed = text.trim_end().ends_with(['\'', '"']);
            if meant_as_literal || prefixed {
                Err((fault, text.into()))
            } else {
                Ok(Literal::Text(text.into()))
            }
        }
    }
}

/// Parses the rest of a line after `n`.
fn root(scanner: &mut Scanner<'_>) -> Result<Line, Fault> {
    scanner.space();
    if scanner.rest().is_empty() {
        return Ok(Line::Help);
    }
    scanner.take('.')?;
    scanner.space();
    let start = scanner.offset();
    match scanner.word() {
        "rpc" => {
            let service = attribute(scanner, "a service: n.rpc.service.method(...)")?;
            method(scanner, service).map(Line::Call)
        }
        "config" => {
            scanner.space();
            if scanner.peek() == Some('[') {
                subscript(scanner).map(Some).map(Line::Config)
            } else {
                Ok(Line::Config(None))
            }
        }
        "dispatch_event" => event(scanner).map(Line::Event),
        "" => Err(scanner.expected("`rpc`, `dispatch_event` or `config`")),
        other => Err(Fault::new(
            start,
            format!("`n` has `rpc`, `dispatch_event` and `config`, not `{other}`"),
        )),
    }
}

/// Parses the rest of a line after `print`.
fn print(scanner: &mut Scanner<'_>) -> Result<Line, Fault> {
    scanner.open('(')?;
    scanner.space();
    let start = scanner.offset();
    let printed = if scanner.word() == "n" {
        root(scanner)?
    } else {
        Line::Empty
    };
    let Line::Call(call) = printed else {
        return Err(Fault::new(
            start,
            "expected a call: print(n.rpc.service.method(...))",
        ));
    };
    if !scanner.closed(')') {
        return Err(scanner.expected("`)`"));
    }
    Ok(Line::Print(call))
}

/// Parses `.method(...)`.
fn method(scanner: &mut Scanner<'_>, service: String) -> Result<Call, Fault> {
    let method = attribute(scanner, &format!("a method: {service}.method(...)"))?;
    scanner.space();
    let start = scanner.offset();
    if scanner.peek() == Some('.') {
        return Err(Fault::new(
            start,
            "expected `(`: methods are called directly",
        ));
    }
    let mut call = Call {
        service,
        method,
        ..Call::default()
    };
    for Argument { name, value, .. } in arguments(scanner)? {
        match name {
            Some(name) => call.kwargs.push((name.into(), value)),
            None => call.args.push(value),
        }
    }
    Ok(call)
}

/// Parameters of `dispatch_event`, named as in Python.
const EVENT_PARAMETERS: [&str; 3] = ["service_name", "event_type", "event_data"];

/// Parses `('service', 'type', data)`.
fn event(scanner: &mut Scanner<'_>) -> Result<Event, Fault> {
    let mut given = EVENT_PARAMETERS.map(|_| None);
    for (index, argument) in arguments(scanner)?.into_iter().enumerate() {
        let place = match argument.name {
            None => index,
            Some(name) => EVENT_PARAMETERS
                .iter()
                .position(|parameter| *parameter == name)
                .unwrap_or(usize::MAX),
        };
        match given.get_mut(place) {
            Some(slot @ None) => *slot = Some(argument),
            Some(Some(_)) => {
                let name = argument.name.unwrap_or_default();
                let text = format!("the argument `{name}` is given twice");
                return Err(Fault::new(argument.at, text));
            }
            None => {
                let text = format!(
                    "`dispatch_event` takes only {}",
                    EVENT_PARAMETERS.join(", ")
                );
                return Err(Fault::new(argument.at, text));
            }
        }
    }
    // The closing bracket.
    let end = scanner.offset().saturating_sub(1);
    let mut next = given.into_iter();
    let mut take = |parameter: &str| {
        let missing = || {
            let text = format!("expected {parameter}: n.dispatch_event('service', 'type', data)");
            Fault::new(end, text)
        };
        next.next().flatten().ok_or_else(missing)
    };
    Ok(Event {
        service: take("the name of a service")?.text("the name of a service")?,
        event_type: take("the type of the event")?.text("the type of the event")?,
        data: take("the data of the event")?.value,
    })
}

/// Parses `.name` or `['name']`.
fn attribute(scanner: &mut Scanner<'_>, item: &str) -> Result<String, Fault> {
    scanner.space();
    match scanner.peek() {
        Some('[') => subscript(scanner),
        Some('.') => {
            scanner.skip('.');
            name(scanner, item)
        }
        _ => Err(scanner.expected(&format!("`.` and {item}"))),
    }
}

fn name(scanner: &mut Scanner<'_>, item: &str) -> Result<String, Fault> {
    scanner.space();
    let name = scanner.word();
    if name.is_empty() {
        Err(scanner.expected(item))
    } else {
        Ok(name.into())
    }
}

/// Parses `['name']`.
fn subscript(scanner: &mut Scanner<'_>) -> Result<String, Fault> {
    scanner.open('[')?;
    scanner.space();
    let start = scanner.offset();
    let Literal::Text(name) = literal::value(scanner)? else {
        return Err(Fault::new(start, "expected a name in quotes"));
    };
    if !scanner.closed(']') {
        return Err(scanner.expected("`]`"));
    }
    Ok(name)
}

/// A parsed argument.
struct Argument<'a> {
    name: Option<&'a str>,
    value: Literal,
    /// Offset of the argument.
    at: usize,
    /// Offset of the value.
    value_at: usize,
}

impl Argument<'_> {
    fn text(self, item: &str) -> Result<String, Fault> {
        match self.value {
            Literal::Text(text) => Ok(text),
            _ => Err(Fault::new(
                self.value_at,
                format!("expected {item}, in quotes"),
            )),
        }
    }
}

/// Parses `(1, 'x', key=[2])`: positional arguments first.
fn arguments<'a>(scanner: &mut Scanner<'a>) -> Result<Vec<Argument<'a>>, Fault> {
    scanner.open('(')?;
    let mut arguments: Vec<Argument<'a>> = Vec::new();
    while !scanner.closed(')') {
        scanner.space();
        let at = scanner.offset();
        let name = keyword(scanner);
        if let Some(key) = name {
            if arguments.iter().any(|argument| argument.name == name) {
                return Err(Fault::new(
                    at,
                    format!("the argument `{key}` is given twice"),
                ));
            }
        } else if arguments.last().is_some_and(|last| last.name.is_some())
            && !scanner.rest().is_empty()
        {
            return Err(Fault::new(
                at,
                "expected `name=value`: a positional argument follows a keyword argument",
            ));
        }
        scanner.space();
        let value_at = scanner.offset();
        let value = literal::value(scanner)?;
        arguments.push(Argument {
            name,
            value,
            at,
            value_at,
        });
        scanner.comma_or(')')?;
    }
    Ok(arguments)
}

/// Takes `name =`, if present.
fn keyword<'a>(scanner: &mut Scanner<'a>) -> Option<&'a str> {
    let mut ahead = scanner.clone();
    let name = ahead.word();
    ahead.space();
    if name.is_empty() || !ahead.skip('=') {
        return None;
    }
    *scanner = ahead;
    Some(name)
}

/// Parses optional empty brackets, `()`.
fn brackets(scanner: &mut Scanner<'_>) -> Result<(), Fault> {
    scanner.space();
    if scanner.peek() == Some('(') {
        scanner.open('(')?;
        if !scanner.closed(')') {
            return Err(scanner.expected("`)`"));
        }
    }
    Ok(())
}
