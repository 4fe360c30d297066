//! `#[rpc_client("name")]`.

mod method;
mod options;

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{
    Attribute, Ident, Item, ItemTrait, ReturnType, TraitItem, Type, ext::IdentExt, parse_quote,
    spanned::Spanned,
};

use self::{
    method::{Method, make_future, plain_names},
    options::Options,
};
use crate::{entrypoint::conditions, errors::Errors};

pub(crate) fn expand(arguments: TokenStream, item: &TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let options = Options::parse(arguments, &mut errors);
    match syn::parse2(item.clone()) {
        Ok(Item::Trait(item)) => expand_trait(&options, item, errors),
        Ok(other) => {
            errors.push(syn::Error::new(
                keyword(&other),
                "`#[rpc_client(\"...\")]` belongs on a trait with the service's methods: `trait ServiceY { async fn f(&self) -> Result<()>; }`",
            ));
            quote!(#errors #item)
        }
        Err(error) => {
            errors.push(error);
            quote!(#errors #item)
        }
    }
}

/// Returns the span of an item's keyword, after its attributes and visibility.
fn keyword(item: &Item) -> Span {
    match item {
        Item::Struct(item) => item.struct_token.span,
        Item::Enum(item) => item.enum_token.span,
        Item::Fn(item) => item.sig.fn_token.span,
        Item::Impl(item) => item.impl_token.span,
        Item::Mod(item) => item.mod_token.span,
        other => other.span(),
    }
}

fn expand_trait(options: &Options, mut item: ItemTrait, mut errors: Errors) -> TokenStream {
    check_trait(&item, &mut errors);
    let others = item
        .items
        .extract_if(.., |member| !matches!(member, TraitItem::Fn(_)));
    for other in others {
        errors.add(other, "a client's trait may contain only methods");
    }
    let mut methods = Vec::new();
    for member in &mut item.items {
        if let TraitItem::Fn(method) = member {
            methods.extend(Method::parse(options, method, &mut errors));
            make_future(method);
            plain_names(method);
        }
    }
    if !item.generics.params.is_empty() {
        return quote!(#item #errors);
    }
    // Required for mocks behind `Arc<dyn ..>`.
    item.supertraits.push(parse_quote!(::core::marker::Send));
    item.supertraits.push(parse_quote!(::core::marker::Sync));
    item.supertraits.push(parse_quote!('static));
    item.colon_token.get_or_insert_default();
    let client = Client {
        options,
        name: match &options.client {
            Some(name) => name.clone(),
            None => format_ident!("{}Client", item.ident.unraw(), span = item.ident.span()),
        },
        item: &item,
        conditions: conditions(&item.attrs),
        methods: &methods,
        is_valid: errors.is_empty(),
    };
    quote!(#item #errors #client)
}

/// Checks the trait, except for its methods.
fn check_trait(item: &ItemTrait, errors: &mut Errors) {
    if let Some(unsafety) = &item.unsafety {
        errors.add(unsafety, "a client's trait cannot be `unsafe`");
    }
    if let Some(auto) = &item.auto_token {
        errors.add(auto, "a client's trait has methods: remove `auto`");
    }
    if !item.generics.params.is_empty() {
        errors.add(
            &item.generics,
            "a client's trait cannot be generic: use concrete types",
        );
    }
}

/// The client's struct and its impls.
struct Client<'a> {
    options: &'a Options,
    name: Ident,
    item: &'a ItemTrait,
    conditions: Vec<Attribute>,
    methods: &'a [Method],
    /// Whether there were no errors.
    is_valid: bool,
}

impl ToTokens for Client<'_> {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        let Self {
            options,
            name,
            item,
            conditions,
            ..
        } = self;
        let (vis, methods, service) = (&item.vis, &item.ident, &options.service);
        let about =
            format!("Client of the service `{service}`, with the methods of [`{methods}`].");
        let erased = format_ident!("__{}Mock", methods.unraw(), span = Span::mixed_site());
        let mixed = Span::mixed_site();
        let declared = self.valid_methods().map(|method| method.erased(methods).0);
        let forwarded = self.valid_methods().map(|method| method.erased(methods).1);
        let implementation = self.implementation(&erased);
        tokens.extend(quote_spanned! {mixed=>
            #(#conditions)*
            #[doc = #about]
            #[derive(::core::clone::Clone, ::core::fmt::Debug)]
            #vis struct #name {
                target: ::nameko::private::Target,
            }

            #(#conditions)*
            #[allow(clippy::too_many_arguments, deprecated)]
            const _: () = {
                /// Object-safe version of the trait.
                trait #erased: ::core::marker::Send + ::core::marker::Sync {
                    #(#declared)*
                }

                impl<__M: #methods> #erased for __M {
                    #(#forwarded)*
                }

                impl #name {
                    /// Injects the client: `#[dependency(..::provider())]`. Has the options of
                    /// `RpcProxy`.
                    #vis fn provider() -> ::nameko::RpcProxy<Self> {
                        ::nameko::RpcProxy::new(#service).client()
                    }

                    /// Returns a client that calls `mock` instead of the service, for tests.
                    #vis fn mock(mock: impl #methods) -> Self {
                        let mock: ::std::sync::Arc<dyn #erased> = ::std::sync::Arc::new(mock);
                        Self { target: ::nameko::private::Target::mock(mock) }
                    }

                    /// Returns this client with another timeout, or `None` for no timeout:
                    /// `client.with_timeout(SECOND).method(..)`.
                    #vis fn with_timeout(
                        &self,
                        timeout: impl ::core::convert::Into<::core::option::Option<::core::time::Duration>>,
                    ) -> Self {
                        Self { target: self.target.with_timeout(timeout) }
                    }

                    /// Returns this client with additional context data for its calls:
                    /// `client.with_context("tenant", 7).method(..)`.
                    #vis fn with_context(
                        &self,
                        key: impl ::core::convert::Into<::std::string::String>,
                        value: impl ::core::convert::Into<::nameko::amqp::Value>,
                    ) -> Self {
                        Self { target: self.target.with_context(key, value) }
                    }
                }

                impl ::core::convert::From<::nameko::ServiceProxy> for #name {
                    fn from(proxy: ::nameko::ServiceProxy) -> Self {
                        Self { target: ::nameko::private::Target::Service(proxy) }
                    }
                }

                impl ::nameko::RpcClient for #name {
                    const SERVICE: &'static str = #service;
                }

                #implementation
            };
        });
    }
}

