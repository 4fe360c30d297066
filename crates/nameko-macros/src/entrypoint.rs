//! Entrypoint methods: their markers, checks and generated calls.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{
    Attribute, FnArg, Ident, ImplItemFn, Meta, Pat, ReturnType, Signature, Token, Type,
    ext::IdentExt, parse_quote, punctuated::Punctuated,
};

use crate::{
    constants,
    errors::Errors,
    markers::{CallArguments, Marker, MarkerKind},
    owned,
    signature::{self, is_self},
    spans::SpanEnds,
};

/// Maximum length of a routing key, a short string in AMQP 0-9-1.
pub(crate) const MAX_ROUTING_KEY_BYTES: usize = 255;

/// Argument with which `#[service]` re-emits a marker, so that the user's `use nameko::rpc` counts
/// as used.
const IN_SERVICE: &str = "in_service";

/// Expands a marker outside of a service, since `#[service]` removes those on its methods.
pub(crate) fn marker(name: &str, arguments: &TokenStream, item: &TokenStream) -> TokenStream {
    if arguments.to_string() == IN_SERVICE {
        return TokenStream::new();
    }
    let message = format!("`#[{name}]` belongs on a method inside a `#[service(\"...\")] impl`");
    let error = syn::Error::new(Span::call_site(), message).to_compile_error();
    quote!(#error #item)
}

const SIGNATURE: signature::Messages = signature::Messages {
    not_async: "an entrypoint is `async`",
    is_unsafe: "an entrypoint cannot be `unsafe`: it is called with untrusted input",
    has_abi: "an entrypoint is called by the framework: remove `extern`",
    is_generic: "an entrypoint cannot be generic: use concrete types",
    receiver: "a worker is a fresh value; take `&self`",
};

/// A marked method that passed all checks.
pub(crate) struct Entrypoint {
    /// The name on the wire.
    pub(crate) name: String,
    /// The `#[cfg]` attributes of the method.
    pub(crate) conditions: Vec<Attribute>,
    /// The type that has the method.
    service: Type,
    markers: Vec<Marker>,
    ident: Ident,
    params: Vec<Param>,
    output: Type,
}

struct Param {
    /// The name on the wire.
    name: String,
    /// The `#[cfg]` attributes of the parameter.
    conditions: Vec<Attribute>,
    ty: Type,
}

impl Entrypoint {
    /// Removes and parses the markers of a method. Returns `None` if there are none or after an
    /// error.
    pub(crate) fn extract(
        (name, service): (&str, &Type),
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
                        "duplicate marker on `{}`: remove one `#[{}]`",
                        method.sig.ident, kind.name
                    ),
                );
            }
            markers.push(Marker::parse(kind, attribute, &mut found));
        }
        let entrypoint = Self::parse((name, service), markers, method, &mut found);
        // Clippy lints that the rules for entrypoints would trigger.
        method.attrs.push(parse_quote!(
            #[allow(clippy::needless_pass_by_value, clippy::unnecessary_wraps, clippy::unused_async, clippy::unused_self)]
        ));
        let is_valid = found.is_empty();
        errors.append(found);
        entrypoint.filter(|_| is_valid)
    }

    fn parse(
        (service_name, service): (&str, &Type),
        markers: Vec<Marker>,
        method: &ImplItemFn,
        errors: &mut Errors,
    ) -> Option<Self> {
        let sig = &method.sig;
        let name = sig.ident.unraw().to_string();
        let has = |kind: &str| markers.iter().any(|marker| marker.kind.name == kind);
        if has("rpc") && service_name.len() + 1 + name.len() > MAX_ROUTING_KEY_BYTES {
            errors.add(
                &sig.ident,
                format!(
                    "name too long: the routing key `{service_name}.{name}` is limited to {MAX_ROUTING_KEY_BYTES} bytes"
                ),
            );
        }
        signature::check(sig, &SIGNATURE, errors);
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
            service: service.clone(),
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
                    _ => "write a name and destructure it in the body",
                };
                errors.add(pat, format!("{advice}: callers pass arguments by name"));
                return None;
            }
        };
        let name = ident.unraw().to_string();
        let why = "arguments are deserialized from a message";
        owned::check_argument(&name, &param.ty, why, errors);
        Some(Self {
            name,
            conditions: conditions(&param.attrs),
            ty: (*param.ty).clone(),
        })
    }
}

/// Generates the statements that add the method to `entrypoints`, once per marker.
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
            let extractors = self.extractors(marker.kind);
            let path_params = self.check_path(marker);
            let future = self.future(marker.kind);
            tokens.extend(quote_spanned! {Span::mixed_site()=>
                #(#conditions)*
                #[#path(#in_service)]
                const _: () = ();
                #path_params
                #(#conditions)*
                ::nameko::private::add(
                    entrypoints,
                    #entrypoint,
                    ::nameko::private::method(#name, const { &[#(#described),*] }, |#args| {
                        #(#taken)*
                        ::core::result::Result::Ok(::nameko::private::call(move |service: &Self| #future))
                    })#options #raw #extractors,
                );
            });
        }
    }
}

