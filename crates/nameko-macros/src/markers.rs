//! Markers: parsing of their arguments.
//!
//! The arguments become calls of the entrypoint's builder, which defines their meaning:
//! `#[event_handler("shop", "paid", reliable_delivery = false)]` becomes
//! `EventHandler::new("shop", "paid").reliable_delivery(false)`.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{
    Attribute, Expr, ExprLit, ExprPath, Ident, Lit, LitStr, Meta, Path, Token, ext::IdentExt,
    punctuated::Punctuated, spanned::Spanned,
};

use crate::{constants, errors::Errors, literals};

/// Options of the method, supported by all markers.
const EXPECTED: &str = "expected_exceptions";
const SENSITIVE: &str = "sensitive_arguments";

/// A kind of marker.
pub(crate) struct MarkerKind {
    /// The marker's name.
    pub(crate) name: &'static str,
    /// An example, for error messages.
    usage: &'static str,
    /// Parameters of the entrypoint's `new`; each may also be given by name.
    positional: &'static [&'static str],
    /// Methods of the entrypoint's builder with one parameter.
    options: &'static [&'static str],
    /// The options that may be written without a value, which is then `true`.
    flags: &'static [&'static str],
    /// Arguments of the method's calls.
    pub(crate) call_arguments: CallArguments,
    /// Whether a method may have several of these markers.
    pub(crate) repeats: bool,
    /// The feature of the crate `nameko` that the entrypoint needs.
    feature: Option<Feature>,
}

/// A feature of the crate `nameko`, which enables the feature of this crate with the same name.
struct Feature {
    name: &'static str,
    enabled: bool,
}

const CRON: Option<Feature> = Some(Feature {
    name: "cron",
    enabled: cfg!(feature = "cron"),
});
const HTTP: Option<Feature> = Some(Feature {
    name: "http",
    enabled: cfg!(feature = "http"),
});
const WEBSOCKET: Option<Feature> = Some(Feature {
    name: "websocket",
    enabled: cfg!(feature = "websocket"),
});

