//! Arguments of `#[rpc_client(...)]`.

use proc_macro2::{Span, TokenStream};
use syn::{
    Ident, LitStr, Token,
    ext::IdentExt,
    parse::{ParseStream, Parser},
};

use crate::{errors::Errors, service};

/// Parsed arguments of the attribute.
pub(super) struct Options {
    /// The service's name.
    pub(super) service: String,
    /// The name of the generated struct.
    pub(super) client: Option<Ident>,
    /// Whether arguments are passed by position.
    pub(super) positional: bool,
}

impl Options {
    pub(super) fn parse(arguments: TokenStream, errors: &mut Errors) -> Self {
        let mut options = Self {
            service: String::new(),
            client: None,
            positional: false,
        };
        if arguments.is_empty() {
            errors.push(syn::Error::new(
                Span::call_site(),
                "write the service's name: `#[rpc_client(\"service_y\")]`",
            ));
            return options;
        }
        let parse = |input: ParseStream<'_>| {
            options.read(input, errors);
            // The rest after an error is ignored.
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
                let message = "expected the service's name first, as a string literal: `#[rpc_client(\"service_y\")]`";
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
                    syn::Error::new(error.span(), "expected an identifier: `client = Name`")
                })?);
            }
            other => {
                return Err(syn::Error::new_spanned(
                    &option,
                    format!("unknown option `{other}`: {KNOWN}"),
                ));
            }
        }
        Ok(())
    }
}
