//! Spans of the user's tokens, for errors in generated code.

use proc_macro2::Span;
use quote::ToTokens;

/// The first and last span of some tokens. Errors in generated code that carries them are reported
/// at these tokens.
///
/// Resolution stays hygienic: identifiers with these spans neither see nor shadow the user's
/// variables, and style lints ignore them.
#[derive(Clone, Copy)]
pub(crate) struct SpanEnds {
    pub(crate) first: Span,
    pub(crate) last: Span,
}

impl SpanEnds {
    /// Returns the span ends of `tokens`. An expression whose first and last token carry them is
    /// underlined like `tokens`.
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
