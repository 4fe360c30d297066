//! Bodies of methods, which the macros pass on unparsed: a syntax error in one is the compiler's to
//! report, and does not hide the other methods.

use std::vec;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use quote::quote;
use syn::{ImplItem, ImplItemFn, Item, ItemImpl, Meta};

use crate::markers::MarkerKind;

/// The bodies of the methods of an impl, in order.
pub(crate) struct Bodies(vec::IntoIter<TokenTree>);

/// Parses an item. If it is an impl, the bodies of its methods are split off.
pub(crate) fn parse(item: &TokenStream) -> syn::Result<(Item, Bodies)> {
    if let Some((stub, bodies)) = split(item)
        && let Ok(Item::Impl(item)) = syn::parse2(stub)
        && item.items.iter().filter(|item| is_method(item)).count() == bodies.len()
    {
        return Ok((Item::Impl(item), Bodies(bodies.into_iter())));
    }
    let item = syn::parse2(item.clone())?;
    Ok((item, Bodies(Vec::new().into_iter())))
}

impl Bodies {
    /// Puts the bodies back into the methods they were split off from.
    pub(crate) fn restore(mut self, item: &mut ItemImpl) {
        for method in &mut item.items {
            if let ImplItem::Fn(ImplItemFn {
                attrs,
                vis,
                defaultness,
                sig,
                ..
            }) = method
                && let Some(body) = self.0.next()
            {
                *method = ImplItem::Verbatim(quote!(#(#attrs)* #vis #defaultness #sig #body));
            }
        }
    }
}

/// Removes the markers from the methods of an impl that cannot be parsed, to avoid follow-up
/// errors.
pub(crate) fn without_markers(item: &TokenStream) -> TokenStream {
    let mut tokens: Vec<_> = item.clone().into_iter().collect();
    if let Some(TokenTree::Group(block)) = tokens.pop() {
        let mut methods: Vec<TokenTree> = Vec::new();
        for token in block.stream() {
            let is_marker = matches!(methods.last(), Some(TokenTree::Punct(hash)) if hash.as_char() == '#')
                && matches!(&token, TokenTree::Group(attribute) if names_marker(attribute));
            if is_marker {
                methods.pop();
            } else {
                methods.push(token);
            }
        }
        tokens.push(with_tokens(&block, methods.into_iter().collect()));
    }
    tokens.into_iter().collect()
}

fn names_marker(attribute: &Group) -> bool {
    attribute.delimiter() == Delimiter::Bracket
        && syn::parse2::<Meta>(attribute.stream())
            .is_ok_and(|meta| MarkerKind::of(meta.path()).is_some())
}

fn is_method(item: &ImplItem) -> bool {
    matches!(item, ImplItem::Fn(_))
}

/// Replaces the body of each method with an empty one. Returns `None` unless the item ends with a
/// block.
fn split(item: &TokenStream) -> Option<(TokenStream, Vec<TokenTree>)> {
    let mut tokens: Vec<_> = item.clone().into_iter().collect();
    let TokenTree::Group(block) = tokens.pop()? else {
        return None;
    };
    if block.delimiter() != Delimiter::Brace {
        return None;
    }
    let (mut stub, mut bodies) = (Vec::new(), Vec::new());
    let mut in_signature = false;
    let mut rest = block.stream().into_iter().peekable();
    while let Some(token) = rest.next() {
        let next = rest.peek();
        match &token {
            // Not the type `fn()`.
            TokenTree::Ident(word) if word == "fn" => {
                in_signature |= matches!(next, Some(TokenTree::Ident(_)));
            }
            TokenTree::Punct(end) if end.as_char() == ';' => in_signature = false,
            TokenTree::Group(body)
                if in_signature && body.delimiter() == Delimiter::Brace && !is_generic(next) =>
            {
                in_signature = false;
                stub.push(with_tokens(body, TokenStream::new()));
                bodies.push(token);
                continue;
            }
            _ => {}
        }
        stub.push(token);
    }
    tokens.push(with_tokens(&block, stub.into_iter().collect()));
    Some((tokens.into_iter().collect(), bodies))
}

/// Returns whether a block is an argument of a type, `[u8; { N }]` or `Array<{ N }>`, by the token
/// after it.
fn is_generic(next: Option<&TokenTree>) -> bool {
    matches!(next, Some(TokenTree::Punct(next)) if matches!(next.as_char(), '>' | ','))
}

/// Returns the group with other tokens.
fn with_tokens(group: &Group, tokens: TokenStream) -> TokenTree {
    let mut changed = Group::new(group.delimiter(), tokens);
    changed.set_span(group.span());
    changed.into()
}

#[cfg(test)]
mod tests {
    use quote::ToTokens;

    use super::*;

    fn restored(item: &str) -> String {
        let tokens: TokenStream = item.parse().unwrap();
        let (item, bodies) = parse(&tokens).unwrap();
        let Item::Impl(mut item) = item else {
            panic!("not an impl")
        };
        bodies.restore(&mut item);
        item.to_token_stream().to_string()
    }

    fn without_spaces(text: &str) -> String {
        text.split_whitespace().collect()
    }

    #[test]
    fn an_impl_is_restored_as_it_was() {
        for item in [
            "impl S {}",
            "#[a] impl S { #![b] #[c] pub async fn f(&self) -> R { #![d] x } const N: u8 = { 3 }; }",
            "impl S { const F: fn(u8) -> u8 = { g }; fn f() -> Array<{ 3 }> { y } m! { fn x() {} } }",
            "impl S { fn f() -> impl Iterator<Item = u8> where [u8; { 3 }]: Copy { z } type T = u8; }",
            "impl S { default fn f() {} unsafe extern \"C\" fn g() { 1 } }",
        ] {
            let expected: TokenStream = item.parse().unwrap();
            // The spaces between punctuation depend on the source of the tokens.
            assert_eq!(
                without_spaces(&restored(item)),
                without_spaces(&expected.to_string())
            );
        }
    }

    #[test]
    fn a_body_may_have_a_syntax_error() {
        let item = "impl S { #[rpc] async fn f(&self) -> R { let = ; } fn g() { 1 + } }";
        let restored = restored(item);
        assert!(
            restored.contains("let = ;") && restored.contains("1 +"),
            "{restored}"
        );
    }

    #[test]
    fn markers_are_removed_without_parsing_the_impl() {
        let item = "impl S { #[rpc] async fn (&self); #[nameko::timer(5)] #[doc = \"x\"] fn f }";
        let without = without_markers(&item.parse().unwrap()).to_string();
        let expected: TokenStream = "impl S { async fn (&self); #[doc = \"x\"] fn f }"
            .parse()
            .unwrap();
        assert_eq!(without, expected.to_string());
    }
}
