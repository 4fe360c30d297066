//! `#[derive(Exception)]`.

use std::collections::HashSet;

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{Attribute, Data, DeriveInput, Field, Fields, Ident, LitStr, Member, Meta, Type};

use crate::errors::Errors;

pub(crate) fn expand(item: TokenStream) -> TokenStream {
    let input: DeriveInput = match syn::parse2(item) {
        Ok(input) => input,
        Err(error) => return error.to_compile_error(),
    };
    let mut errors = Errors::default();
    if !input.generics.params.is_empty() {
        errors.add(
            &input.generics,
            "an exception cannot be generic: its class path identifies one type; use concrete types",
        );
    }
    let classes = classes(&input, &mut errors);
    let mut known = HashSet::new();
    for class in &classes {
        if let ClassKind::Path(path) = &class.kind
            && !known.insert(path.value())
            && class.conditions.is_empty()
        {
            errors.add(
                path,
                "duplicate class path: callers distinguish variants by it",
            );
        }
    }
    if errors.is_empty() {
        implementation(&input, &classes)
    } else {
        placeholder(&input, &errors)
    }
}

/// A struct or variant, as an exception class.
struct Class<'a> {
    /// `Self`, or `Self::Variant`.
    name: TokenStream,
    /// The `#[cfg]` attributes of the variant.
    conditions: Vec<&'a Attribute>,
    fields: Vec<(Member, &'a Type)>,
    kind: ClassKind,
}

enum ClassKind {
    /// The class path on the wire.
    Path(LitStr),
    /// The error in its only field.
    Transparent,
}

fn classes<'a>(input: &'a DeriveInput, errors: &mut Errors) -> Vec<Class<'a>> {
    match &input.data {
        Data::Struct(data) => Class::parse(
            quote!(Self),
            &input.ident,
            &input.attrs,
            &data.fields,
            errors,
        )
        .into_iter()
        .collect(),
        Data::Enum(data) => {
            for attribute in input
                .attrs
                .iter()
                .filter(|attribute| is_exception(attribute))
            {
                errors.add(
                    attribute,
                    "`#[exception(...)]` belongs on each variant of an enum: callers see each variant as a class",
                );
            }
            let variants = data.variants.iter().filter_map(|variant| {
                let ident = &variant.ident;
                Class::parse(
                    quote!(Self::#ident),
                    ident,
                    &variant.attrs,
                    &variant.fields,
                    errors,
                )
            });
            variants.collect()
        }
        Data::Union(data) => {
            errors.add(
                data.union_token,
                "`#[derive(Exception)]` supports structs and enums only",
            );
            Vec::new()
        }
    }
}

impl<'a> Class<'a> {
    fn parse(
        name: TokenStream,
        ident: &Ident,
        attributes: &'a [Attribute],
        fields: &'a Fields,
        errors: &mut Errors,
    ) -> Option<Self> {
        for field in fields {
            for attribute in field
                .attrs
                .iter()
                .filter(|attribute| is_exception(attribute))
            {
                errors.add(
                    attribute,
                    "`#[exception(...)]` belongs on the struct or the variant, not on a field",
                );
            }
        }
        let mut own = attributes
            .iter()
            .filter(|attribute| is_exception(attribute));
        let Some(attribute) = own.next() else {
            errors.add(
                ident,
                format!(
                    "`{ident}` needs `#[exception(\"module.{ident}\")]`, or `#[exception(transparent)]` for a wrapped error"
                ),
            );
            return None;
        };
        for again in own {
            errors.add(
                again,
                format!("duplicate attribute on `{ident}`: remove one `#[exception(...)]`"),
            );
        }
        let kind = match ClassKind::parse(attribute) {
            Ok(kind) => kind,
            Err(error) => {
                errors.push(error);
                return None;
            }
        };
        if matches!(kind, ClassKind::Transparent) && fields.len() != 1 {
            errors.add(
                attribute,
                format!("`{ident}` has {} fields: a transparent exception has exactly one, the wrapped error", fields.len()),
            );
        }
        Some(Self {
            name,
            conditions: attributes
                .iter()
                .filter(|attribute| attribute.path().is_ident("cfg"))
                .collect(),
            fields: fields.iter().enumerate().map(member).collect(),
            kind,
        })
    }

