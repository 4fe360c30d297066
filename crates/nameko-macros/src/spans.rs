//! Where the compiler says that generated code is wrong.

use proc_macro2::Span;
use quote::ToTokens;

/// The place of some of the user's tokens, for generated code to stand at: an error in that code is then shown there.
///
/// Names in code that stands there still belong to the macro: they neither see nor shadow the user's variables, and
/// lints about style leave them alone.
#[derive(Clone, Copy)]
pub(crate) struct SpanEnds {
    pub(crate) first: Span,
    pub(crate) last: Span,
}

impl SpanEnds {
    /// The place of `tokens`. An expression whose first and last token stand at `first` and `last` is underlined as
    /// `tokens` would be.
    pub(crate) fn of(tokens: &impl ToTokens) -> Self {
        let tokens = tokens.to_token_stream();
        let mut spans = tokens
            .into_iter()
            .map(|token| token.span().resolved_at(Span::mixed_site()));
        let first = spans.next().unwrap_or_else(Span::mixed_site);
        Self {
            first,
            last: spans.last().unwrap_or(first),
        }
    }
}
