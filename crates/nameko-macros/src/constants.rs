//! Expressions that the compiler evaluates.

use proc_macro2::{TokenStream, TokenTree};
use syn::{Expr, Lit};

/// Returns `true` for an expression that is a text known to the compiler, if it is valid: a string
/// literal, the path of a constant, or `concat!`.
pub(crate) fn is_text(expression: &TokenStream) -> bool {
    match syn::parse2(expression.clone()) {
        Ok(Expr::Lit(literal)) => matches!(literal.lit, Lit::Str(_)),
        Ok(Expr::Path(_)) => true,
        Ok(Expr::Macro(call)) => call.mac.path.is_ident("concat"),
        _ => false,
    }
}

/// Returns `true` if the tokens contain `Self`.
pub(crate) fn mention_self(tokens: TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == "Self",
        TokenTree::Group(group) => mention_self(group.stream()),
        TokenTree::Punct(_) | TokenTree::Literal(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_known_to_the_compiler() {
        for (expression, expected) in [
            (r#""/a/{id}""#, true),
            ("PATH", true),
            ("paths::ORDER", true),
            (r#"concat!("/a", "/{id}")"#, true),
            (r#"format!("/a")"#, false),
            ("path()", false),
            ("&PATH", false),
            ("7", false),
        ] {
            assert_eq!(
                is_text(&expression.parse().unwrap()),
                expected,
                "{expression}"
            );
        }
    }

    #[test]
    fn self_is_found_in_groups() {
        for (tokens, expected) in [
            ("Vec<u8>", false),
            ("Json<Self>", true),
            ("[Self; 1]", true),
            ("Selfish", false),
        ] {
            assert_eq!(mention_self(tokens.parse().unwrap()), expected, "{tokens}");
        }
    }
}
