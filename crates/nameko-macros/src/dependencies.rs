//! `#[derive(Dependencies)]`.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{Attribute, Data, DeriveInput, Expr, Field, Fields, Ident, Meta, Type, ext::IdentExt};

use crate::{errors::Errors, spans::SpanEnds};

pub(crate) fn expand(item: TokenStream) -> TokenStream {
    let input: DeriveInput = match syn::parse2(item) {
        Ok(input) => input,
        Err(error) => return error.to_compile_error(),
    };
    let mut errors = Errors::default();
    if !input.generics.params.is_empty() {
        errors.add(
            &input.generics,
            "a service cannot be generic: a container runs it by its name; use concrete types",
        );
    }
    for attribute in &input.attrs {
        if let Some(kind) = Kind::of(attribute) {
            errors.add(attribute, format!("`{}` belongs on a field", kind.usage()));
        }
    }
    let dependencies: Vec<_> = fields(&input, &mut errors)
        .into_iter()
        .filter_map(|field| Dependency::parse(field, &mut errors))
        .collect();
    if errors.is_empty() {
        implementation(&input.ident, &dependencies)
    } else {
        placeholder(&input, &errors)
    }
}

/// A field and its source.
struct Dependency<'a> {
    field: &'a Ident,
    ty: &'a Type,
    source: Source,
}

enum Source {
    /// The expression in `#[dependency(EXPRESSION)]`.
    Provider(Box<Expr>),
    /// `#[dependencies]`: the field is a struct of dependencies.
    Nested,
}

/// The attribute of a field.
#[derive(Clone, Copy)]
enum Kind {
    Dependency,
    Dependencies,
}

impl Kind {
    fn of(attribute: &Attribute) -> Option<Self> {
        if attribute.path().is_ident("dependency") {
            Some(Self::Dependency)
        } else if attribute.path().is_ident("dependencies") {
            Some(Self::Dependencies)
        } else {
            None
        }
    }

    fn usage(self) -> &'static str {
        match self {
            Self::Dependency => "#[dependency(PROVIDER)]",
            Self::Dependencies => "#[dependencies]",
        }
    }
}

impl<'a> Dependency<'a> {
    fn parse(field: &'a Field, errors: &mut Errors) -> Option<Self> {
        let ident = field.ident.as_ref()?;
        let mut attributes = field
            .attrs
            .iter()
            .filter_map(|attribute| Some((Kind::of(attribute)?, attribute)));
        let Some((kind, attribute)) = attributes.next() else {
            errors.add(
                ident,
                format!(
                    "field `{ident}` needs `#[dependency(PROVIDER)]`: a worker is created for each call, with all \
                     fields injected; for a plain value, write `#[dependency(Provide(VALUE))]`"
                ),
            );
            return None;
        };
        for (again, attribute) in attributes {
            let message = match (kind, again) {
                (Kind::Dependency, Kind::Dependency) => {
                    "duplicate provider: remove one `#[dependency(...)]`"
                }
                _ => "duplicate provider: keep either `#[dependency(...)]` or `#[dependencies]`",
            };
            errors.add(attribute, message);
        }
        let source = match kind {
            Kind::Dependency => {
                provider(attribute).map(|provider| Source::Provider(Box::new(provider)))
            }
            Kind::Dependencies => nested(attribute).map(|()| Source::Nested),
        };
        match source {
            Ok(source) => Some(Self {
                field: ident,
                ty: &field.ty,
                source,
            }),
            Err(error) => {
                errors.push(error);
                None
            }
        }
    }

    /// Generates the binding of the provider.
    fn declare(&self, index: usize) -> TokenStream {
        let Self { field, ty, source } = self;
        let (variable, name) = (variable(index), field.unraw().to_string());
        match source {
            Source::Provider(provider) => {
                quote_spanned!(Span::mixed_site()=> let #variable = ::nameko::Bindings::provide(bindings, #name, #provider);)
            }
            Source::Nested => {
                quote_spanned!(Span::mixed_site()=> let #variable = ::nameko::Bindings::nested::<#ty>(bindings, #name);)
            }
        }
    }

    /// Generates the field's initializer. The dependency is wrapped in a tuple, so the initializer
    /// has two tokens that can carry the spans of both ends of the field's type: a type mismatch is
    /// reported there.
    fn inject(&self, index: usize) -> TokenStream {
        let Self { field, ty, .. } = self;
        let ends = SpanEnds::of(ty);
        let value = format_ident!("value{index}", span = ends.first);
        let taken = quote_spanned!(ends.last=> .0);
        quote_spanned!(Span::mixed_site()=> #field: #value #taken)
    }
}

/// Generates the resolution of the dependency for one worker.
fn resolve(index: usize) -> TokenStream {
    let (variable, value) = (
        variable(index),
        format_ident!("value{index}", span = Span::mixed_site()),
    );
    quote_spanned!(Span::mixed_site()=> let #value = (#variable.get(&ctx).await?,);)
}

/// Returns the variable of a bound provider.
fn variable(index: usize) -> Ident {
    format_ident!("provider{index}", span = Span::mixed_site())
}

/// Returns the fields to inject, or reports why the item is not supported.
fn fields<'a>(input: &'a DeriveInput, errors: &mut Errors) -> Vec<&'a Field> {
    match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) => fields.named.iter().collect(),
            Fields::Unit => Vec::new(),
            Fields::Unnamed(fields) => {
                let name = &input.ident;
                let advice = if fields.unnamed.is_empty() {
                    format!("write `struct {name};`")
                } else {
                    format!(
                        "write `struct {name} {{ name: Type }}`: a dependency has the name of its field"
                    )
                };
                errors.add(fields, advice);
                Vec::new()
            }
        },
        Data::Enum(data) => {
            errors.add(
                data.enum_token,
                "a service is a struct: `#[derive(Dependencies)]` cannot inject into an enum",
            );
            Vec::new()
        }
        Data::Union(data) => {
            errors.add(
                data.union_token,
                "a service is a struct: `#[derive(Dependencies)]` cannot inject into a union",
            );
            Vec::new()
        }
    }
}

