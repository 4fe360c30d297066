//! The parameters in the path of `#[http]`.

use proc_macro2::{TokenStream, TokenTree};

/// Returns the names of the parameters in a path: `id` and `rest` of `/a/{id}/{*rest}`. The router
/// reports an invalid path.
pub(crate) fn names(path: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = path;
    while let Some((_, tail)) = rest.split_once('{') {
        if let Some(escaped) = tail.strip_prefix('{') {
            rest = escaped;
            continue;
        }
        let Some((name, tail)) = tail.split_once('}') else {
            break;
        };
        names.push(name.strip_prefix('*').unwrap_or(name));
        rest = tail;
    }
    names
}

/// Returns `true` if the tokens contain `Self`.
pub(crate) fn mentions_self(tokens: TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == "Self",
        TokenTree::Group(group) => mentions_self(group.stream()),
        TokenTree::Punct(_) | TokenTree::Literal(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_between_single_braces() {
        for (path, expected) in [
            ("/", &[][..]),
            ("/a/{id}", &["id"]),
            ("/{a}/b/{*rest}", &["a", "rest"]),
            ("/{{a}}/{b}", &["b"]),
            ("/{a", &[]),
            ("/v{n}.json", &["n"]),
        ] {
            assert_eq!(names(path), expected, "{path}");
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
            assert_eq!(mentions_self(tokens.parse().unwrap()), expected, "{tokens}");
        }
    }
}
