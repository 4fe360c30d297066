//! One method of a service: its marker, what is asked of it, and how it is called.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{
    Attribute, FnArg, Ident, ImplItemFn, Meta, Pat, Path, Receiver, ReturnType, Signature, Token,
    Type, ext::IdentExt, parse_quote, punctuated::Punctuated,
};

use crate::{errors::Errors, owned, spans::Place};

/// In bytes: a routing key is a short string of AMQP 0-9-1.
const LONGEST_ROUTING_KEY: usize = 255;

/// What `#[rpc]` says where `#[service]` did not take it away.
pub(crate) fn stray(marker: &str, item: &TokenStream) -> TokenStream {
    let message = format!("`#[{marker}]` belongs on a method inside a `#[service(\"...\")] impl`");
    let error = syn::Error::new(Span::call_site(), message).to_compile_error();
    quote!(#error #item)
}

/// A marked method that passed all checks.
pub(crate) struct Entrypoint {
    /// The name that callers use.
    pub(crate) name: String,
    /// The `#[cfg]` attributes of the method.
    pub(crate) conditions: Vec<Attribute>,
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
    /// Takes the marker off the method, and reads what it marks. `None` for a method without one, and after an error.
    pub(crate) fn take(
        service: &str,
        method: &mut ImplItemFn,
        errors: &mut Errors,
    ) -> Option<Self> {
        let markers: Vec<_> = method
            .attrs
            .extract_if(.., |attribute| is_marker(attribute.path()))
            .collect();
        reject_conditional_markers(&mut method.attrs, errors);
        let (marker, again) = markers.split_first()?;
        let mut found = Errors::default();
        for again in again {
            found.add(
                again,
                format!(
                    "`{}` is an entrypoint of this kind already: remove one `#[rpc]`",
                    method.sig.ident
                ),
            );
        }
        if takes_arguments(marker) {
            found.add(marker, "`#[rpc]` takes no arguments: write `#[rpc]`");
        }
        let entrypoint = Self::parse(service, method, &mut found);
        // What the rules for entrypoints ask for is not for clippy to complain about.
        method.attrs.push(parse_quote!(
            #[allow(clippy::needless_pass_by_value, clippy::unnecessary_wraps, clippy::unused_async, clippy::unused_self)]
        ));
        let is_sound = found.is_empty();
        errors.append(found);
        entrypoint.filter(|_| is_sound)
    }

    fn parse(service: &str, method: &ImplItemFn, errors: &mut Errors) -> Option<Self> {
        let sig = &method.sig;
        let name = sig.ident.unraw().to_string();
        if service.len() + 1 + name.len() > LONGEST_ROUTING_KEY {
            errors.add(
                &sig.ident,
                format!(
                    "this name is too long: callers reach it by `{service}.{name}`, which may have at most \
                     {LONGEST_ROUTING_KEY} bytes"
                ),
            );
        }
        check_signature(sig, errors);
        let params = sig.inputs.iter().filter_map(|input| match input {
            FnArg::Typed(param) if !is_self(&param.pat) => Param::parse(param, errors),
            _ => None,
        });
        let params = params.collect();
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
                errors.add(
                    pat,
                    "write a name here and take the value apart in the body: callers pass the argument by its name",
                );
                return None;
            }
        };
        let name = ident.unraw().to_string();
        owned::check_argument(&name, &param.ty, errors);
        Some(Self {
            name,
            conditions: conditions(&param.attrs),
            ty: (*param.ty).clone(),
        })
    }
}

/// The statement that adds the entrypoint to `entrypoints`.
impl ToTokens for Entrypoint {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        let mixed = Span::mixed_site();
        let Self {
            name,
            conditions,
            ident,
            params,
            output,
        } = self;
        let variables: Vec<_> = (0..params.len())
            .map(|index| format_ident!("arg{index}", span = mixed))
            .collect();
        let described = params.iter().map(
            |Param {
                 name,
                 conditions,
                 ty,
             }| {
                let kind = if owned::is_option(ty) {
                    quote!(optional)
                } else {
                    quote!(required)
                };
                quote_spanned!(mixed=> #(#conditions)* ::nameko::private::#kind(#name))
            },
        );
        let taken = params.iter().zip(&variables).map(|(Param { conditions, ty, .. }, variable)| {
            quote_spanned!(mixed=> #(#conditions)* let #variable = args.take::<#ty>()?;)
        });
        let passed = params.iter().zip(&variables).map(|(Param { conditions, .. }, variable)| {
            quote_spanned!(mixed=> #(#conditions)* #variable)
        });
        let args = if params.is_empty() {
            quote_spanned!(mixed=> _)
        } else {
            quote_spanned!(mixed=> args)
        };
        // A reply or an error that cannot be sent is reported at the type that the method returns.
        let place = Place::of(output);
        let start = quote_spanned!(place.first=> Self);
        let end = quote_spanned!(place.last=> .await);
        let returned = quote_spanned!(mixed=> #start::#ident(service, #(#passed),*) #end);
        // A future that is not `Send` is reported at the method's name.
        let at = Place::of(ident).first;
        let future = quote_spanned!(at=> ::std::boxed::Box::pin(async move { ::nameko::private::reply(#returned) }));
        let method = quote_spanned! {mixed=>
            ::nameko::private::method(#name, const { &[#(#described),*] }, |#args| {
                #(#taken)*
                ::core::result::Result::Ok(::nameko::private::call(move |service: &Self| #future))
            })
        };
        tokens.extend(quote_spanned! {mixed=>
            #(#conditions)*
            ::nameko::private::add(entrypoints, ::nameko::Rpc::new(), #method);
        });
    }
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
fn is_shared_self(receiver: &Receiver) -> bool {
    match &*receiver.ty {
        Type::Reference(ty) => {
            let is_self = matches!(&*ty.elem, Type::Path(path) if path.path.is_ident("Self"));
            is_self && ty.mutability.is_none() && ty.lifetime.is_none()
        }
        _ => false,
    }
}

fn is_self(pat: &Pat) -> bool {
    matches!(pat, Pat::Ident(pat) if pat.ident == "self")
}

fn is_marker(path: &Path) -> bool {
    let Some(last) = path.segments.last() else {
        return false;
    };
    last.ident == "rpc" && (path.segments.len() == 1 || path.segments[0].ident == "nameko")
}

fn takes_arguments(marker: &Attribute) -> bool {
    match &marker.meta {
        Meta::Path(_) => false,
        Meta::List(list) => !list.tokens.is_empty(),
        Meta::NameValue(_) => true,
    }
}

/// Takes `#[cfg_attr(condition, rpc)]` off: the marker in it would be seen too late.
fn reject_conditional_markers(attributes: &mut Vec<Attribute>, errors: &mut Errors) {
    for attribute in attributes.extract_if(.., |attribute| is_conditional_marker(attribute)) {
        errors.add(
            attribute,
            "`#[rpc]` cannot be conditional: write `#[cfg(...)]` and `#[rpc]` on the method",
        );
    }
}

fn is_conditional_marker(attribute: &Attribute) -> bool {
    let parse = Punctuated::<Meta, Token![,]>::parse_terminated;
    attribute.path().is_ident("cfg_attr")
        && attribute
            .parse_args_with(parse)
            .is_ok_and(|given| given.iter().skip(1).any(|meta| is_marker(meta.path())))
}

fn conditions(attributes: &[Attribute]) -> Vec<Attribute> {
    attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("cfg"))
        .cloned()
        .collect()
}
