//! A place in a line of input, and the faults found there.

use std::fmt;

/// Brackets within brackets; a reply's are as deep as a peer likes.
const MAX_DEPTH: usize = 200;

/// Walks through a text.
#[derive(Clone, Debug)]
pub(super) struct Scanner<'a> {
    text: &'a str,
    /// In bytes, always between two characters.
    offset: usize,
    /// Brackets that are open here.
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

    /// Goes on by so many bytes, which end between two characters, and gives them back.
    pub(super) fn advance(&mut self, bytes: usize) -> &'a str {
        let passed = &self.rest()[..bytes];
        self.offset += bytes;
        passed
    }

    /// Goes over the character if it comes next.
    pub(super) fn skip(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        if found {
            self.offset += c.len_utf8();
        }
        found
    }

    /// Goes over white space, line ends and comments.
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

    /// The name that begins here; empty if none does.
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

    /// Takes a character that must come here, after any white space.
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
                format!("more than {MAX_DEPTH} brackets within each other"),
            ));
        }
        self.take(bracket)?;
        self.depth += 1;
        Ok(())
    }

    /// Takes the closing bracket if it comes next, after any white space.
    pub(super) fn closed(&mut self, bracket: char) -> bool {
        self.space();
        let closed = self.skip(bracket);
        if closed {
            self.depth -= 1;
        }
        closed
    }

    /// Takes a comma if there is one; if not, the closing bracket must come next.
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

    /// Nothing but white space may come.
    pub(super) fn end(&mut self) -> Result<(), Fault> {
        self.space();
        if self.rest().is_empty() {
            Ok(())
        } else {
            Err(self.expected("the end of the line"))
        }
    }

    /// The fault that something else stands here.
    pub(super) fn expected(&self, what: &str) -> Fault {
        match self.peek() {
            Some(c) => Fault::new(self.offset, format!("expected {what}, not `{c}`")),
            None if self.depth > 0 => Fault::incomplete(self.offset, format!("expected {what}")),
            None => Fault::new(self.offset, format!("expected {what}")),
        }
    }
}

/// What is wrong with a line, and where.
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

    /// The text ends too early: more lines could make it right.
    pub(super) fn incomplete(offset: usize, message: impl Into<String>) -> Self {
        Self {
            incomplete: true,
            ..Self::new(offset, message)
        }
    }

    /// Whether more lines could make it right: a bracket or a long text is open.
    pub(crate) fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// The line with a caret under the place, and the message below.
    pub(crate) fn point_at(&self, text: &str) -> String {
        // Where the text ends too early, the place is behind its last character.
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
