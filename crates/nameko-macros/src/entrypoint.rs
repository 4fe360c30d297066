//! One method of a service: its markers, what is asked of it, and how it is called.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{
    Attribute, FnArg, Ident, ImplItemFn, Meta, Pat, Receiver, ReturnType, Signature, Token, Type,
    ext::IdentExt, parse_quote, punctuated::Punctuated,
};

use crate::{
    errors::Errors,
    markers::{CallArguments, Marker, MarkerKind},
    owned,
    spans::SpanEnds,
};

/// In bytes: a routing key is a short string of AMQP 0-9-1.
pub(crate) const MAX_ROUTING_KEY_BYTES: usize = 255;

/// What `#[service]` gives to a marker that it found, so that the user's `use nameko::rpc` is not an unused import.
const IN_SERVICE: &str = "in_service";

/// Expands a marker where it stands. `#[service]` takes it off its methods, so this is anywhere else.
pub(crate) fn marker(name: &str, arguments: &TokenStream, item: &TokenStream) -> TokenStream {
    if arguments.to_string() == IN_SERVICE {
        return TokenStream::new();
    }
    let message = format!("`#[{name}]` belongs on a method inside a `#[service(\"...\")] impl`");
    let error = syn::Error::new(Span::call_site(), message).to_compile_error();
    quote!(#error #item)
}

/// A marked method that passed all checks.
pub(crate) struct Entrypoint {
    /// The name that callers use.
    pub(crate) name: String,
    /// The `#[cfg]` attributes of the method.
    pub(crate) conditions: Vec<Attribute>,
    markers: Vec<Marker>,
    ident: Ident,
    params: Vec<Param>,
    output: Type,
}

struct Param {
    /// The name that callers use.
    name: String,
    /// The `#[cfg]` attributes of the parameter.
    conditions: Vec<Attribute>,
    ty: Type,
}

impl Entrypoint {
    /// CallArguments the markers off the method, and reads what they mark. `None` for a method without one, and after an error.
    pub(crate) fn extract(
        service: &str,
        method: &mut ImplItemFn,
        errors: &mut Errors,
    ) -> Option<Self> {
        let attributes: Vec<_> = method
            .attrs
            .extract_if(.., |attribute| MarkerKind::of(attribute.path()).is_some())
            .collect();
        reject_conditional_markers(&mut method.attrs, errors);
        if attributes.is_empty() {
            return None;
        }
        let mut found = Errors::default();
        let mut markers: Vec<Marker> = Vec::new();
        for attribute in &attributes {
            let Some(kind) = MarkerKind::of(attribute.path()) else {
                continue;
            };
            if !kind.repeats && markers.iter().any(|known| known.kind.name == kind.name) {
                found.add(
                    attribute,
                    format!(
                        "`{}` is an entrypoint of this kind already: remove one `#[{}]`",
                        method.sig.ident, kind.name
                    ),
                );
            }
            markers.push(Marker::parse(kind, attribute, &mut found));
        }
        let entrypoint = Self::parse(service, markers, method, &mut found);
        // What the rules for entrypoints ask for is not for clippy to complain about.
        method.attrs.push(parse_quote!(
            #[allow(clippy::needless_pass_by_value, clippy::unnecessary_wraps, clippy::unused_async, clippy::unused_self)]
        ));
        let is_valid = found.is_empty();
        errors.append(found);
        entrypoint.filter(|_| is_valid)
    }

    fn parse(
        service: &str,
        markers: Vec<Marker>,
        method: &ImplItemFn,
        errors: &mut Errors,
    ) -> Option<Self> {
        let sig = &method.sig;
        let name = sig.ident.unraw().to_string();
        let has = |kind: &str| markers.iter().any(|marker| marker.kind.name == kind);
        if has("rpc") && service.len() + 1 + name.len() > MAX_ROUTING_KEY_BYTES {
            errors.add(
                &sig.ident,
                format!(
                    "this name is too long: with `{service}.` before it, it is a routing key of at most \
                     {MAX_ROUTING_KEY_BYTES} bytes"
                ),
            );
        }
        check_signature(sig, errors);
        let params = sig.inputs.iter().filter_map(|input| match input {
            FnArg::Typed(param) if !is_self(&param.pat) => Param::parse(param, errors),
            _ => None,
        });
        let params: Vec<_> = params.collect();
        let names: Vec<&str> = params
            .iter()
            .map(|param: &Param| param.name.as_str())
            .collect();
        for marker in &markers {
            check_parameters(marker.kind, sig, errors);
            marker.check_sensitive(&names, errors);
        }
        let output = match &sig.output {
            ReturnType::Type(_, output) => {
                owned::check_reply(output, errors);
                (**output).clone()
            }
            ReturnType::Default => {
                errors.add(
                    &sig.ident,
                    format!("return `Result<T, E>` from `{name}`, or `Result<()>` if there is nothing to reply"),
                );
                return None;
            }
        };
        Some(Self {
            name,
            conditions: conditions(&method.attrs),
            markers,
            ident: sig.ident.clone(),
            params,
            output,
        })
    }
}

impl Param {
    fn parse(param: &syn::PatType, errors: &mut Errors) -> Option<Self> {
        let ident = match &*param.pat {
            Pat::Ident(pat) if pat.by_ref.is_none() && pat.subpat.is_none() => &pat.ident,
            pat => {
                let advice = match pat {
                    Pat::Wild(_) => "write a name instead of `_`",
                    Pat::Ident(_) => "write only the name",
                    _ => "write a name and take the value apart in the body",
                };
                errors.add(
                    pat,
                    format!("{advice}: callers pass the argument by its name"),
                );
                return None;
            }
        };
        let name = ident.unraw().to_string();
        let why = "arguments are read from a message";
        owned::check_argument(&name, &param.ty, why, errors);
        Some(Self {
            name,
            conditions: conditions(&param.attrs),
            ty: (*param.ty).clone(),
        })
    }
}

/// The statements that add the method to `entrypoints`, once for each marker.
impl ToTokens for Entrypoint {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        let Self {
            name, conditions, ..
        } = self;
        let in_service = format_ident!("{IN_SERVICE}");
        let described: Vec<_> = self.params.iter().map(Param::describe).collect();
        let args = if self.params.is_empty() {
            quote!(_)
        } else {
            quote_spanned!(Span::mixed_site()=> args)
        };
        for marker in &self.markers {
            let taken = self
                .params
                .iter()
                .enumerate()
                .map(|(index, param)| param.decode(index, marker.kind));
            let (path, entrypoint) = (&marker.path, marker.entrypoint());
            let options = marker.method_options();
            let raw = self.raw_message(marker.kind);
            let future = self.future(marker.kind);
            tokens.extend(quote_spanned! {Span::mixed_site()=>
                #(#conditions)*
                #[#path(#in_service)]
                const _: () = ();
                #(#conditions)*
                ::nameko::private::add(
                    entrypoints,
                    #entrypoint,
                    ::nameko::private::method(#name, const { &[#(#described),*] }, |#args| {
                        #(#taken)*
                        ::core::result::Result::Ok(::nameko::private::call(move |service: &Self| #future))
                    })#options #raw,
                );
            });
        }
    }
}

impl Entrypoint {
    /// Whether messages are read for the method is a question of its parameters' types.
    fn raw_message(&self, kind: &MarkerKind) -> Option<TokenStream> {
        if !matches!(kind.call_arguments, CallArguments::Message(_)) {
            return None;
        }
        let questions = self.params.iter().map(|param| {
            let Param { conditions, ty, .. } = param;
            quote_spanned!(Span::mixed_site()=> #(#conditions)* let raw = raw || ::nameko::private::is_raw::<#ty>();)
        });
        Some(
            quote_spanned!(Span::mixed_site()=> .raw_message({ let raw = false; #(#questions)* raw })),
        )
    }

    /// The call of the method, with what the parameters took.
    fn future(&self, kind: &MarkerKind) -> TokenStream {
        let Self {
            ident,
            params,
            output,
            ..
        } = self;
        let passed = params
            .iter()
            .enumerate()
            .map(|(index, param)| param.pass(index));
        // These are the ends of the call. A reply or an error that cannot be sent is reported at the return type.
        let ends = SpanEnds::of(output);
        let start = quote_spanned!(ends.first=> Self);
        let end = quote_spanned!(ends.last=> .await);
        let returned =
            quote_spanned!(Span::mixed_site()=> #start::#ident(service, #(#passed),*) #end);
        let reply = match kind.call_arguments {
            CallArguments::HttpRequest => quote!(respond),
            _ => quote!(reply),
        };
        // An error that is an exception is found to be one where its type is known.
        let fault = quote_spanned! {Span::mixed_site()=> |kind| {
            use ::nameko::private::{ExceptionFault as _, DefaultFault as _};
            (&kind).fault()
        }};
        // A future that is not `Send` is reported at the method's name.
        let name = SpanEnds::of(ident).first;
        quote_spanned! {name=>
            ::std::boxed::Box::pin(async move { ::nameko::private::#reply(#returned, #fault) })
        }
    }
}

impl Param {
    fn describe(&self) -> TokenStream {
        let Self {
            name,
            conditions,
            ty,
        } = self;
        let kind = if owned::is_option(ty) {
            quote!(optional)
        } else {
            quote!(required)
        };
        quote_spanned!(Span::mixed_site()=> #(#conditions)* ::nameko::private::#kind(#name))
    }

    /// CallArguments the argument off the wire.
    fn decode(&self, index: usize, kind: &MarkerKind) -> TokenStream {
        let Self {
            name,
            conditions,
            ty,
        } = self;
        let variable = variable(index);
        let taken = match kind.call_arguments {
            CallArguments::HttpRequest => {
                quote_spanned!(Span::mixed_site()=> ::nameko::private::extract::<#ty>(args, #name))
            }
            CallArguments::Message(_) => {
                quote_spanned!(Span::mixed_site()=> ::nameko::private::message::<#ty>(args))
            }
            _ => quote_spanned!(Span::mixed_site()=> args.take::<#ty>()),
        };
        quote_spanned!(Span::mixed_site()=> #(#conditions)* let #variable = #taken?;)
    }

    /// Passes the argument to the method.
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

/// The rules for an entrypoint's signature, save for its arguments and its reply.
fn check_signature(sig: &Signature, errors: &mut Errors) {
    let name = sig.ident.unraw();
    if sig.asyncness.is_none() {
        errors.add(
            sig.fn_token,
            format!("write `async fn {name}`: an entrypoint is `async`"),
        );
    }
    if let Some(unsafety) = &sig.unsafety {
        errors.add(
            unsafety,
            "an entrypoint cannot be `unsafe`: it is called with whatever arrives",
        );
    }
    if let Some(abi) = &sig.abi {
        errors.add(
            abi,
            "an entrypoint is called by the framework: remove `extern`",
        );
    }
    if !sig.generics.params.is_empty() {
        errors.add(
            &sig.generics,
            "an entrypoint cannot be generic: write the types that messages are read into",
        );
    }
    match sig.inputs.first() {
        Some(FnArg::Receiver(receiver)) if is_shared_self(receiver) => {}
        Some(FnArg::Receiver(receiver)) => {
            errors.add(receiver, "a worker is a fresh value; take `&self`");
        }
        _ => errors.add(&sig.ident, "a worker is a fresh value; take `&self`"),
    }
}

/// `&self`, or `self: &Self`.
pub(crate) fn is_shared_self(receiver: &Receiver) -> bool {
    match &*receiver.ty {
        Type::Reference(ty) => {
            let is_self = matches!(&*ty.elem, Type::Path(path) if path.path.is_ident("Self"));
            is_self && ty.mutability.is_none() && ty.lifetime.is_none()
        }
        _ => false,
    }
}

pub(crate) fn is_self(pat: &Pat) -> bool {
    matches!(pat, Pat::Ident(pat) if pat.ident == "self")
}

/// Whether the method's parameters fit what the entrypoint calls it with. Those under a condition are not counted.
fn check_parameters(kind: &MarkerKind, sig: &Signature, errors: &mut Errors) {
    let required = sig.inputs.iter().filter_map(|input| match input {
        FnArg::Typed(param)
            if !is_self(&param.pat)
                && conditions(&param.attrs).is_empty()
                && !owned::is_option(&param.ty) =>
        {
            Some(param)
        }
        _ => None,
    });
    let max = match kind.call_arguments {
        CallArguments::Nothing => 0,
        CallArguments::Message(_) | CallArguments::AtMostOne(_) => 1,
        _ => usize::MAX,
    };
    for param in required.skip(max) {
        let called = match kind.call_arguments {
            CallArguments::Message(argument) | CallArguments::AtMostOne(argument) => {
                format!("with {argument} only")
            }
            _ => "without arguments".to_owned(),
        };
        errors.add(
            param,
            format!(
                "`#[{}]` calls the method {called}: remove this parameter, or make it an `Option`",
                kind.name
            ),
        );
    }
    let takes_none = !sig
        .inputs
        .iter()
        .any(|input| matches!(input, FnArg::Typed(param) if !is_self(&param.pat)));
    if let (CallArguments::Message(argument) | CallArguments::OneAndAny(argument), true) =
        (kind.call_arguments, takes_none)
    {
        errors.add(
            &sig.ident,
            format!(
                "`#[{}]` calls the method with {argument}: add a parameter for it",
                kind.name
            ),
        );
    }
}

/// CallArguments `#[cfg_attr(condition, rpc)]` off: the marker in it would be seen too late.
fn reject_conditional_markers(attributes: &mut Vec<Attribute>, errors: &mut Errors) {
    attributes.retain(|attribute| {
        let Some(kind) = conditional_marker(attribute) else {
            return true;
        };
        errors.add(
            attribute,
            format!(
                "`#[{0}]` cannot be conditional: write `#[cfg(...)]` and `#[{0}]` on the method",
                kind.name
            ),
        );
        false
    });
}

fn conditional_marker(attribute: &Attribute) -> Option<&'static MarkerKind> {
    if !attribute.path().is_ident("cfg_attr") {
        return None;
    }
    let parse = Punctuated::<Meta, Token![,]>::parse_terminated;
    let given = attribute.parse_args_with(parse).ok()?;
    given
        .iter()
        .skip(1)
        .find_map(|meta| MarkerKind::of(meta.path()))
}

pub(crate) fn conditions(attributes: &[Attribute]) -> Vec<Attribute> {
    attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("cfg"))
        .cloned()
        .collect()
}
