//! `#[service("name")]`.

use std::collections::HashSet;

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};
use quote::{quote, quote_spanned};
use syn::{
    Attribute, Expr, ExprArray, Ident, ImplItem, Item, ItemImpl, Lit, LitStr, Token, Type,
    parse::{ParseStream, Parser},
    spanned::Spanned,
};

use crate::{
    bodies::{self, Bodies},
    entrypoint::Entrypoint,
    errors::Errors,
};

/// Maximum length of a service's name. Leaves room for the method in a routing key and for the
/// prefixes of queue names.
const MAX_NAME_BYTES: usize = 200;

pub(crate) fn expand(arguments: TokenStream, item: &TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let header = Header::of(arguments, &mut errors);
    match bodies::parse(item) {
        Ok((Item::Impl(item), bodies)) => expand_impl(&header, item, bodies, errors),
        Ok((other, _)) => {
            reject(&other, &mut errors);
            quote!(#errors #item)
        }
        Err(error) => {
            errors.push(error);
            let placeholder = placeholder(item);
            let item = bodies::without_markers(item);
            quote!(#errors #item #placeholder)
        }
    }
}

/// Generates a placeholder impl for an impl with a syntax error, to avoid follow-up errors.
fn placeholder(item: &TokenStream) -> Option<TokenStream> {
    let mut tokens = item.clone().into_iter();
    tokens.find(|token| matches!(token, TokenTree::Ident(word) if word == "impl"))?;
    let is_block = |token: &TokenTree| matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace);
    let service: TokenStream = tokens.take_while(|token| !is_block(token)).collect();
    let service: Type = syn::parse2(service).ok()?;
    Some(quote! {
        #[automatically_derived]
        impl ::nameko::Service for #service {
            const NAME: &'static str = "";

            fn entrypoints(_: &mut ::nameko::Entrypoints<Self>) {
                ::core::unreachable!()
            }
        }
    })
}