    fn path(&self) -> Option<TokenStream> {
        let Self {
            conditions, kind, ..
        } = self;
        match kind {
            ClassKind::Path(path) => Some(quote!(#(#conditions)* #path)),
            ClassKind::Transparent => None,
        }
    }

    /// Generates the match arm that creates the error object.
    fn write(&self) -> TokenStream {
        let Self {
            name,
            conditions,
            fields,
            kind,
        } = self;
        let variables: Vec<_> = (0..fields.len()).map(variable).collect();
        let members = fields.iter().map(|(member, _)| member);
        let fault = match kind {
            ClassKind::Path(path) => {
                let sent = variables.iter().zip(fields).map(|(variable, (_, ty))| {
                    quote_spanned!(Span::mixed_site()=> ::nameko::private::sent::<#ty>(#variable))
                });
                quote_spanned!(Span::mixed_site()=> ::nameko::Fault::exception(#path, (#(#sent,)*), self))
            }
            ClassKind::Transparent => {
                let types = fields.iter().map(|(_, ty)| ty);
                quote_spanned! {Span::mixed_site()=> {
                    use ::nameko::private::{ExceptionFault as _, DefaultFault as _};
                    #(::nameko::private::fault_of(#variables, (&::nameko::private::ErrorTag::<#types>::new()).fault()))*
                }}
            }
        };
        quote_spanned!(Span::mixed_site()=> #(#conditions)* #name { #(#members: #variables),* } => #fault,)
    }

    /// Generates the match arm that reads the error.
    fn read(&self) -> Option<TokenStream> {
        let Self {
            name,
            conditions,
            fields,
            kind,
        } = self;
        let ClassKind::Path(path) = kind else {
            return None;
        };
        let values = fields.iter().enumerate().map(|(index, (member, ty))| {
            quote_spanned!(Span::mixed_site()=> #member: ::nameko::private::received::<#ty>(error, #index)?)
        });
        Some(quote_spanned! {Span::mixed_site()=>
            #(#conditions)*
            #path => ::core::option::Option::Some(#name { #(#values),* }),
        })
    }
}

impl ClassKind {
    fn parse(attribute: &Attribute) -> syn::Result<Self> {
        const ADVICE: &str = "write the class path, `#[exception(\"module.Class\")]`, or `#[exception(transparent)]`";
        let Meta::List(list) = &attribute.meta else {
            return Err(syn::Error::new_spanned(attribute, ADVICE));
        };
        if let Ok(word) = syn::parse2::<Ident>(list.tokens.clone())
            && word == "transparent"
        {
            return Ok(Self::Transparent);
        }
        let path: LitStr =
            syn::parse2(list.tokens.clone()).map_err(|_| match list.tokens.is_empty() {
                true => syn::Error::new_spanned(attribute, ADVICE),
                false => syn::Error::new_spanned(&list.tokens, ADVICE),
            })?;
        let text = path.value();
        let is_word =
            |word: &str| !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || c == '_');
        if text.split('.').all(is_word) {
            Ok(Self::Path(path))
        } else {
            Err(syn::Error::new_spanned(
                path,
                "a class path consists of identifiers separated by dots, such as `shop.exceptions.NotFound`",
            ))
        }
    }
}

fn member((index, field): (usize, &Field)) -> (Member, &Type) {
    let member = match &field.ident {
        Some(ident) => Member::Named(ident.clone()),
        None => Member::Unnamed(index.into()),
    };
    (member, &field.ty)
}

fn variable(index: usize) -> Ident {
    format_ident!("field{index}", span = Span::mixed_site())
}

fn is_exception(attribute: &Attribute) -> bool {
    attribute.path().is_ident("exception")
}

fn implementation(input: &DeriveInput, classes: &[Class<'_>]) -> TokenStream {
    let name = &input.ident;
    let paths = classes.iter().filter_map(Class::path);
    let written = classes.iter().map(Class::write);
    let read = classes.iter().filter_map(Class::read);
    let conversion = conversion(input);
    // An enum without variants must be matched by value.
    let mixed = Span::mixed_site();
    let value = match &input.data {
        Data::Enum(data) if data.variants.is_empty() => quote_spanned!(mixed=> *self),
        _ => quote_spanned!(mixed=> self),
    };
    quote_spanned! {Span::mixed_site()=>
        #[automatically_derived]
        #[allow(deprecated)]
        impl ::nameko::Exception for #name {
            const PATHS: &'static [&'static str] = &[#(#paths),*];

            fn to_fault(&self) -> ::nameko::Fault {
                match #value {
                    #(#written)*
                }
            }

            fn from_remote(error: &::nameko::RemoteError) -> ::core::option::Option<Self> {
                match error.exc_path.as_str() {
                    #(#read)*
                    _ => ::core::option::Option::None,
                }
            }
        }
        #conversion
    }
}

/// Generates the conversion to `nameko::Error`, for `?` and `.into()`.
fn conversion(input: &DeriveInput) -> TokenStream {
    let name = &input.ident;
    quote_spanned! {Span::mixed_site()=>
        #[automatically_derived]
        impl ::core::convert::From<#name> for ::nameko::Error {
            fn from(error: #name) -> Self {
                ::nameko::Error::from_exception(error)
            }
        }
    }
}

/// Generates placeholder impls after errors, to avoid follow-up errors.
fn placeholder(input: &DeriveInput, errors: &Errors) -> TokenStream {
    let name = &input.ident;
    if !input.generics.params.is_empty() {
        return quote!(#errors);
    }
    let conversion = conversion(input);
    quote! {
        #errors
        #[automatically_derived]
        impl ::nameko::Exception for #name {
            const PATHS: &'static [&'static str] = &[];

            fn to_fault(&self) -> ::nameko::Fault {
                ::core::unreachable!()
            }

            fn from_remote(_: &::nameko::RemoteError) -> ::core::option::Option<Self> {
                ::core::unreachable!()
            }
        }
        #conversion
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
    fn each_rule_is_one_error() {
        for item in [
            "struct E;",
            "#[exception] struct E;",
            "#[exception()] struct E;",
            "#[exception = \"a.E\"] struct E;",
            "#[exception(a.E)] struct E;",
            "#[exception(\"\")] struct E;",
            "#[exception(\"a..E\")] struct E;",
            "#[exception(\"a::E\")] struct E;",
            "#[exception(\"a.E\")] #[exception(\"a.F\")] struct E;",
            "#[exception(transparent)] struct E;",
            "#[exception(transparent)] struct E(A, B);",
            "#[exception(\"a.E\")] struct E<T>(T);",
            "#[exception(\"a.E\")] struct E(#[exception(\"a.F\")] u8);",
            "#[exception(\"a.E\")] enum E { #[exception(\"a.A\")] A }",
            "enum E { A }",
            "enum E { #[exception(\"a.A\")] A, #[exception(\"a.A\")] B }",
            "union E { a: A }",
        ] {
            assert_eq!(errors(item).len(), 1, "{item}: {:#?}", errors(item));
        }
    }

    #[test]
    fn structs_and_enums_of_all_shapes_are_exceptions() {
        for item in [
            "#[exception(\"E\")] struct E;",
            "#[exception(\"a.b.E\")] struct E(u8, String);",
            "#[exception(\"a.b.E\")] struct E { r#type: u8 }",
            "#[exception(transparent)] struct E(Other);",
            "enum E {}",
            "enum E { #[exception(\"a.A\")] A, #[exception(\"a.B\")] B(u8), #[exception(transparent)] C { c: C } }",
        ] {
            assert_eq!(errors(item), [""; 0], "{item}");
        }
    }

    #[test]
    fn all_errors_are_reported_at_once() {
        let found = errors(
            "enum E { A, #[exception] B, #[exception(\"a.\")] C, #[exception(transparent)] D }",
        );
        assert_eq!(found.len(), 4, "{found:#?}");
    }
}
