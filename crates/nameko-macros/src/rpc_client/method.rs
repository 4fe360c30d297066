//! Methods of a client's trait: checks and generated client methods.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{
    Attribute, FnArg, Ident, Pat, ReturnType, TraitItemFn, Type, ext::IdentExt, parse_quote,
};

use super::options::Options;
use crate::{
    entrypoint::{MAX_ROUTING_KEY_BYTES, conditions},
    errors::Errors,
    owned,
    signature::{self, is_self},
    spans::SpanEnds,
};

/// Methods of the client itself, which the service's methods cannot be named like.
const RESERVED_METHODS: [&str; 2] = ["with_timeout", "with_context"];

const SIGNATURE: signature::Messages = signature::Messages {
    not_async: "a call waits for its reply",
    is_unsafe: "a client's method cannot be `unsafe`",
    has_abi: "a call goes through the broker: remove `extern`",
    is_generic: "a client's method cannot be generic: use concrete types",
    receiver: "a client is shared; take `&self`",
};

/// A method of the trait.
pub(super) struct Method {
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
    /// Parses a method. Returns `None` if the client cannot implement it, after reporting why.
    pub(super) fn parse(
        options: &Options,
        method: &TraitItemFn,
        errors: &mut Errors,
    ) -> Option<Self> {
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

    /// Generates the call of the service.
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
            .map(|(index, param)| param.append(index));
        let mixed = Span::mixed_site();
        let order = match options.positional {
            true => quote_spanned!(mixed=> ByPosition),
            false => quote_spanned!(mixed=> ByName),
        };
        // A result or error type that cannot be created from a reply is reported at the return
        // type.
        let ends = SpanEnds::of(output);
        let answer = quote_spanned!(ends.first=> ::nameko::private::answer);
        let result = quote_spanned!(ends.last=> (&self.target, #name, result));
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
            errors.add(&param.pat, "write a name: arguments are passed by name");
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

    /// Generates the declaration of the parameter.
    fn declare(&self, index: usize) -> TokenStream {
        let Self { conditions, ty, .. } = self;
        let variable = variable(index);
        quote_spanned!(Span::mixed_site()=> #(#conditions)* #variable: #ty)
    }

    /// Generates the addition to the arguments of the call.
    fn append(&self, index: usize) -> TokenStream {
        let Self {
            conditions,
            name,
            ty,
        } = self;
        let variable = variable(index);
        // A type that cannot be serialized is reported at the parameter's type.
        let ends = SpanEnds::of(ty);
        let given = match owned::is_option(ty) {
            true => quote_spanned!(ends.first=> ::nameko::private::given_some),
            false => quote_spanned!(ends.first=> ::nameko::private::given::<#ty>),
        };
        let value = quote_spanned!(ends.last=> (#variable));
        quote_spanned! {Span::mixed_site()=>
            #(#conditions)*
            let arguments = ::nameko::private::ArgumentList::with(arguments, #name, #given #value);
        }
    }

    /// Generates the argument when forwarding the call.
    fn pass(&self, index: usize) -> TokenStream {
        let conditions = &self.conditions;
        let variable = variable(index);
        quote_spanned!(Span::mixed_site()=> #(#conditions)* #variable)
    }
}

/// Returns the variable of an argument.
fn variable(index: usize) -> Ident {
    format_ident!("arg{index}", span = Span::mixed_site())
}

/// Checks a method, except for its arguments and return type.
fn check_method(options: &Options, method: &TraitItemFn, name: &str, errors: &mut Errors) {
    let sig = &method.sig;
    if options.service.len() + 1 + name.len() > MAX_ROUTING_KEY_BYTES {
        errors.add(
            &sig.ident,
            format!(
                "name too long: the routing key `{}.{name}` is limited to {MAX_ROUTING_KEY_BYTES} bytes",
                options.service
            ),
        );
    }
    if RESERVED_METHODS.contains(&name) {
        errors.add(
            &sig.ident,
            format!(
                "`{name}` is reserved for the client: call this method through a `ServiceProxy`"
            ),
        );
    }
    if let Some(body) = &method.default {
        errors.add(
            body,
            format!("write `;`: `{name}` is implemented by the service"),
        );
    }
    signature::check(sig, &SIGNATURE, errors);
}

impl Method {
    /// Generates the object-safe method and its forwarding.
    pub(super) fn erased(&self, methods: &Ident) -> (TokenStream, TokenStream) {
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
            .map(|(index, param)| param.declare(index))
            .collect();
        let passed = params
            .iter()
            .enumerate()
            .map(|(index, param)| param.pass(index));
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

    /// Generates the client's method.
    pub(super) fn implement(&self, options: &Options, erased: &Ident) -> TokenStream {
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
            .map(|(index, param)| param.declare(index));
        let passed = params
            .iter()
            .enumerate()
            .map(|(index, param)| param.pass(index));
        let call = self.call(options);
        // A future that is not `Send` is reported at the method's name.
        let start = quote_spanned!(SpanEnds::of(ident).first=> async fn);
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

/// Desugars `async fn f() -> T` to a function that returns a `Send` future.
pub(super) fn make_future(method: &mut TraitItemFn) {
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

/// Replaces patterns, which were reported already, by `_` to avoid follow-up errors.
pub(super) fn plain_names(method: &mut TraitItemFn) {
    for input in &mut method.sig.inputs {
        if let FnArg::Typed(param) = input
            && !matches!(*param.pat, Pat::Ident(_))
        {
            *param.pat = parse_quote!(_);
        }
    }
}
