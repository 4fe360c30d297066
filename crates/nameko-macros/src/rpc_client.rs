//! `#[rpc_client("name")]`.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{
    Attribute, FnArg, Ident, Item, ItemTrait, LitStr, Pat, ReturnType, Token, TraitItem,
    TraitItemFn, Type,
    ext::IdentExt,
    parse::{ParseStream, Parser},
    parse_quote,
    spanned::Spanned,
};

use crate::{
    entrypoint::{LONGEST_ROUTING_KEY, conditions, is_self, is_shared_self},
    errors::Errors,
    owned, service,
    spans::Place,
};

/// What the client has itself, beside the methods of the service.
const OWN_METHOD: &str = "with_timeout";

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

/// Where an item begins, beside its attributes and its visibility.
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

/// What stands in the parentheses.
struct Options {
    /// The service's name.
    service: String,
    /// The name of the client's struct.
    client: Option<Ident>,
    /// Whether arguments are passed by their position.
    positional: bool,
}

impl Options {
    fn parse(arguments: TokenStream, errors: &mut Errors) -> Self {
        let mut options = Self {
            service: String::new(),
            client: None,
            positional: false,
        };
        if arguments.is_empty() {
            errors.push(syn::Error::new(
                Span::call_site(),
                "write the name of the service that is called: `#[rpc_client(\"service_y\")]`",
            ));
            return options;
        }
        let parse = |input: ParseStream<'_>| {
            options.read(input, errors);
            // What is left after an error was reported is not looked at.
            input.parse::<TokenStream>()
        };
        if let Err(error) = parse.parse2(arguments) {
            errors.push(error);
        }
        options
    }

    fn read(&mut self, input: ParseStream<'_>, errors: &mut Errors) {
        match input.parse::<LitStr>() {
            Ok(name) => {
                service::check_name(&name, errors);
                self.service = name.value();
            }
            Err(error) => {
                let message = "the name of the service comes first, as a string literal: `#[rpc_client(\"service_y\")]`";
                return errors.push(syn::Error::new(error.span(), message));
            }
        }
        while !input.is_empty() {
            if let Err(error) = self.read_option(input) {
                return errors.push(error);
            }
        }
    }

    fn read_option(&mut self, input: ParseStream<'_>) -> syn::Result<()> {
        const KNOWN: &str = "the options are `client = Name` and `positional`";
        input.parse::<Token![,]>()?;
        if input.is_empty() {
            return Ok(());
        }
        let option: Ident = input
            .call(Ident::parse_any)
            .map_err(|error| syn::Error::new(error.span(), KNOWN))?;
        match option.to_string().as_str() {
            "positional" => self.positional = true,
            "client" => {
                input
                    .parse::<Token![=]>()
                    .map_err(|_| syn::Error::new_spanned(&option, "write `client = Name`"))?;
                self.client = Some(input.parse().map_err(|error| {
                    syn::Error::new(
                        error.span(),
                        "the client's name is one word: `client = Name`",
                    )
                })?);
            }
            other => {
                return Err(syn::Error::new_spanned(
                    &option,
                    format!("there is no option `{other}`: {KNOWN}"),
                ));
            }
        }
        Ok(())
    }
}