/// Arguments with which an entrypoint calls its method. The texts describe the argument.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum CallArguments {
    /// Any arguments, from the caller.
    Any,
    /// No arguments.
    Nothing,
    /// One optional argument.
    AtMostOne(&'static str),
    /// A message: its decoded body, or the raw message.
    Message(&'static str),
    /// One argument, followed by any from the caller.
    OneAndAny(&'static str),
    /// Parts of an HTTP request, according to their types.
    HttpRequest,
}

/// HTTP methods that may be written as identifiers.
const HTTP_METHODS: &[&str] = &[
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT",
];

const MARKER_KINDS: &[MarkerKind] = &[
    MarkerKind {
        name: "rpc",
        usage: "#[rpc]",
        positional: &[],
        options: &["queue_arguments"],
        flags: &[],
        call_arguments: CallArguments::Any,
        repeats: false,
        feature: None,
    },
    MarkerKind {
        name: "event_handler",
        usage: "#[event_handler(\"source_service\", \"event_type\")]",
        positional: &["source_service", "event_type"],
        options: &[
            "handler_type",
            "reliable_delivery",
            "requeue_on_error",
            "reject_on_error",
            "broadcast_identifier",
            "queue_arguments",
            "prefetch_count",
        ],
        flags: &["reliable_delivery", "requeue_on_error", "reject_on_error"],
        call_arguments: CallArguments::Message("the event's data"),
        repeats: true,
        feature: None,
    },
    MarkerKind {
        name: "consume",
        usage: "#[consume(Queue::new(\"name\"))]",
        positional: &["queue"],
        options: &["requeue_on_error", "reject_on_error", "prefetch_count"],
        flags: &["requeue_on_error", "reject_on_error"],
        call_arguments: CallArguments::Message("the message's body"),
        repeats: true,
        feature: None,
    },
    MarkerKind {
        name: "timer",
        usage: "#[timer(interval = 5)]",
        positional: &["interval"],
        options: &["eager"],
        flags: &["eager"],
        call_arguments: CallArguments::Nothing,
        repeats: true,
        feature: None,
    },
    MarkerKind {
        name: "cron",
        usage: "#[cron(\"0 3 * * *\", tz = \"Europe/London\")]",
        positional: &["expression"],
        options: &["tz", "once", "late"],
        flags: &[],
        call_arguments: CallArguments::AtMostOne("the scheduled time"),
        repeats: true,
        feature: CRON,
    },
    MarkerKind {
        name: "http",
        usage: "#[http(GET, \"/path\")]",
        positional: &[],
        options: &["cancel_on_disconnect", "max_body", "timeout"],
        flags: &["cancel_on_disconnect"],
        call_arguments: CallArguments::HttpRequest,
        repeats: true,
        feature: HTTP,
    },
    MarkerKind {
        name: "websocket_rpc",
        usage: "#[websocket_rpc]",
        positional: &[],
        options: &[],
        flags: &[],
        call_arguments: CallArguments::OneAndAny("the socket's id"),
        repeats: false,
        feature: WEBSOCKET,
    },
    MarkerKind {
        name: "entrypoint",
        usage: "#[entrypoint(EXPRESSION)]",
        positional: &["entrypoint"],
        options: &[],
        flags: &[],
        call_arguments: CallArguments::Any,
        repeats: true,
        feature: None,
    },
];

impl MarkerKind {
    /// Returns the marker that a path names, if any.
    pub(crate) fn of(path: &Path) -> Option<&'static Self> {
        let last = path.segments.last()?;
        if path.segments.len() > 1 && path.segments[0].ident != "nameko" {
            return None;
        }
        MARKER_KINDS.iter().find(|kind| last.ident == kind.name)
    }

    /// Returns the path of the entrypoint's type.
    fn path(&self) -> TokenStream {
        match self.name {
            "rpc" => quote!(::nameko::Rpc),
            "event_handler" => quote!(::nameko::EventHandler),
            "consume" => quote!(::nameko::Consume),
            "timer" => quote!(::nameko::Timer),
            "cron" => quote!(::nameko::Cron),
            "http" => quote!(::nameko::web::Http),
            _ => quote!(::nameko::web::WebSocketRpc),
        }
    }

    fn list_options(&self) -> String {
        let options = self.positional.iter().chain(self.options);
        let options = options.chain(&[EXPECTED, SENSITIVE]);
        let quoted: Vec<_> = options.map(|option| format!("`{option}`")).collect();
        quoted.join(", ")
    }
}

/// A parsed marker.
pub(crate) struct Marker {
    pub(crate) kind: &'static MarkerKind,
    /// The path as written by the user.
    pub(crate) path: Path,
    positional: Vec<Option<TokenStream>>,
    /// Calls of the builder, in order.
    options: Vec<(Ident, TokenStream)>,
    expected: Vec<LitStr>,
    sensitive: Vec<LitStr>,
}

impl Marker {
    /// Parses a marker. Reports invalid arguments to `errors`.
    pub(crate) fn parse(
        kind: &'static MarkerKind,
        attribute: &Attribute,
        errors: &mut Errors,
    ) -> Self {
        let mut marker = Self {
            kind,
            path: attribute.path().clone(),
            positional: Vec::new(),
            options: Vec::new(),
            expected: Vec::new(),
            sensitive: Vec::new(),
        };
        if let Some(Feature {
            name,
            enabled: false,
        }) = kind.feature
        {
            let text = format!(
                "`#[{}]` needs the feature `{name}` of the crate nameko: add \"{name}\" to its `features` in Cargo.toml",
                kind.name
            );
            errors.add(attribute, text);
            return marker;
        }
        let arguments = match &attribute.meta {
            Meta::Path(_) => Punctuated::new(),
            Meta::List(list) => {
                match list.parse_args_with(Punctuated::<Expr, Token![,]>::parse_terminated) {
                    Ok(arguments) => arguments,
                    Err(error) => {
                        errors.push(error);
                        return marker;
                    }
                }
            }
            Meta::NameValue(value) => {
                errors.add(value, format!("write `{}`", kind.usage));
                return marker;
            }
        };
        if kind.name == "http" {
            marker.http(attribute, arguments, errors);
        } else {
            marker.read(attribute, arguments, errors);
        }
        marker
    }

    fn read(
        &mut self,
        attribute: &Attribute,
        arguments: impl IntoIterator<Item = Expr>,
        errors: &mut Errors,
    ) {
        let kind = self.kind;
        self.positional.resize_with(kind.positional.len(), || None);
        let mut next = 0;
        for argument in arguments {
            let Some(argument) = self.take_named(argument, errors) else {
                continue;
            };
            match self.positional.get_mut(next) {
                Some(Some(_)) => errors.add(&argument, duplicate_option(kind.positional[next])),
                Some(slot) => *slot = Some(argument.into_token_stream()),
                None => errors.add(
                    &argument,
                    match (kind.positional, single_ident(&argument)) {
                        (_, Some(word)) => unknown(kind, &word),
                        ([], None) => format!(
                            "unexpected argument of `#[{}]`; its options are {}",
                            kind.name,
                            kind.list_options()
                        ),
                        _ => format!("too many arguments: write `{}`", kind.usage),
                    },
                ),
            }
            next += 1;
        }
        if self.positional.iter().any(Option::is_none) {
            errors.add(attribute, format!("write `{}`", kind.usage));
        }
        literals::check(kind.name, &self.literals(), errors);
    }

    /// Parses HTTP methods followed by a path: `GET, POST, "/orders"`.
    fn http(
        &mut self,
        attribute: &Attribute,
        arguments: impl IntoIterator<Item = Expr>,
        errors: &mut Errors,
    ) {
        let mut given: Vec<Expr> = Vec::new();
        for argument in arguments {
            given.extend(self.take_named(argument, errors));
        }
        let Some(url) = given.pop() else {
            return errors.add(attribute, format!("write `{}`", self.kind.usage));
        };
        let is_path = |text: &Expr| matches!(text, Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) if text.value().starts_with('/'));
        if matches!(&url, Expr::Lit(_)) && !is_path(&url) {
            errors.add(
                &url,
                "a path must start with `/`: write `#[http(GET, \"/path\")]`",
            );
        }
        if given.is_empty() {
            errors.add(
                &url,
                "write the method before the path: `#[http(GET, \"/path\")]`",
            );
        }
        let mut methods = String::new();
        let mut place = Span::call_site();
        for method in given {
            place = method.span();
            match &method {
                Expr::Lit(ExprLit {
                    lit: Lit::Str(text),
                    ..
                }) => add_method(&mut methods, &text.value()),
                _ => match single_ident(&method) {
                    Some(word) if HTTP_METHODS.contains(&word.to_string().as_str()) => {
                        add_method(&mut methods, &word.to_string());
                    }
                    Some(word) => errors.add(
                        &word,
                        format!(
                            "`{word}` is not a standard HTTP method: use one of {}, or `\"{word}\"` for a custom one",
                            HTTP_METHODS.join(", ")
                        ),
                    ),
                    None => errors.add(&method, "write an HTTP method, such as `GET`"),
                },
            }
        }
        self.positional = vec![
            Some(quote_spanned!(place=> #methods)),
            Some(url.into_token_stream()),
        ];
    }

    /// Consumes a named argument or flag; returns a positional one.
    fn take_named(&mut self, argument: Expr, errors: &mut Errors) -> Option<Expr> {
        let kind = self.kind;
        match argument {
            Expr::Assign(assign) => {
                let Some(name) = single_ident(&assign.left) else {
                    errors.add(&assign.left, "write `option = value`");
                    return None;
                };
                let text = name.unraw().to_string();
                if let Some(at) = kind.positional.iter().position(|known| *known == text) {
                    if self.positional[at].is_some() {
                        errors.add(&name, duplicate_option(&text));
                    }
                    self.positional[at] = Some(assign.right.into_token_stream());
                } else if kind.options.contains(&text.as_str()) {
                    let value = option_value(&text, *assign.right, errors);
                    self.option(name, value, errors);
                } else if [EXPECTED, SENSITIVE].contains(&text.as_str()) {
                    errors.add(
                        &name,
                        format!("write `{text}(...)`, with a list in parentheses"),
                    );
                } else {
                    errors.add(&name, unknown(kind, &name));
                }
                None
            }
            Expr::Call(call) => match single_ident(&call.func).map(|name| name.to_string()) {
                Some(name) if name == EXPECTED || name == SENSITIVE => {
                    let (list, expected) = match name == EXPECTED {
                        true => (&mut self.expected, "an exception's name"),
                        false => (&mut self.sensitive, "an argument's name"),
                    };
                    if !list.is_empty() {
                        errors.add(&call.func, duplicate_option(&name));
                    }
                    *list = parse_names(call.args, expected, errors);
                    None
                }
                _ => Some(Expr::Call(call)),
            },
            other => match single_ident(&other) {
                Some(word) if kind.flags.contains(&word.to_string().as_str()) => {
                    self.option(word, quote!(true), errors);
                    None
                }
                _ => Some(other),
            },
        }
    }

    fn option(&mut self, name: Ident, value: TokenStream, errors: &mut Errors) {
        if self.options.iter().any(|(known, _)| *known == name) {
            errors.add(&name, duplicate_option(&name.to_string()));
        }
        self.options.push((name, value));
    }

    /// Returns the arguments that are literals, with their names.
    fn literals(&self) -> Vec<(String, Lit)> {
        let positional = self.kind.positional.iter().zip(&self.positional);
        let positional = positional.map(|(name, value)| ((*name).to_owned(), value.clone()));
        let options = self.options.iter();
        let options = options.map(|(name, value)| (name.to_string(), Some(value.clone())));
        let literal =
            |(name, value): (String, Option<TokenStream>)| Some((name, syn::parse2(value?).ok()?));
        positional.chain(options).filter_map(literal).collect()
    }

    /// Generates the expression that creates the entrypoint.
    pub(crate) fn entrypoint(&self) -> TokenStream {
        let positional = self.positional.iter().flatten();
        if self.kind.name == "entrypoint" {
            return quote!(#(#positional)*);
        }
        let path = self.kind.path();
        let calls = self
            .options
            .iter()
            .map(|(name, value)| quote!(.#name(#value)));
        quote!(#path::new(#(#positional),*) #(#calls)*)
    }

    /// Returns the path of `#[http]` if it is an expression for a constant.
    pub(crate) fn constant_path(&self) -> Option<TokenStream> {
        match (self.kind.call_arguments, self.positional.get(1)) {
            (CallArguments::HttpRequest, Some(Some(path))) if constants::is_text(path) => {
                Some(path.clone())
            }
            _ => None,
        }
    }

    /// Checks that sensitive arguments exist: a typo would expose them in logs.
    pub(crate) fn check_sensitive(&self, params: &[&str], errors: &mut Errors) {
        for pattern in &self.sensitive {
            let text = pattern.value();
            let first = text.split(['.', '[']).next().unwrap_or_default();
            if !params.contains(&first) {
                errors.add(pattern, format!("the method has no argument `{first}`"));
            }
        }
    }

    /// Generates the options of the method.
    pub(crate) fn method_options(&self) -> TokenStream {
        let (expected, sensitive) = (&self.expected, &self.sensitive);
        let expected = (!expected.is_empty())
            .then(|| quote!(.expected_exceptions(const { &[#(#expected),*] })));
        let sensitive = (!sensitive.is_empty())
            .then(|| quote!(.sensitive_arguments(const { &[#(#sensitive),*] })));
        quote!(#expected #sensitive)
    }
}

fn duplicate_option(option: &str) -> String {
    format!("duplicate option `{option}`")
}

fn unknown(kind: &MarkerKind, word: &Ident) -> String {
    format!(
        "`#[{}]` has no option `{word}`; its options are {}",
        kind.name,
        kind.list_options()
    )
}

fn add_method(methods: &mut String, method: &str) {
    if !methods.is_empty() {
        methods.push(',');
    }
    methods.push_str(method);
}

/// Parses strings, or the last segments of paths: `"ValueError"`, `errors::NotFound`.
fn parse_names(
    arguments: impl IntoIterator<Item = Expr>,
    expected: &str,
    errors: &mut Errors,
) -> Vec<LitStr> {
    let mut found = Vec::new();
    for argument in arguments {
        match &argument {
            Expr::Lit(ExprLit {
                lit: Lit::Str(text),
                ..
            }) => found.push(text.clone()),
            Expr::Path(ExprPath {
                qself: None, path, ..
            }) => found.extend(
                path.segments
                    .last()
                    .map(|last| LitStr::new(&last.ident.unraw().to_string(), last.span())),
            ),
            other => errors.add(other, format!("write {expected}")),
        }
    }
    found
}

/// Converts the value of an option. Handler types may be written as identifiers.
fn option_value(option: &str, value: Expr, errors: &mut Errors) -> TokenStream {
    if option == "handler_type"
        && let Some(word) = single_ident(&value)
    {
        let variant = match word.to_string().as_str() {
            "service_pool" => "ServicePool",
            "singleton" => "Singleton",
            "broadcast" => "Broadcast",
            other => {
                // An identifier in upper case is a constant of the user.
                if other.starts_with(char::is_lowercase) {
                    errors.add(&word, "expected `service_pool`, `singleton` or `broadcast`");
                    return quote!(::nameko::HandlerType::ServicePool);
                }
                return value.into_token_stream();
            }
        };
        let variant = Ident::new(variant, word.span());
        return quote_spanned!(word.span()=> ::nameko::HandlerType::#variant);
    }
    value.into_token_stream()
}

fn single_ident(expression: &Expr) -> Option<Ident> {
    match expression {
        Expr::Path(ExprPath {
            qself: None, path, ..
        }) => path.get_ident().cloned(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;
    use crate::errors::messages;

    /// Returns the generated entrypoint and method options, or the error messages.
    fn read(attribute: Attribute) -> Result<String, Vec<String>> {
        let kind = MarkerKind::of(attribute.path()).expect("a marker");
        let mut errors = Errors::default();
        let marker = Marker::parse(kind, &attribute, &mut errors);
        if errors.is_empty() {
            let whole = [marker.entrypoint(), marker.method_options()];
            Ok(whole
                .map(|tokens| tokens.to_string().replace(' ', ""))
                .join(";"))
        } else {
            Err(messages(errors.into_token_stream()))
        }
    }

    #[cfg(not(feature = "cron"))]
    #[test]
    fn a_disabled_marker_names_its_feature() {
        let error = read(parse_quote!(#[cron("0 3 * * *")])).unwrap_err();
        assert!(
            error
                .concat()
                .contains("`#[cron]` needs the feature `cron` of the crate nameko"),
            "{error:?}"
        );
    }

    #[cfg(all(feature = "cron", feature = "websocket"))]
    #[test]
    fn arguments_become_calls_of_the_builder() {
        let table: Vec<(Attribute, &str)> = vec![
            (parse_quote!(#[rpc]), "::nameko::Rpc::new();"),
            (parse_quote!(#[rpc()]), "::nameko::Rpc::new();"),
            (
                parse_quote!(#[nameko::rpc(queue_arguments = table())]),
                "::nameko::Rpc::new().queue_arguments(table());",
            ),
            (
                parse_quote!(#[rpc(expected_exceptions(NotFound, shop::Gone, "ValueError"), sensitive_arguments("user.password"))]),
                "::nameko::Rpc::new();.expected_exceptions(const{&[\"NotFound\",\"Gone\",\"ValueError\"]}).sensitive_arguments(const{&[\"user.password\"]})",
            ),
            (
                parse_quote!(#[event_handler("shop", "paid", handler_type = broadcast, reliable_delivery = false, requeue_on_error)]),
                "::nameko::EventHandler::new(\"shop\",\"paid\").handler_type(::nameko::HandlerType::Broadcast).reliable_delivery(false).requeue_on_error(true);",
            ),
            (
                parse_quote!(#[event_handler(SHOP, event_type = PAID, handler_type = kind())]),
                "::nameko::EventHandler::new(SHOP,PAID).handler_type(kind());",
            ),
            (
                parse_quote!(#[consume(Queue::new("q"), prefetch_count = 1)]),
                "::nameko::Consume::new(Queue::new(\"q\")).prefetch_count(1);",
            ),
            (
                parse_quote!(#[timer(0.5, eager)]),
                "::nameko::Timer::new(0.5).eager(true);",
            ),
            (
                parse_quote!(#[timer(interval = 5, eager = false)]),
                "::nameko::Timer::new(5).eager(false);",
            ),
            (
                parse_quote!(#[cron("0 3 * * *", tz = "UTC", once = "fleet")]),
                "::nameko::Cron::new(\"03***\").tz(\"UTC\").once(\"fleet\");",
            ),
            (
                parse_quote!(#[http(GET, POST, "/a")]),
                "::nameko::web::Http::new(\"GET,POST\",\"/a\");",
            ),
            (
                parse_quote!(#[http(GET, "/a", cancel_on_disconnect, max_body = 1 << 20, timeout = 5)]),
                "::nameko::web::Http::new(\"GET\",\"/a\").cancel_on_disconnect(true).max_body(1<<20).timeout(5);",
            ),
            (
                parse_quote!(#[http("GET,POST", PATH)]),
                "::nameko::web::Http::new(\"GET,POST\",PATH);",
            ),
            (
                parse_quote!(#[websocket_rpc]),
                "::nameko::web::WebSocketRpc::new();",
            ),
            (parse_quote!(#[entrypoint(Mine::new(1))]), "Mine::new(1);"),
        ];
        for (attribute, expected) in table {
            assert_eq!(read(attribute).as_deref(), Ok(expected));
        }
    }

    #[cfg(all(feature = "cron", feature = "websocket"))]
    #[test]
    fn each_invalid_argument_is_one_error_with_advice() {
        let table: Vec<(Attribute, &str)> = vec![
            (
                parse_quote!(#[rpc(x)]),
                "`#[rpc]` has no option `x`; its options are `queue_arguments`, `expected_exceptions`, `sensitive_arguments`",
            ),
            (
                parse_quote!(#[rpc(eager = true)]),
                "`#[rpc]` has no option `eager`",
            ),
            (
                parse_quote!(#[rpc("x")]),
                "unexpected argument of `#[rpc]`; its options are `queue_arguments`",
            ),
            (
                parse_quote!(#[event_handler("shop", "paid", handler_type = singelton)]),
                "expected `service_pool`, `singleton` or `broadcast`",
            ),
            (
                parse_quote!(#[http(GTE, "/orders")]),
                "`GTE` is not a standard HTTP method: use one of GET, HEAD,",
            ),
            (parse_quote!(#[rpc = "x"]), "write `#[rpc]`"),
            (
                parse_quote!(#[rpc(expected_exceptions = X)]),
                "write `expected_exceptions(...)`",
            ),
            (
                parse_quote!(#[rpc(expected_exceptions(1))]),
                "write an exception's name",
            ),
            (
                parse_quote!(#[event_handler("shop")]),
                "write `#[event_handler(\"source_service\", \"event_type\")]`",
            ),
            (
                parse_quote!(#[event_handler("shop", "paid", "more")]),
                "too many arguments",
            ),
            (parse_quote!(#[timer]), "write `#[timer(interval = 5)]`"),
            (
                parse_quote!(#[timer(0)]),
                "the interval must be greater than 0 seconds",
            ),
            (
                parse_quote!(#[timer(interval = 0.0)]),
                "the interval must be greater than 0 seconds",
            ),
            (
                parse_quote!(#[cron("0 25 * * *")]),
                "invalid cron expression `0 25 * * *`: `25` is not a valid hour",
            ),
            (
                parse_quote!(#[cron("0 3 30 2 *")]),
                "the cron expression `0 3 30 2 *` never matches a date",
            ),
            (
                parse_quote!(#[cron("0 3 * * *", tz = "Europe/Londn")]),
                "unknown time zone `Europe/Londn`: use an IANA name",
            ),
            (
                parse_quote!(#[cron("0 3 * * *", once = "city")]),
                "write `once = \"fleet\"`",
            ),
            (
                parse_quote!(#[timer(5, eager, eager)]),
                "duplicate option `eager`",
            ),
            (
                parse_quote!(#[timer(5, interval = 6)]),
                "duplicate option `interval`",
            ),
            (
                parse_quote!(#[timer(interval = 6, 5)]),
                "duplicate option `interval`",
            ),
            (
                parse_quote!(#[event_handler("shop", "paid", event_type = "sold")]),
                "duplicate option `event_type`",
            ),
            (
                parse_quote!(#[rpc(sensitive_arguments("a"), sensitive_arguments("b"))]),
                "duplicate option `sensitive_arguments`",
            ),
            (
                parse_quote!(#[http("/a")]),
                "write the method before the path",
            ),
            (
                parse_quote!(#[http(GET, "a")]),
                "a path must start with `/`",
            ),
            (
                parse_quote!(#[http(GET, url = "/a")]),
                "`#[http]` has no option `url`",
            ),
            (parse_quote!(#[http]), "write `#[http(GET, \"/path\")]`"),
            (
                parse_quote!(#[entrypoint]),
                "write `#[entrypoint(EXPRESSION)]`",
            ),
        ];
        for (attribute, expected) in table {
            let shown = attribute.to_token_stream().to_string();
            let found = read(attribute).expect_err(&shown);
            assert!(found[0].starts_with(expected), "{shown}: {found:?}");
        }
    }
}