impl Entrypoint {
    /// Generates the option for unparsed messages, which depends on the types of the parameters.
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

    /// Generates the list of parameters that are extracted from HTTP requests.
    fn extractors(&self, kind: &MarkerKind) -> Option<TokenStream> {
        if kind.call_arguments != CallArguments::HttpRequest || self.params.is_empty() {
            return None;
        }
        let params = self.params.iter().map(|param| {
            let Param {
                name,
                conditions,
                ty,
            } = param;
            let kind = http_kind(&quote!(Self), ty);
            quote_spanned!(Span::mixed_site()=> #(#conditions)* #kind.extractor::<Self, #ty>(#name))
        });
        Some(quote_spanned!(Span::mixed_site()=> .extractors(const { &[#(#params),*] })))
    }

    /// Generates the check that each parameter of the path has a parameter of the method, if the
    /// path is a constant.
    fn check_path(&self, marker: &Marker) -> Option<TokenStream> {
        let path = marker.constant_path()?;
        let Self {
            name,
            conditions,
            service,
            params,
            ..
        } = self;
        // A constant cannot name `Self`.
        let types = params.iter().map(|param| param.ty.to_token_stream());
        if types.chain([path.clone()]).any(constants::mention_self) {
            return None;
        }
        let service = service.to_token_stream();
        let params = params.iter().map(|param| {
            let Param {
                name,
                conditions,
                ty,
            } = param;
            let kind = http_kind(&service, ty);
            quote_spanned! {Span::mixed_site()=>
                #(#conditions)*
                ::nameko::private::HttpParam::new(#name, #kind.reads_path::<#service, #ty>())
            }
        });
        // A path without a parameter is reported at its tokens.
        let ends = SpanEnds::of(&path);
        let arguments = quote_spanned!(ends.last=> (#path, #name, &[#(#params),*]));
        Some(quote_spanned! {ends.first=>
            #(#conditions)*
            const _: () = ::nameko::private::check_path #arguments;
        })
    }

    /// Generates the call of the method with its decoded arguments.
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
        // Both ends of the call carry the return type's spans: an unsupported type is reported
        // there.
        let ends = SpanEnds::of(output);
        let start = quote_spanned!(ends.first=> Self);
        let end = quote_spanned!(ends.last=> .await);
        let returned =
            quote_spanned!(Span::mixed_site()=> #start::#ident(service, #(#passed),*) #end);
        let reply = match kind.call_arguments {
            CallArguments::HttpRequest => quote!(respond),
            _ => quote!(reply),
        };
        // Whether the error is an exception is decided where its type is known.
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

    /// Generates the decoding of the argument.
    fn decode(&self, index: usize, kind: &MarkerKind) -> TokenStream {
        let Self {
            name,
            conditions,
            ty,
        } = self;
        let variable = variable(index);
        let taken = match kind.call_arguments {
            CallArguments::HttpRequest => {
                let kind = http_kind(&quote!(Self), ty);
                quote_spanned!(Span::mixed_site()=> #kind.extract::<Self, #ty>(args, #name))
            }
            CallArguments::Message(_) => {
                quote_spanned!(Span::mixed_site()=> ::nameko::private::message::<#ty>(args))
            }
            _ => quote_spanned!(Span::mixed_site()=> args.take::<#ty>()),
        };
        quote_spanned!(Span::mixed_site()=> #(#conditions)* let #variable = #taken?;)
    }

    /// Generates the argument in the call of the method.
    fn pass(&self, index: usize) -> TokenStream {
        let conditions = &self.conditions;
        let variable = variable(index);
        quote_spanned!(Span::mixed_site()=> #(#conditions)* #variable)
    }
}

/// Generates the kind of an argument of an `#[http]` method of `service`, by its type.
fn http_kind(service: &TokenStream, ty: &Type) -> TokenStream {
    quote_spanned! {Span::mixed_site()=> {
        use ::nameko::private::DefaultKind as _;
        ::nameko::private::HttpArgument::<#service, #ty>::KIND
    }}
}

/// Returns the variable of an argument.
fn variable(index: usize) -> Ident {
    format_ident!("arg{index}", span = Span::mixed_site())
}

/// Checks that the parameters match the arguments of the marker's calls. Ignores conditional ones.
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
                format!("with only {argument}")
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

/// Removes and reports `#[cfg_attr(condition, rpc)]`, which would be expanded too late.
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
