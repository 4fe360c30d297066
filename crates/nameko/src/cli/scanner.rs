//! A scanner over a line of input, and its syntax errors.

use std::fmt;

/// Maximum nesting of brackets; the nesting of a reply is up to the peer.
const MAX_DEPTH: usize = 200;

/// A cursor over a text.
#[derive(Clone, Debug)]
pub(super) struct Scanner<'a> {
    text: &'a str,
    /// Offset in bytes, at a character boundary.
    offset: usize,
    /// Number of open brackets.
    depth: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            text,
            offset: 0,
            depth: 0,
        }
    }

    pub(super) fn offset(&self) -> usize {
        self.offset
    }

    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.offset..]
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub(super) fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.offset += next.len_utf8();
        Some(next)
    }

    /// Advances by `bytes`, which must end at a character boundary, and returns the passed text.
    pub(super) fn advance(&mut self, bytes: usize) -> &'a str {
        let passed = &self.rest()[..bytes];
        self.offset += bytes;
        passed
    }

    /// Skips the next character if it is `c`.
    pub(super) fn skip(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        if found {
            self.offset += c.len_utf8();
        }
        found
    }

    /// Skips white space, line ends and comments.
    pub(super) fn space(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.offset += rest.len() - trimmed.len();
            if !trimmed.starts_with('#') {
                return;
            }
            self.offset += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    /// Takes the identifier at the cursor; empty if there is none.
    pub(super) fn word(&mut self) -> &'a str {
        let rest = self.rest();
        if rest.starts_with(|c: char| c.is_numeric()) {
            return "";
        }
        let end = rest
            .find(|c: char| !(c.is_alphanumeric() || c == '_'))
            .unwrap_or(rest.len());
        self.advance(end)
    }

    /// Takes a required character after optional white space.
    pub(super) fn take(&mut self, c: char) -> Result<(), Fault> {
        self.space();
        if self.skip(c) {
            Ok(())
        } else {
            Err(self.expected(&format!("`{c}`")))
        }
    }

    /// Takes an opening bracket.
    pub(super) fn open(&mut self, bracket: char) -> Result<(), Fault> {
        if self.depth == MAX_DEPTH {
            return Err(Fault::new(
                self.offset,
                format!("brackets are nested more than {MAX_DEPTH} levels deep"),
            ));
        }
        self.take(bracket)?;
        self.depth += 1;
        Ok(())
    }

    /// Takes the closing bracket, if present, after optional white space.
    pub(super) fn closed(&mut self, bracket: char) -> bool {
        self.space();
        let closed = self.skip(bracket);
        if closed {
            self.depth -= 1;
        }
        closed
    }

    /// Takes a comma, if present; otherwise requires the closing bracket to follow.
    pub(super) fn comma_or(&mut self, close: char) -> Result<bool, Fault> {
        self.space();
        if self.skip(',') {
            Ok(true)
        } else if self.peek() == Some(close) {
            Ok(false)
        } else {
            Err(self.expected(&format!("`,` or `{close}`")))
        }
    }

    /// Requires the end of the text after optional white space.
    pub(super) fn end(&mut self) -> Result<(), Fault> {
        self.space();
        if self.rest().is_empty() {
            Ok(())
        } else {
            Err(self.expected("the end of the line"))
        }
    }

    /// Creates the error for an unexpected character or end of text.
    pub(super) fn expected(&self, item: &str) -> Fault {
        match self.peek() {
            Some(c) => Fault::new(self.offset, format!("expected {item}, not `{c}`")),
            None if self.depth > 0 => Fault::incomplete(self.offset, format!("expected {item}")),
            None => Fault::new(self.offset, format!("expected {item}")),
        }
    }
}

/// A syntax error with its position.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fault {
    offset: usize,
    message: String,
    incomplete: bool,
}

impl Fault {
    pub(super) fn new(offset: usize, message: impl Into<String>) -> Self {
        Self {
            offset,
            message: message.into(),
            incomplete: false,
        }
    }

    /// Creates an error for a text that ends too early; more lines may complete it.
    pub(super) fn incomplete(offset: usize, message: impl Into<String>) -> Self {
        Self {
            incomplete: true,
            ..Self::new(offset, message)
        }
    }

    /// Returns `true` if more lines may complete the text: a bracket or a long string is open.
    pub(crate) fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// Formats the line with a caret under the position, and the message below.
    pub(crate) fn point_at(&self, text: &str) -> String {
        // If the text ends too early, the position is after its last character.
        let text = text.trim_end();
        let offset = (0..=self.offset.min(text.len()))
            .rev()
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(0);
        let (before, after) = text.split_at(offset);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line_end = after.find('\n').map_or(text.len(), |at| offset + at);
        let line = text[line_start..line_end].replace('\t', " ");
        let column = text[line_start..offset].chars().count();
        format!(
            "  {line}\n  {}^\nSyntaxError: {}",
            " ".repeat(column),
            self.message
        )
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