impl Client<'_> {
    /// Returns the methods, or none after an error.
    fn valid_methods(&self) -> impl Iterator<Item = &Method> {
        self.methods.iter().filter(|_| self.is_valid)
    }

    /// Generates the client's methods, or placeholders after an error, to avoid follow-up errors.
    fn implementation(&self, erased: &Ident) -> TokenStream {
        let (name, methods) = (&self.name, &self.item.ident);
        let bodies: Vec<_> = match self.is_valid {
            true => self
                .methods
                .iter()
                .map(|method| method.implement(self.options, erased))
                .collect(),
            false => self.item.items.iter().filter_map(placeholder).collect(),
        };
        quote_spanned! {Span::mixed_site()=>
            #[automatically_derived]
            impl #methods for #name {
                #(#bodies)*
            }
        }
    }
}

/// Generates a placeholder of a method.
fn placeholder(item: &TraitItem) -> Option<TokenStream> {
    let TraitItem::Fn(method) = item else {
        return None;
    };
    if method.default.is_some() {
        return None;
    }
    let (sig, conditions) = (&method.sig, conditions(&method.attrs));
    let body = match &sig.output {
        ReturnType::Type(_, output) if matches!(**output, Type::ImplTrait(_)) => {
            quote!(async { ::core::unreachable!() })
        }
        _ => quote!(::core::unreachable!()),
    };
    Some(quote!(#(#conditions)* #[allow(unused_variables)] #sig { #body }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errors::messages;

    fn errors(arguments: &str, item: &str) -> Vec<String> {
        messages(expand(arguments.parse().unwrap(), &item.parse().unwrap()))
    }

    fn method_errors(method: &str) -> Vec<String> {
        errors("\"s\"", &format!("trait S {{ {method} }}"))
    }

    #[test]
    fn each_rule_for_methods_is_one_error() {
        for method in [
            "fn f(&self) -> Result<()>;",
            "async fn f(self) -> Result<()>;",
            "async fn f(&mut self) -> Result<()>;",
            "async fn f() -> Result<()>;",
            "async fn f(&self);",
            "async fn f(&self) -> Result<()> { Ok(()) }",
            "async fn f(&self, a: &str) -> Result<()>;",
            "async fn f(&self, a: Cow<'_, str>) -> Result<()>;",
            "async fn f(&self, a: impl Send) -> Result<()>;",
            "async fn f(&self, _: u8) -> Result<()>;",
            "async fn f(&self) -> Result<&str>;",
            "async fn f(&self) -> Result<impl Send>;",
            "async fn f<T>(&self, a: T) -> Result<()>;",
            "async unsafe fn f(&self) -> Result<()>;",
            "async extern \"C\" fn f(&self) -> Result<()>;",
            "async fn with_timeout(&self) -> Result<()>;",
            "async fn with_context(&self) -> Result<()>;",
            "const X: u8;",
            "type T;",
        ] {
            let found = method_errors(method);
            assert_eq!(found.len(), 1, "{method}: {found:#?}");
        }
    }

    #[test]
    fn service_and_client_names_are_parsed() {
        for arguments in [
            "\"s\"",
            "\"s\",",
            "\"s\", client = C",
            "\"s\", positional, client = C,",
        ] {
            assert_eq!(errors(arguments, "trait S {}"), [""; 0], "{arguments}");
        }
        for arguments in [
            "",
            "s",
            "1",
            "\"a.b\"",
            "client = C",
            "\"s\" positional",
            "\"s\", client",
            "\"s\", client = \"C\"",
            "\"s\", timeout = 5",
            "\"s\", 5",
        ] {
            let found = errors(arguments, "trait S {}");
            assert_eq!(found.len(), 1, "{arguments}: {found:#?}");
        }
    }

    #[test]
    fn only_plain_traits_are_clients() {
        for item in [
            "struct S;",
            "impl S {}",
            "fn f() {}",
            "unsafe trait S {}",
            "auto trait S {}",
            "trait S<T> {}",
        ] {
            assert_eq!(errors("\"s\"", item).len(), 1, "{item}");
        }
    }

    #[test]
    fn all_errors_are_reported_at_once() {
        let found = errors(
            "\"a.b\", unknown",
            "unsafe trait S { fn f(a: &str); async fn g<T>(&self, _: T) -> Result<&str>; const X: u8; }",
        );
        assert_eq!(found.len(), 11, "{found:#?}");
    }

    #[test]
    fn the_length_of_routing_keys_is_checked() {
        let name = format!("{:?}", "s".repeat(200));
        let item = |length| format!("trait S {{ async fn {}(&self) -> R; }}", "f".repeat(length));
        assert_eq!(errors(&name, &item(54)), [""; 0]);
        assert_eq!(errors(&name, &item(55)).len(), 1);
    }

    #[test]
    fn names_on_the_wire_have_no_raw_prefix() {
        let item = "trait S { async fn r#match(&self, r#type: Option<u8>, x: u8) -> R; }";
        let expansion = expand("\"s\"".parse().unwrap(), &item.parse().unwrap()).to_string();
        assert!(expansion.contains("\"match\""), "{expansion}");
        for name in ["type", "x"] {
            let with = format!("with (arguments , \"{name}\"");
            assert!(expansion.contains(&with), "{expansion}");
        }
    }
}
