//! Checks that types are owned.

use quote::ToTokens;
use syn::{GenericArgument, Lifetime, PathArguments, ReturnType, Type, TypePath, TypeReference};

use crate::errors::Errors;

/// Reports each borrowed or unnamed part of an argument's type. `why` is the reason in the message.
pub(crate) fn check_argument(name: &str, ty: &Type, why: &str, errors: &mut Errors) {
    walk(ty, &mut |part| match part {
        TypePart::Reference(reference) => errors.add(
            reference,
            format!(
                "argument `{name}`: take `{}`, not `{}`: {why}",
                owned(&reference.elem),
                type_text(reference),
            ),
        ),
        TypePart::Lifetime(lifetime) if lifetime.ident != "static" => errors.add(
            lifetime,
            format!("argument `{name}`: take a type without `{lifetime}`: {why}"),
        ),
        TypePart::Impl(ty) => errors.add(
            ty,
            format!("argument `{name}`: write a type instead of `impl`: {why}"),
        ),
        TypePart::Lifetime(_) => {}
    });
}

/// Reports each part of an entrypoint's return type that borrows from the worker or is unnamed.
pub(crate) fn check_reply(ty: &Type, errors: &mut Errors) {
    walk(ty, &mut |part| match part {
        TypePart::Reference(reference)
            if reference
                .lifetime
                .as_ref()
                .is_none_or(|lifetime| lifetime.ident != "static") =>
        {
            errors.add(
                reference,
                format!(
                    "return `{}`, not `{}`: the reply outlives the worker",
                    owned(&reference.elem),
                    type_text(reference)
                ),
            );
        }
        TypePart::Lifetime(lifetime) if lifetime.ident != "static" => {
            errors.add(
                lifetime,
                format!("return a type without `{lifetime}`: the reply outlives the worker"),
            );
        }
        TypePart::Impl(ty) => errors.add(ty, "write the concrete type instead of `impl`"),
        TypePart::Reference(_) | TypePart::Lifetime(_) => {}
    });
}

/// Reports each borrowed or unnamed part of the return type of a client's method.
pub(crate) fn check_result(ty: &Type, errors: &mut Errors) {
    walk(ty, &mut |part| match part {
        TypePart::Reference(reference) => errors.add(
            reference,
            format!(
                "return `{}`, not `{}`: it is deserialized from the reply",
                owned(&reference.elem),
                type_text(reference)
            ),
        ),
        TypePart::Lifetime(lifetime) if lifetime.ident != "static" => errors.add(
            lifetime,
            format!("return a type without `{lifetime}`: it is deserialized from the reply"),
        ),
        TypePart::Impl(ty) => errors.add(ty, "write the concrete type instead of `impl`"),
        TypePart::Lifetime(_) => {}
    });
}

/// Returns whether the type is written as `Option<T>`, with or without its module.
pub(crate) fn is_option(ty: &Type) -> bool {
    match ty {
        Type::Path(TypePath { qself: None, path }) => {
            let words: Vec<_> = path
                .segments
                .iter()
                .map(|segment| segment.ident.to_string())
                .collect();
            matches!(
                words
                    .iter()
                    .map(String::as_str)
                    .collect::<Vec<_>>()
                    .as_slice(),
                ["Option"] | ["option", "Option"] | ["std" | "core", "option", "Option"]
            )
        }
        Type::Group(group) => is_option(&group.elem),
        Type::Paren(paren) => is_option(&paren.elem),
        _ => false,
    }
}

