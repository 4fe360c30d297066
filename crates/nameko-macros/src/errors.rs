//! Collection of errors, so that all of them are reported at once.

use std::fmt::Display;

use proc_macro2::TokenStream;
use quote::ToTokens;

/// Errors found so far, each with the span of the user's tokens.
#[derive(Default)]
pub(crate) struct Errors {
    found: Option<syn::Error>,
}

impl Errors {
    /// Adds an error that spans `tokens`.
    pub(crate) fn add(&mut self, tokens: impl ToTokens, message: impl Display) {
        self.push(syn::Error::new_spanned(tokens, message));
    }

    /// Adds an error with a span.
    pub(crate) fn push(&mut self, error: syn::Error) {
        match &mut self.found {
            Some(found) => found.combine(error),
            None => self.found = Some(error),
        }
    }

    /// Adds all errors of `others`.
    pub(crate) fn append(&mut self, others: Self) {
        if let Some(others) = others.found {
            self.push(others);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_none()
    }
}

/// Generates one `compile_error!` per error.
impl ToTokens for Errors {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        if let Some(found) = &self.found {
            tokens.extend(found.to_compile_error());
        }
    }
}

/// Returns the messages of the errors in an expansion, in order.
#[cfg(test)]
pub(crate) fn messages(expansion: TokenStream) -> Vec<String> {
    let file: syn::File = syn::parse2(expansion).expect("an expansion is a list of items");
    let errors = file.items.iter().filter_map(|item| match item {
        syn::Item::Macro(item) if item.mac.path.segments.last()?.ident == "compile_error" => {
            item.mac.parse_body::<syn::LitStr>().ok()
        }
        _ => None,
    });
    errors.map(|text| text.value()).collect()
}