fn expand_trait(options: &Options, mut item: ItemTrait, mut errors: Errors) -> TokenStream {
    check_trait(&item, &mut errors);
    let others = item
        .items
        .extract_if(.., |member| !matches!(member, TraitItem::Fn(_)));
    for other in others {
        errors.add(
            other,
            "a client's trait has the methods of the service and nothing else",
        );
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
    // So that a mock can stand where the client does.
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
        is_sound: errors.is_empty(),
    };
    quote!(#item #errors #client)
}

/// The rules for the trait, save for its methods.
fn check_trait(item: &ItemTrait, errors: &mut Errors) {
    if let Some(unsafety) = &item.unsafety {
        errors.add(
            unsafety,
            "a client's trait cannot be `unsafe`: anybody may mock it",
        );
    }
    if let Some(auto) = &item.auto_token {
        errors.add(auto, "a client's trait has methods: remove `auto`");
    }
    if !item.generics.params.is_empty() {
        errors.add(
            &item.generics,
            "a client's trait cannot be generic: write the types that messages are read into",
        );
    }
}

/// A method of the trait.
struct Method {
    /// The name on the wire.
    name: String,
    ident: Ident,
    conditions: Vec<Attribute>,
    params: Vec<Param>,
    output: Type,
}

struct Param {
    /// The name on the wire.
    name: String,
    conditions: Vec<Attribute>,
    ty: Type,
}

impl Method {
    /// `None` where there is nothing to make a method of the client of; what is wrong is in `errors`.
    fn parse(options: &Options, method: &TraitItemFn, errors: &mut Errors) -> Option<Self> {
        let sig = &method.sig;
        let name = sig.ident.unraw().to_string();
        check_method(options, method, &name, errors);
        let params = sig.inputs.iter().filter_map(|input| match input {
            FnArg::Typed(param) if !is_self(&param.pat) => Param::parse(param, errors),
            _ => None,
        });
        let params = params.collect();
        let output = match &sig.output {
            ReturnType::Type(_, output) => {
                owned::check_result(output, errors);
                (**output).clone()
            }
            ReturnType::Default => {
                let advice = format!(
                    "return `Result<T, E>` from `{name}`, or `Result<()>`: a call can fail"
                );
                errors.add(&sig.ident, advice);
                return None;
            }
        };
        Some(Self {
            name,
            ident: sig.ident.clone(),
            conditions: conditions(&method.attrs),
            params,
            output,
        })
    }

    /// The call of the service.
    fn call(&self, options: &Options) -> TokenStream {
        let Self {
            name,
            params,
            output,
            ..
        } = self;
        let given = params
            .iter()
            .enumerate()
            .map(|(index, param)| param.give(index));
        let mixed = Span::mixed_site();
        let order = match options.positional {
            true => quote_spanned!(mixed=> ByPosition),
            false => quote_spanned!(mixed=> ByName),
        };
        // A result or an error that cannot be made of a reply is reported at the return type.
        let place = Place::of(output);
        let answer = quote_spanned!(place.first=> ::nameko::private::answer);
        let result = quote_spanned!(place.last=> (result));
        quote_spanned! {mixed=>
            let arguments = ();
            #(#given)*
            let arguments = ::nameko::private::#order(arguments);
            let result = self.target.ask(#name, arguments).await;
            #answer::<#output> #result
        }
    }
}

impl Param {
    fn parse(param: &syn::PatType, errors: &mut Errors) -> Option<Self> {
        let Pat::Ident(pat) = &*param.pat else {
            errors.add(
                &param.pat,
                "write a name: the service knows the argument by it",
            );
            return None;
        };
        let name = pat.ident.unraw().to_string();
        owned::check_argument(&name, &param.ty, "a call owns its arguments", errors);
        Some(Self {
            name,
            conditions: conditions(&param.attrs),
            ty: (*param.ty).clone(),
        })
    }

    /// Declares it.
    fn declare(&self, index: usize) -> TokenStream {
        let Self { conditions, ty, .. } = self;
        let variable = variable(index);
        quote_spanned!(Span::mixed_site()=> #(#conditions)* #variable: #ty)
    }

    /// Adds it to the arguments of the call.
    fn give(&self, index: usize) -> TokenStream {
        let Self {
            conditions,
            name,
            ty,
        } = self;
        let variable = variable(index);
        // A type that cannot be sent is reported there.
        let place = Place::of(ty);
        let given = match owned::is_option(ty) {
            true => quote_spanned!(place.first=> ::nameko::private::given_some),
            false => quote_spanned!(place.first=> ::nameko::private::given::<#ty>),
        };
        let value = quote_spanned!(place.last=> (#variable));
        quote_spanned! {Span::mixed_site()=>
            #(#conditions)*
            let arguments = ::nameko::private::ArgumentList::with(arguments, #name, #given #value);
        }
    }

    /// Passes it on.
    fn pass(&self, index: usize) -> TokenStream {
        let conditions = &self.conditions;
        let variable = variable(index);
        quote_spanned!(Span::mixed_site()=> #(#conditions)* #variable)
    }
}

/// The variable that holds an argument.
fn variable(index: usize) -> Ident {
    format_ident!("arg{index}", span = Span::mixed_site())
}

/// The rules for a method, save for its arguments and what it returns.
fn check_method(options: &Options, method: &TraitItemFn, name: &str, errors: &mut Errors) {
    let sig = &method.sig;
    if options.service.len() + 1 + name.len() > LONGEST_ROUTING_KEY {
        errors.add(
            &sig.ident,
            format!(
                "this name is too long: with `{}.` before it, it is a routing key of at most {LONGEST_ROUTING_KEY} bytes",
                options.service
            ),
        );
    }
    if name == OWN_METHOD {
        errors.add(
            &sig.ident,
            format!("the client has a `{name}` of its own: call this method by a `ServiceProxy`"),
        );
    }
    if let Some(body) = &method.default {
        errors.add(
            body,
            format!("write `;`: what `{name}` does is the service's"),
        );
    }
    if sig.asyncness.is_none() {
        errors.add(
            sig.fn_token,
            format!("write `async fn {}`: a call waits for its reply", sig.ident),
        );
    }
    if let Some(unsafety) = &sig.unsafety {
        errors.add(unsafety, "a call is not `unsafe`");
    }
    if let Some(abi) = &sig.abi {
        errors.add(abi, "a call goes through the broker: remove `extern`");
    }
    if !sig.generics.params.is_empty() {
        errors.add(
            &sig.generics,
            "a client's method cannot be generic: write the types that messages are read into",
        );
    }
    match sig.inputs.first() {
        Some(FnArg::Receiver(receiver)) if is_shared_self(receiver) => {}
        Some(FnArg::Receiver(receiver)) => {
            errors.add(receiver, "a client is shared; take `&self`");
        }
        _ => errors.add(&sig.ident, "a client is shared; take `&self`"),
    }
}

/// `async fn f() -> T` as what it stands for, with a future that can be sent to another thread.
fn make_future(method: &mut TraitItemFn) {
    let Some(asyncness) = method.sig.asyncness.take() else {
        return;
    };
    let output = match &method.sig.output {
        ReturnType::Type(_, output) => output.to_token_stream(),
        ReturnType::Default => quote!(()),
    };
    let span = asyncness.span.resolved_at(Span::mixed_site());
    let future = quote_spanned! {span=>
        impl ::core::future::Future<Output = #output> + ::core::marker::Send
    };
    method.sig.output = parse_quote!(-> #future);
    if let Some(body) = method.default.take() {
        method.default = Some(parse_quote!({ async move #body }));
    }
}

/// Puts `_` in the place of patterns, which were reported: the compiler would do so again.
fn plain_names(method: &mut TraitItemFn) {
    for input in &mut method.sig.inputs {
        if let FnArg::Typed(param) = input
            && !matches!(*param.pat, Pat::Ident(_))
        {
            *param.pat = parse_quote!(_);
        }
    }
}

/// The client's struct, and what it implements.
struct Client<'a> {
    options: &'a Options,
    name: Ident,
    item: &'a ItemTrait,
    conditions: Vec<Attribute>,
    methods: &'a [Method],
    /// Whether no error was found.
    is_sound: bool,
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
            format!("Calls the service `{service}`: its methods are those of [`{methods}`].");
        let erased = format_ident!("__{}Mock", methods.unraw(), span = Span::mixed_site());
        let mixed = Span::mixed_site();
        let declared = self.sound().map(|method| method.erased(methods).0);
        let forwarded = self.sound().map(|method| method.erased(methods).1);
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
                /// The methods, behind a pointer.
                trait #erased: ::core::marker::Send + ::core::marker::Sync {
                    #(#declared)*
                }

                impl<__M: #methods> #erased for __M {
                    #(#forwarded)*
                }

                impl #name {
                    /// Injects the client: `#[dependency(..::provider())]`. Its options are those of `RpcProxy`.
                    #vis fn provider() -> ::nameko::RpcProxy<Self> {
                        ::nameko::RpcProxy::new(#service).client()
                    }

                    /// A client that calls `mock` in the service's place, for tests.
                    #vis fn mock(mock: impl #methods) -> Self {
                        let mock: ::std::sync::Arc<dyn #erased> = ::std::sync::Arc::new(mock);
                        Self { target: ::nameko::private::Target::mock(mock) }
                    }

                    /// The same client with another timeout, `None` for none: `client.with_timeout(SECOND).method(..)`.
                    #vis fn with_timeout(
                        &self,
                        timeout: impl ::core::convert::Into<::core::option::Option<::core::time::Duration>>,
                    ) -> Self {
                        Self { target: self.target.with_timeout(timeout) }
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
    /// The methods, or none after an error.
    fn sound(&self) -> impl Iterator<Item = &Method> {
        self.methods.iter().filter(|_| self.is_sound)
    }

    /// The client's own methods; after an error something that stands for them, so that only the error is reported.
    fn implementation(&self, erased: &Ident) -> TokenStream {
        let (name, methods) = (&self.name, &self.item.ident);
        let bodies: Vec<_> = match self.is_sound {
            true => self
                .methods
                .iter()
                .map(|it| it.implement(self.options, erased))
                .collect(),
            false => self.item.items.iter().filter_map(stand_in).collect(),
        };
        quote_spanned! {Span::mixed_site()=>
            #[automatically_derived]
            impl #methods for #name {
                #(#bodies)*
            }
        }
    }
}

impl Method {
    /// The method of the trait behind a pointer, and how it is forwarded.
    fn erased(&self, methods: &Ident) -> (TokenStream, TokenStream) {
        let Self {
            ident,
            conditions,
            params,
            output,
            ..
        } = self;
        let declared: Vec<_> = params
            .iter()
            .enumerate()
            .map(|(index, it)| it.declare(index))
            .collect();
        let passed = params.iter().enumerate().map(|(index, it)| it.pass(index));
        let signature = quote_spanned! {Span::mixed_site()=>
            #(#conditions)*
            fn #ident(&self, #(#declared),*) -> ::nameko::private::Boxed<'_, #output>
        };
        let forwarded = quote_spanned! {Span::mixed_site()=>
            #signature {
                ::std::boxed::Box::pin(<Self as #methods>::#ident(self, #(#passed),*))
            }
        };
        (quote!(#signature;), forwarded)
    }

    /// The client's method.
    fn implement(&self, options: &Options, erased: &Ident) -> TokenStream {
        let Self {
            ident,
            conditions,
            params,
            output,
            ..
        } = self;
        let declared = params
            .iter()
            .enumerate()
            .map(|(index, it)| it.declare(index));
        let passed = params.iter().enumerate().map(|(index, it)| it.pass(index));
        let call = self.call(options);
        // A future that is not `Send` is reported at the method's name.
        let start = quote_spanned!(Place::of(ident).first=> async fn);
        quote_spanned! {Span::mixed_site()=>
            #(#conditions)*
            #start #ident(&self, #(#declared),*) -> #output {
                if let ::core::option::Option::Some(mock) = self.target.as_mock::<::std::sync::Arc<dyn #erased>>() {
                    return #erased::#ident(&**mock, #(#passed),*).await;
                }
                #call
            }
        }
    }
}

/// Stands for a method, whatever is wrong with it.
fn stand_in(item: &TraitItem) -> Option<TokenStream> {
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
            "const X: u8;",
            "type T;",
        ] {
            let found = method_errors(method);
            assert_eq!(found.len(), 1, "{method}: {found:#?}");
        }
    }

    #[test]
    fn the_arguments_name_the_service_and_the_client() {
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
            "\"a.b\", what",
            "unsafe trait S { fn f(a: &str); async fn g<T>(&self, _: T) -> Result<&str>; const X: u8; }",
        );
        assert_eq!(found.len(), 11, "{found:#?}");
    }

    #[test]
    fn a_routing_key_has_room_for_service_and_method() {
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