/// A part of a type that is borrowed or unnamed.
enum TypePart<'a> {
    Reference(&'a TypeReference),
    /// A lifetime in generic arguments, as in `Cow<'a, str>`.
    Lifetime(&'a Lifetime),
    Impl(&'a Type),
}

/// Calls `found` with each part, from left to right. Does not descend into reported parts.
fn walk<'a>(ty: &'a Type, found: &mut impl FnMut(TypePart<'a>)) {
    match ty {
        Type::Reference(reference) => found(TypePart::Reference(reference)),
        Type::ImplTrait(_) => found(TypePart::Impl(ty)),
        Type::Array(array) => walk(&array.elem, found),
        Type::Slice(slice) => walk(&slice.elem, found),
        Type::Group(group) => walk(&group.elem, found),
        Type::Paren(paren) => walk(&paren.elem, found),
        Type::Tuple(tuple) => tuple.elems.iter().for_each(|elem| walk(elem, found)),
        Type::Path(TypePath { path, .. }) => {
            for segment in &path.segments {
                match &segment.arguments {
                    PathArguments::AngleBracketed(arguments) => {
                        for argument in &arguments.args {
                            match argument {
                                GenericArgument::Type(ty) => walk(ty, found),
                                GenericArgument::Lifetime(lifetime) => {
                                    found(TypePart::Lifetime(lifetime));
                                }
                                _ => {}
                            }
                        }
                    }
                    PathArguments::Parenthesized(arguments) => {
                        arguments.inputs.iter().for_each(|input| walk(input, found));
                        if let ReturnType::Type(_, output) = &arguments.output {
                            walk(output, found);
                        }
                    }
                    PathArguments::None => {}
                }
            }
        }
        _ => {}
    }
}

/// Returns the owned equivalent of a reference to `ty`.
fn owned(ty: &Type) -> String {
    match ty {
        Type::Path(path) if path.path.is_ident("str") => "String".to_owned(),
        Type::Path(path) if path.path.is_ident("Path") => "PathBuf".to_owned(),
        Type::Slice(slice) => format!("Vec<{}>", owned_or_same(&slice.elem)),
        _ => owned_or_same(ty),
    }
}

fn owned_or_same(ty: &Type) -> String {
    match ty {
        Type::Reference(reference) => owned(&reference.elem),
        _ => type_text(ty),
    }
}

/// Formats a type as written, without the spaces of a printed token stream.
fn type_text(tokens: &impl ToTokens) -> String {
    let mut text = tokens.to_token_stream().to_string();
    for before in [" <", " >", " ,", " ;", " )", " ]", " ::"] {
        text = text.replace(before, before.trim_start());
    }
    for after in ["& ", "< ", "( ", "[ ", ":: "] {
        text = text.replace(after, after.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use quote::quote;

    use super::*;
    use crate::errors::messages;

    fn argument(ty: &str) -> Vec<String> {
        let mut errors = Errors::default();
        check_argument("x", &syn::parse_str(ty).unwrap(), "why", &mut errors);
        messages(quote!(#errors))
    }

    fn reply(ty: &str) -> Vec<String> {
        let mut errors = Errors::default();
        check_reply(&syn::parse_str(ty).unwrap(), &mut errors);
        messages(quote!(#errors))
    }

    #[test]
    fn borrowed_arguments_suggest_the_owned_type() {
        for (borrowed, owned) in [
            ("&str", "String"),
            ("&'static str", "String"),
            ("&mut u8", "u8"),
            ("&[u8]", "Vec<u8>"),
            ("&'static [u8]", "Vec<u8>"),
            ("&[u8; 4]", "[u8; 4]"),
            ("&(u8, Vec<u8>)", "(u8, Vec<u8>)"),
            ("&[&str]", "Vec<String>"),
            (
                "&std::collections::HashMap<String, Vec<u8>>",
                "std::collections::HashMap<String, Vec<u8>>",
            ),
        ] {
            let expected = format!("argument `x`: take `{owned}`, not `{borrowed}`: why");
            assert_eq!(argument(borrowed), [expected]);
        }
    }

    #[test]
    fn nested_references_are_found() {
        for ty in [
            "Option<&str>",
            "Vec<(u8, &str)>",
            "[&str; 2]",
            "(&str)",
            "Cow<'a, str>",
            "Cow<'_, str>",
            "Vec<impl Send>",
        ] {
            assert_eq!(argument(ty).len(), 1, "{ty}");
            assert_eq!(reply(&format!("Result<{ty}, E>")).len(), 1, "{ty}");
        }
    }

    #[test]
    fn owned_types_are_accepted() {
        for ty in [
            "String",
            "Option<Vec<u8>>",
            "Cow<'static, str>",
            "[u8; 4]",
            "()",
            "<T as Trait>::Item",
            "Self",
        ] {
            assert_eq!(argument(ty), [""; 0], "{ty}");
            assert_eq!(reply(&format!("Result<{ty}, E>")), [""; 0], "{ty}");
        }
        assert_eq!(reply("Result<&'static str>"), [""; 0]);
    }

    #[test]
    fn options_are_recognized_by_name() {
        for (ty, expected) in [
            ("Option<u8>", true),
            ("std::option::Option<u8>", true),
            ("::core::option::Option<u8>", true),
            ("(Option<u8>)", true),
            ("Vec<Option<u8>>", false),
            ("mine::Option<u8>", false),
            ("<u8 as Trait>::Option", false),
        ] {
            assert_eq!(is_option(&syn::parse_str(ty).unwrap()), expected, "{ty}");
        }
    }
}