/// Parses the expression in `#[dependency(EXPRESSION)]`.
fn provider(attribute: &Attribute) -> syn::Result<Expr> {
    const EXAMPLE: &str = "for example `#[dependency(RpcProxy::new(\"service_y\"))]`";
    match &attribute.meta {
        Meta::List(list) if list.tokens.is_empty() => Err(syn::Error::new_spanned(
            attribute,
            format!("write the provider in the parentheses, {EXAMPLE}"),
        )),
        Meta::List(list) => syn::parse2(list.tokens.clone()).map_err(|error| {
            syn::Error::new(
                error.span(),
                format!("the provider must be a single expression, {EXAMPLE}: {error}"),
            )
        }),
        Meta::Path(_) | Meta::NameValue(_) => Err(syn::Error::new_spanned(
            attribute,
            format!("write the provider in parentheses, {EXAMPLE}"),
        )),
    }
}

/// Checks that `#[dependencies]` has no arguments: the struct in the field declares the providers.
fn nested(attribute: &Attribute) -> syn::Result<()> {
    match &attribute.meta {
        Meta::Path(_) => Ok(()),
        _ => Err(syn::Error::new_spanned(
            attribute,
            "write `#[dependencies]` without arguments: the struct in this field declares its providers",
        )),
    }
}

fn implementation(service: &Ident, dependencies: &[Dependency<'_>]) -> TokenStream {
    let variables: Vec<_> = (0..dependencies.len()).map(variable).collect();
    let indexed = || dependencies.iter().enumerate();
    let declared = indexed().map(|(index, dependency)| dependency.declare(index));
    let taken = (0..dependencies.len()).map(resolve);
    let injected = indexed().map(|(index, dependency)| dependency.inject(index));
    let mixed = Span::mixed_site();
    let (bindings, ctx) = match dependencies {
        [] => (quote!(_), quote!(_)),
        [..] => (
            quote_spanned!(mixed=> bindings),
            quote_spanned!(mixed=> ctx),
        ),
    };
    quote_spanned! {mixed=>
        #[automatically_derived]
        #[allow(deprecated)]
        impl ::nameko::Dependencies for #service {
            fn bind(#bindings: &mut ::nameko::Bindings<'_>) -> ::nameko::Injector<Self> {
                #(#declared)*
                ::nameko::Injector::new(move |#ctx| {
                    #(let #variables = ::core::clone::Clone::clone(&#variables);)*
                    async move {
                        #(#taken)*
                        ::core::result::Result::Ok(Self { #(#injected),* })
                    }
                })
            }
        }
    }
}

/// Generates a placeholder impl after errors, to avoid follow-up errors.
fn placeholder(input: &DeriveInput, errors: &Errors) -> TokenStream {
    let service = &input.ident;
    if !input.generics.params.is_empty() {
        return quote!(#errors);
    }
    quote! {
        #errors
        #[automatically_derived]
        impl ::nameko::Dependencies for #service {
            fn bind(_: &mut ::nameko::Bindings<'_>) -> ::nameko::Injector<Self> {
                ::core::unreachable!()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errors::messages;

    fn errors(item: &str) -> Vec<String> {
        messages(expand(item.parse().unwrap()))
    }

    #[test]
    fn all_errors_are_reported_at_once() {
        let found = errors(
            "struct S { a: A, #[dependency] b: B, #[dependency()] c: C, #[dependency = D] d: D, \
             #[dependency(E)] #[dependency(E)] e: E, #[dependency(F G)] f: F }",
        );
        assert_eq!(found.len(), 6, "{found:#?}");
        assert!(
            found[0].starts_with("field `a` needs `#[dependency(PROVIDER)]`"),
            "{}",
            found[0]
        );
    }

    #[test]
    fn only_structs_with_named_fields_have_dependencies() {
        for item in [
            "struct S(A);",
            "struct S();",
            "enum S { A }",
            "union S { a: A }",
            "struct S<T> { #[dependency(P)] t: T }",
            "struct S<'a>;",
            "#[dependency(P)] struct S;",
            "#[dependencies] struct S;",
            "struct S { #[dependencies(P)] a: A }",
            "struct S { #[dependencies] #[dependency(P)] a: A }",
        ] {
            assert_eq!(errors(item).len(), 1, "{item}");
        }
        for item in [
            "struct S;",
            "struct S {}",
            "pub(crate) struct S { #[dependency(P)] pub r#type: T }",
            "struct S { #[dependencies] a: A, #[dependency(P)] b: B }",
        ] {
            assert_eq!(errors(item), [""; 0], "{item}");
        }
    }

    #[test]
    fn dependencies_are_named_like_their_fields_without_raw_prefix() {
        let expansion =
            expand("struct S { #[dependency(P)] r#type: T }".parse().unwrap()).to_string();
        assert!(
            expansion.contains(r#"(bindings , "type" , P)"#),
            "{expansion}"
        );
        assert!(expansion.contains("r#type : value0 . 0"), "{expansion}");
    }
}