fn expand_impl(
    header: &Header,
    mut item: ItemImpl,
    bodies: Bodies,
    mut errors: Errors,
) -> TokenStream {
    let mut found = Errors::default();
    let mut entrypoints = Vec::new();
    let mut names = HashSet::new();
    let service = (header.name.as_str(), &*item.self_ty);
    for method in &mut item.items {
        let ImplItem::Fn(method) = method else {
            continue;
        };
        let Some(entrypoint) = Entrypoint::extract(service, method, &mut found) else {
            continue;
        };
        // Methods under different conditions may share a name.
        if entrypoint.conditions.is_empty() && !names.insert(entrypoint.name.clone()) {
            found.add(
                &method.sig.ident,
                format!(
                    "duplicate entrypoint `{}`: callers identify methods by name",
                    entrypoint.name
                ),
            );
        }
        entrypoints.push(entrypoint);
    }
    check_impl(&item, &mut errors);
    bodies.restore(&mut item);
    if item.trait_.is_some() {
        // The trait defines the methods, so their errors as entrypoints are irrelevant.
        return quote!(#item #errors);
    }
    errors.append(found);
    if !errors.is_empty() {
        entrypoints.clear();
    }
    let is_concrete = item.generics.params.is_empty();
    let implementation = is_concrete.then(|| implementation(header, &item, &entrypoints));
    quote!(#item #errors #implementation)
}

fn implementation(header: &Header, item: &ItemImpl, entrypoints: &[Entrypoint]) -> TokenStream {
    let Header { name, layers } = header;
    let service: &Type = &item.self_ty;
    let conditions = item
        .attrs
        .iter()
        .filter(|attribute: &&Attribute| attribute.path().is_ident("cfg"));
    let mixed = Span::mixed_site();
    let list = if entrypoints.is_empty() {
        quote!(_)
    } else {
        quote_spanned!(mixed=> entrypoints)
    };
    let layers = (!layers.is_empty()).then(|| {
        quote_spanned! {mixed=>
            fn layers(layers: &mut ::nameko::Layers) {
                #(::nameko::Layers::add(layers, #layers);)*
            }
        }
    });
    quote_spanned! {mixed=>
        #(#conditions)*
        #[automatically_derived]
        #[allow(deprecated)]
        impl ::nameko::Service for #service {
            const NAME: &'static str = #name;

            fn entrypoints(#list: &mut ::nameko::Entrypoints<Self>) {
                #(#entrypoints)*
            }

            #layers
        }
    }
}

/// The arguments of `#[service("name", layers = [...])]`.
#[derive(Default)]
struct Header {
    /// Empty after an error.
    name: String,
    layers: Vec<Expr>,
}

impl Header {
    /// Parses the arguments. Returns the default after an error.
    fn of(arguments: TokenStream, errors: &mut Errors) -> Self {
        if arguments.is_empty() {
            errors.push(syn::Error::new(
                Span::call_site(),
                "write the service's name: `#[service(\"name\")]`",
            ));
            return Self::default();
        }
        match Self::parse.parse2(arguments) {
            Ok((name, layers)) => {
                check_name(&name, errors);
                Self {
                    name: name.value(),
                    layers,
                }
            }
            Err(error) => {
                errors.push(error);
                Self::default()
            }
        }
    }

    fn parse(input: ParseStream<'_>) -> syn::Result<(LitStr, Vec<Expr>)> {
        const ADVICE: &str =
            "expected the service's name, as a string literal: `#[service(\"name\")]`";
        let whole = input.fork().parse::<TokenStream>()?;
        let name = match input.parse() {
            Ok(Lit::Str(name)) => name,
            Ok(other) => return Err(syn::Error::new_spanned(other, ADVICE)),
            Err(_) => {
                input.parse::<TokenStream>()?;
                return Err(syn::Error::new_spanned(whole, ADVICE));
            }
        };
        let comma = input.parse::<Option<Token![,]>>()?;
        let rest = input.parse::<TokenStream>()?;
        if rest.is_empty() {
            return Ok((name, Vec::new()));
        }
        let layers = comma.and_then(|_| Self::layers.parse2(rest.clone()).ok());
        layers.map(|layers| (name, layers)).ok_or_else(|| {
            let advice = "after the service's name, only `layers = [LAYER, ...]` may follow";
            syn::Error::new_spanned(rest, advice)
        })
    }

    /// Parses `layers = [LAYER, ...]`.
    fn layers(input: ParseStream<'_>) -> syn::Result<Vec<Expr>> {
        let key: Ident = input.parse()?;
        if key != "layers" {
            return Err(input.error("unknown argument"));
        }
        input.parse::<Token![=]>()?;
        let list: ExprArray = input.parse()?;
        input.parse::<Option<Token![,]>>()?;
        Ok(list.elems.into_iter().collect())
    }
}

/// Checks that a service's name is one word of a routing key.
pub(crate) fn check_name(literal: &LitStr, errors: &mut Errors) {
    let name = literal.value();
    if name.is_empty() {
        errors.add(literal, "the service's name must not be empty");
    }
    if let Some(wrong) = name
        .chars()
        .find(|&c| matches!(c, '.' | '*' | '#') || c.is_whitespace() || c.is_control())
    {
        errors.add(
            literal,
            format!("a service's name cannot contain {wrong:?}: it is one word of a routing key, such as `order_service`"),
        );
    }
    if name.len() > MAX_NAME_BYTES {
        errors.add(
            literal,
            format!(
                "the service's name has {} bytes, more than the maximum of {MAX_NAME_BYTES}",
                name.len()
            ),
        );
    }
}

/// Checks the impl, except for its items.
fn check_impl(item: &ItemImpl, errors: &mut Errors) {
    if let Some((_, path, _)) = &item.trait_ {
        errors.add(
            path,
            "`#[service(\"...\")]` belongs on an inherent impl: write `impl ServiceX`, not `impl Trait for ServiceX`",
        );
    }
    if !item.generics.params.is_empty() {
        errors.add(
            &item.generics,
            "a service cannot be generic: a container runs it by its name; use concrete types",
        );
    }
}

/// Reports an item that is not an impl.
fn reject(item: &Item, errors: &mut Errors) {
    let message = "`#[service(\"...\")]` belongs on the impl with the entrypoints: `#[service(\"name\")] impl ServiceX { .. }`";
    match item {
        Item::Struct(item) => errors.add(
            item.struct_token,
            format!(
                "`#[service(\"...\")]` belongs on `impl {0} {{ .. }}`; the struct takes `#[derive(Dependencies)]`",
                item.ident
            ),
        ),
        Item::Fn(item) => errors.add(item.sig.fn_token, message),
        Item::Trait(item) => errors.add(item.trait_token, message),
        Item::Mod(item) => errors.add(item.mod_token, message),
        Item::Enum(item) => errors.add(item.enum_token, message),
        other => errors.push(syn::Error::new(other.span(), message)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errors::messages;

    fn service(arguments: &str, item: &str) -> TokenStream {
        expand(arguments.parse().unwrap(), &item.parse().unwrap())
    }

    fn errors(arguments: &str, item: &str) -> Vec<String> {
        messages(service(arguments, item))
    }

    fn method_errors(method: &str) -> Vec<String> {
        errors("\"s\"", &format!("impl S {{ {method} }}"))
    }

    #[test]
    fn a_name_is_one_word_of_a_routing_key() {
        for name in [
            "s",
            "order_service",
            "order-service",
            "höflich",
            &"x".repeat(200),
        ] {
            assert_eq!(errors(&format!("{name:?}"), "impl S {}"), [""; 0], "{name}");
        }
        for name in [
            "",
            "a.b",
            "*",
            "a#",
            "a b",
            "a\tb",
            "a\0b",
            &"x".repeat(201),
        ] {
            assert_eq!(errors(&format!("{name:?}"), "impl S {}").len(), 1, "{name}");
        }
    }

    #[test]
    fn only_a_string_literal_is_accepted_as_the_name() {
        for arguments in [
            "",
            "NAME",
            "1",
            "b\"s\"",
            "name = \"s\"",
            "\"s\", 1",
            "\"s\" \"t\"",
            "\"s\", layers",
            "\"s\", layers = A",
            "\"s\" layers = [A]",
            "\"s\", layers = [A], 1",
            "\"s\", layer = [A]",
        ] {
            assert_eq!(errors(arguments, "impl S {}").len(), 1, "{arguments}");
        }
        for arguments in ["\"s\",", "\"s\", layers = []", "\"s\", layers = [A, B(1)],"] {
            assert_eq!(errors(arguments, "impl S {}"), [""; 0], "{arguments}");
        }
    }

    #[test]
    fn only_inherent_impls_without_generics_are_services() {
        for item in [
            "struct S;",
            "fn f() {}",
            "enum E {}",
            "trait T {}",
            "mod m {}",
            "const C: u8 = 1;",
            "impl T for S {}",
            "impl<T> S<T> {}",
        ] {
            assert_eq!(errors("\"s\"", item).len(), 1, "{item}");
        }
        assert_eq!(errors("\"s\"", "impl S<u8> {}"), [""; 0]);
    }

    #[cfg(all(feature = "cron", feature = "websocket"))]
    #[test]
    fn each_rule_for_entrypoints_is_one_error() {
        for method in [
            "#[rpc] fn f(&self) -> Result<()> {}",
            "#[rpc] async fn f(self) -> Result<()> {}",
            "#[rpc] async fn f(&mut self) -> Result<()> {}",
            "#[rpc] async fn f(self: Arc<Self>) -> Result<()> {}",
            "#[rpc] async fn f() -> Result<()> {}",
            "#[rpc] async fn f(&self) {}",
            "#[rpc] async fn f(&self, a: &str) -> Result<()> {}",
            "#[rpc] async fn f(&self, a: impl Send) -> Result<()> {}",
            "#[rpc] async fn f(&self) -> Result<&str> {}",
            "#[rpc] async fn f<T>(&self, a: T) -> Result<()> {}",
            "#[rpc] async fn f<'a>(&self) -> Result<()> {}",
            "#[rpc] async fn f(&self, (a, b): (u8, u8)) -> Result<()> {}",
            "#[rpc] async fn f(&self, _: u8) -> Result<()> {}",
            "#[rpc] async fn f(&self, ref a: u8) -> Result<()> {}",
            "#[rpc] async unsafe fn f(&self) -> Result<()> {}",
            "#[rpc] async extern \"C\" fn f(&self) -> Result<()> {}",
            "#[rpc] #[rpc] async fn f(&self) -> Result<()> {}",
            "#[rpc(x)] async fn f(&self) -> Result<()> {}",
            "#[rpc(sensitive_arguments(\"b\"))] async fn f(&self, a: u8) -> Result<()> {}",
            "#[rpc(sensitive_arguments(\"b.a\"))] async fn f(&self, a: u8) -> Result<()> {}",
            "#[cfg_attr(x, rpc)] async fn f(&self) -> Result<()> {}",
            "#[timer(5)] async fn f(&self, a: u8) -> Result<()> {}",
            "#[cron(\"* * * * *\")] async fn f(&self, a: u8, b: u8) -> Result<()> {}",
            "#[event_handler(\"a\", \"b\")] async fn f(&self) -> Result<()> {}",
            "#[event_handler(\"a\", \"b\")] async fn f(&self, a: u8, b: u8) -> Result<()> {}",
            "#[consume(Q)] async fn f(&self) -> Result<()> {}",
            "#[websocket_rpc] async fn f(&self) -> Result<()> {}",
            "#[websocket_rpc] #[websocket_rpc] async fn f(&self, a: u8) -> Result<()> {}",
            "#[rpc] async fn f(&self) -> Result<()> {} #[rpc] async fn f(&self) -> Result<()> {}",
        ] {
            assert_eq!(
                method_errors(method).len(),
                1,
                "{method}: {:#?}",
                method_errors(method)
            );
        }
    }

    #[test]
    fn all_errors_are_reported_at_once() {
        let found = errors(
            "\"a.b\"",
            "impl<T> S<T> { #[rpc] fn f(self, a: &str, _: u8) {} #[rpc] fn g(&self) {} }",
        );
        assert_eq!(found.len(), 9, "{found:#?}");
    }

    #[cfg(all(feature = "cron", feature = "websocket"))]
    #[test]
    fn a_method_may_be_several_entrypoints() {
        for method in [
            "#[rpc] #[timer(5)] async fn f(&self) -> Result<()> {}",
            "#[event_handler(\"a\", \"b\")] #[event_handler(\"a\", \"c\")] async fn f(&self, a: u8) -> Result<()> {}",
            "#[rpc] #[timer(5)] async fn f(&self, a: Option<u8>) -> Result<()> {}",
            "#[http(GET, \"/{a}\")] #[rpc] async fn f(&self, a: u8) -> Result<()> {}",
        ] {
            assert_eq!(method_errors(method), [""; 0], "{method}");
        }
    }

    #[test]
    fn unmarked_methods_are_ignored() {
        assert_eq!(
            method_errors("fn f(self, a: &str) {} const X: u8 = 1; #[other::rpc] fn g() {}"),
            [""; 0]
        );
    }

    #[test]
    fn impls_with_errors_are_emitted_without_markers() {
        let expansion = service(
            "\"s\"",
            "impl S { #[doc = \"d\"] #[rpc] #[instrument] fn f(self) {} }",
        )
        .to_string();
        assert!(
            expansion.starts_with("impl S { # [doc = \"d\"] # [instrument] # [allow"),
            "{expansion}"
        );
        assert!(!expansion.contains("# [rpc]"), "{expansion}");
        assert!(
            expansion.contains("impl :: nameko :: Service for S"),
            "{expansion}"
        );
    }

    #[test]
    fn markers_are_recognized_by_their_path() {
        for marker in [
            "rpc",
            "nameko::rpc",
            "::nameko::rpc",
            "nameko::prelude::rpc",
        ] {
            let expansion = service(
                "\"s\"",
                &format!("impl S {{ #[{marker}] async fn f(&self) -> R {{}} }}"),
            )
            .to_string();
            assert!(expansion.contains("method (\"f\""), "{marker}: {expansion}");
        }
    }

    #[test]
    fn names_on_the_wire_have_no_raw_prefix() {
        let expansion = service(
            "\"s\"",
            "impl S { #[rpc] async fn r#match(&self, r#type: Option<u8>, mut x: u8) -> R {} }",
        )
        .to_string();
        assert!(expansion.contains("\"match\""), "{expansion}");
        assert!(expansion.contains("optional (\"type\")"), "{expansion}");
        assert!(expansion.contains("required (\"x\")"), "{expansion}");
    }

    #[test]
    fn conditional_methods_may_share_a_name() {
        let methods = "#[cfg(a)] #[rpc] async fn f(&self) -> R {} #[cfg(not(a))] #[rpc] async fn f(&self) -> R {}";
        assert_eq!(method_errors(methods), [""; 0]);
    }

    #[test]
    fn the_length_of_routing_keys_is_checked() {
        let method = |length| {
            format!(
                "impl S {{ #[rpc] async fn {}(&self) -> R {{}} }}",
                "f".repeat(length)
            )
        };
        let name = format!("{:?}", "s".repeat(200));
        assert_eq!(errors(&name, &method(54)), [""; 0]);
        assert_eq!(errors(&name, &method(55)).len(), 1);
    }
}
