//! Errors and their causes.

use std::{error::Error as StdError, fmt};

/// Maximum number of causes that are read: a chain may be cyclic.
const MAX_CAUSES: usize = 32;

/// Displays an error and its causes, one per line.
pub(crate) struct ErrorChain<'a>(pub(crate) &'a (dyn StdError + 'static));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.0, Causes(&causes(self.0)))
    }
}

/// Displays causes, each on a line of its own.
pub(crate) struct Causes<'a>(pub(crate) &'a [String]);

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|cause| write!(f, "\n  caused by: {cause}"))
    }
}

/// Returns an error and its causes, outermost first.
pub(crate) fn chain<'e>(
    error: &'e (dyn StdError + 'static),
) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source()).take(1 + MAX_CAUSES)
}

/// Returns an error and its causes in one line, separated by colons.
pub(crate) fn one_line(error: &(dyn StdError + 'static)) -> String {
    let texts: Vec<_> = chain(error).map(ToString::to_string).collect();
    texts.join(": ")
}

/// Returns the texts of the causes of an error, outermost first, without those that the text before
/// ends with: many error types include their source in their own text.
pub(crate) fn causes(error: &(dyn StdError + 'static)) -> Vec<String> {
    let mut causes = Vec::new();
    if error.source().is_none() {
        return causes;
    }
    let mut before = error.to_string();
    for cause in chain(error).skip(1) {
        let text = cause.to_string();
        if !before.ends_with(&text) {
            causes.push(text.clone());
            before = text;
        }
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        #[source]
        source: Option<Box<Layer>>,
    }

    fn chain(texts: &[&'static str]) -> Option<Box<Layer>> {
        let (text, rest) = texts.split_first()?;
        Some(Box::new(Layer {
            text,
            source: chain(rest),
        }))
    }

    fn shown(texts: &[&'static str]) -> String {
        ErrorChain(&*chain(texts).unwrap()).to_string()
    }

    #[test]
    fn each_cause_has_a_line() {
        assert_eq!(shown(&["no order"]), "no order");
        assert_eq!(
            shown(&["no order", "no answer", "connection closed by peer"]),
            "no order\n  caused by: no answer\n  caused by: connection closed by peer"
        );
    }

    #[test]
    fn a_cause_that_the_text_before_includes_is_not_repeated() {
        assert_eq!(
            shown(&["no order: no answer", "no answer", "closed by peer"]),
            "no order: no answer\n  caused by: closed by peer"
        );
    }
}
