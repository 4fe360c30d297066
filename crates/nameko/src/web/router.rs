//! Routing of requests to handlers.

use std::{borrow::Cow, sync::Arc};

use http::Method;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use super::{error_format::ErrorFormat, gate::Gate, handler::DynHandler};

/// A path template: `/orders/{id}`, `/files/{*rest}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    /// The template as declared.
    text: String,
    /// The template for `matchit`: percent-encoded literals and numbered parameters, so that
    /// templates of the same shape are equal.
    pattern: String,
    /// Parameter names, in order.
    names: Arc<[String]>,
}

/// Characters that are always percent-encoded in request paths.
const ENCODED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'`')
    .add(b'?')
    .add(b'#');

impl Template {
    /// Parses a template. The error continues a sentence that begins with the path.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if !text.starts_with('/') {
            return Err("must begin with `/`".to_owned());
        }
        if text.contains('<') {
            return Err("has a `<`; a parameter is written `{name}`".to_owned());
        }
        let mut pattern = String::with_capacity(text.len());
        let mut names = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (literal, tail) = rest.split_at(at);
            pattern.extend(utf8_percent_encode(literal, ENCODED));
            rest = parameter(tail, &mut pattern, &mut names)?;
        }
        pattern.extend(utf8_percent_encode(rest, ENCODED));
        Ok(Self {
            text: text.to_owned(),
            pattern,
            names: names.into(),
        })
    }

    /// Returns the template as declared.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the decoded parameter values of `path` in order, or `None` if it does not match.
    #[cfg(feature = "testing")]
    pub(super) fn values(&self, path: &str) -> Option<Vec<String>> {
        let mut table = matchit::Router::new();
        table.insert(self.pattern.as_str(), ()).ok()?;
        let path = normalize(path);
        let found = table.at(&path).ok()?;
        found
            .params
            .iter()
            .map(|(_, value)| decoded(value))
            .collect()
    }

    /// Returns the parameter names in order.
    pub(super) fn names(&self) -> Arc<[String]> {
        self.names.clone()
    }
}

/// Parses the parameter at the start of `text`, and returns the rest.
fn parameter<'a>(
    text: &'a str,
    pattern: &mut String,
    names: &mut Vec<String>,
) -> Result<&'a str, String> {
    for escaped in ["{{", "}}"] {
        if let Some(rest) = text.strip_prefix(escaped) {
            pattern.push_str(escaped);
            return Ok(rest);
        }
    }
    let (name, rest) = text
        .strip_prefix('{')
        .and_then(|rest| rest.split_once('}'))
        .ok_or("has an unmatched `{` or `}`")?;
    let (star, name) = match name.strip_prefix('*') {
        Some(name) => ("*", name),
        None => ("", name),
    };
    if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || c == '_') {
        return Err(format!(
            "has the invalid parameter name `{name}`; use letters, digits and `_`"
        ));
    }
    if names.iter().any(|known| known == name) {
        return Err(format!("has the parameter `{name}` twice"));
    }
    pattern.push_str(&format!("{{{star}p{}}}", names.len()));
    names.push(name.to_owned());
    Ok(rest)
}

/// A handler with its methods and path.
pub(super) struct Route {
    pub(super) methods: Vec<Method>,
    pub(super) template: Template,
    /// Service and method for error messages: `shop.get_order`.
    pub(super) owner: String,
    pub(super) handler: Box<dyn DynHandler>,
    pub(super) gate: Arc<Gate>,
    /// The format of error responses.
    pub(super) errors: Option<Arc<dyn ErrorFormat>>,
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "<Route {} to {}>", self.template.as_str(), self.owner)
    }
}

/// The routes of one address.
#[derive(Default)]
pub(super) struct Router {
    /// A table per HTTP method, so that `POST /orders/new` does not shadow `GET /orders/{id}`.
    by_method: Vec<(Method, matchit::Router<Arc<Route>>)>,
}

/// The result of routing a request.
#[derive(Debug)]
pub(super) enum Found {
    /// A route, with the raw parameter values in order.
    Route(Arc<Route>, Vec<String>),
    /// The path exists for other methods only: the value of the header `Allow`.
    NotAllowed(String),
    /// No route matches the path.
    Nowhere,
    /// A decoded parameter is not UTF-8.
    BadPath,
}

impl Router {
    /// Builds the tables of `routes`.
    ///
    /// # Errors
    /// If two routes conflict or a path is invalid: a sentence.
    pub(super) fn new<'a>(
        routes: impl IntoIterator<Item = &'a Arc<Route>>,
    ) -> Result<Self, String> {
        let mut router = Self::default();
        for route in routes {
            for method in &route.methods {
                router.insert(method, route)?;
            }
        }
        Ok(router)
    }

    fn insert(&mut self, method: &Method, route: &Arc<Route>) -> Result<(), String> {
        let table = match self.by_method.iter().position(|(it, _)| it == method) {
            Some(known) => self.by_method.get_mut(known),
            None => {
                self.by_method
                    .push((method.clone(), matchit::Router::new()));
                self.by_method.last_mut()
            }
        };
        let Some((_, table)) = table else {
            return Ok(());
        };
        let pattern = &route.template.pattern;
        table
            .insert(pattern.clone(), route.clone())
            .map_err(|error| {
                let path = route.template.as_str();
                match error {
                    matchit::InsertError::Conflict { with } => {
                        // A template matches its own pattern as a path.
                        let other = table.at(&with).ok().map(|found| found.value.clone());
                        let (other, its_path) = other
                            .as_deref()
                            .map_or(("another method", with.as_str()), |route| {
                                (route.owner.as_str(), route.template.as_str())
                            });
                        format!(
                            "two methods want {method} {path}: {other} (`{its_path}`) and {} (`{path}`); change the path or the \
                             method of one, or give their services different ports with WEB_SERVER_ADDRESS",
                            route.owner
                        )
                    }
                    _ => format!(
                        "the path `{path}` of {} is no path: a `/`-separated part has one parameter at most, and `{{*rest}}` \
                         comes last",
                        route.owner
                    ),
                }
            })
    }

    /// Finds the route of a request. `GET` routes serve `HEAD` unless another route does.
    pub(super) fn find(&self, method: &Method, path: &str) -> Found {
        let path = &*normalize(path);
        let found = self.at(method, path).or_else(|| match *method {
            Method::HEAD => self.at(&Method::GET, path),
            _ => None,
        });
        if let Some(found) = found {
            let values: Option<Vec<_>> = found
                .params
                .iter()
                .map(|(_, value)| decoded(value))
                .collect();
            return match values {
                Some(values) => Found::Route(found.value.clone(), values),
                None => Found::BadPath,
            };
        }
        match self.allowed(path) {
            allowed if allowed.is_empty() => Found::Nowhere,
            allowed => Found::NotAllowed(allowed.join(", ")),
        }
    }

    fn at<'k, 'v>(
        &'k self,
        method: &Method,
        path: &'v str,
    ) -> Option<matchit::Match<'k, 'v, &'k Arc<Route>>> {
        let (_, table) = self.by_method.iter().find(|(it, _)| it == method)?;
        table.at(path).ok()
    }

    fn allowed(&self, path: &str) -> Vec<&str> {
        let mut allowed: Vec<&str> = self
            .by_method
            .iter()
            .filter(|(_, table)| table.at(path).is_ok())
            .map(|(method, _)| method.as_str())
            .collect();
        if allowed.contains(&"GET") && !allowed.contains(&"HEAD") {
            allowed.push("HEAD");
        }
        if !allowed.is_empty() && !allowed.contains(&"OPTIONS") {
            allowed.push("OPTIONS");
        }
        allowed.sort_unstable();
        allowed
    }
}

/// Decodes a parameter value if it is UTF-8.
fn decoded(value: &str) -> Option<String> {
    percent_decode_str(value)
        .decode_utf8()
        .ok()
        .map(Cow::into_owned)
}

/// Normalizes a path by RFC 3986, section 6.2.2: decodes letters, digits and `-._~`, and writes
/// other escapes in upper case. An encoded `/` stays encoded, as part of a parameter.
fn normalize(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let mut parts = path.split('%');
    let mut normal = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = part
            .get(..2)
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (byte, part.get(2..)) {
            (Some(byte), Some(rest)) => {
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    normal.push(char::from(byte));
                } else {
                    normal.push_str(&format!("%{byte:02X}"));
                }
                normal.push_str(rest);
            }
            _ => {
                // A `%` without hex digits is a literal.
                normal.push_str("%25");
                normal.push_str(part);
            }
        }
    }
    Cow::Owned(normal)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{handler::Handler, raw::RawRequest, response::Response},
        *,
    };

    struct Nothing;

    impl Handler for Nothing {
        async fn handle(&self, _: RawRequest) -> Response {
            Response::new("")
        }
    }

    fn route(methods: &[Method], path: &str) -> Arc<Route> {
        Arc::new(Route {
            methods: methods.to_vec(),
            template: Template::parse(path).unwrap(),
            owner: format!("test{path}"),
            handler: Box::new(Nothing),
            gate: Arc::default(),
            errors: None,
        })
    }

    fn router(paths: &[&str]) -> Result<Router, String> {
        let routes: Vec<_> = paths
            .iter()
            .map(|path| route(&[Method::GET], path))
            .collect();
        Router::new(&routes)
    }

    /// Returns the route and the parameter values of a path.
    fn found(router: &Router, path: &str) -> Option<(String, Vec<String>)> {
        match router.find(&Method::GET, path) {
            Found::Route(route, values) => Some((route.template.text.clone(), values)),
            _ => None,
        }
    }

    #[test]
    fn the_most_literal_route_wins() {
        let router = router(&[
            "/",
            "/a/{x}",
            "/a/b",
            "/a/{x}/c",
            "/f/{*rest}",
            "/caf\u{e9}",
            "/v{n}",
            "/b/{{x}}",
        ])
        .unwrap();
        for (path, template, values) in [
            ("/", "/", &[][..]),
            ("/a/b", "/a/b", &[]),
            ("/a/%62", "/a/b", &[]),
            ("/a/z", "/a/{x}", &["z"]),
            ("/a/b/c", "/a/{x}/c", &["b"]),
            ("/a/b%2fc", "/a/{x}", &["b/c"]),
            ("/f/x/y%20z/", "/f/{*rest}", &["x/y z/"]),
            ("/caf%c3%a9", "/caf\u{e9}", &[]),
            ("/v12", "/v{n}", &["12"]),
            ("/b/{x}", "/b/{{x}}", &[]),
            ("/a/%zz", "/a/{x}", &["%zz"]),
            ("/a/%%31f", "/a/{x}", &["%1f"]),
        ] {
            let values = values.iter().map(|value| (*value).to_owned()).collect();
            assert_eq!(
                found(&router, path),
                Some((template.to_owned(), values)),
                "{path}"
            );
        }
        for path in ["/a", "/a/", "/f/", "/a/b/", "*", ""] {
            assert_eq!(found(&router, path), None, "{path}");
        }
        assert!(matches!(
            router.find(&Method::GET, "/a/%ff"),
            Found::BadPath
        ));
    }

    #[test]
    fn routes_of_the_same_shape_conflict() {
        for (one, other) in [("/a", "/a"), ("/a/{x}", "/a/{y}"), ("/{a}/{b}", "/{b}/{a}")] {
            let error = router(&[one, other]).err().unwrap();
            let expected = format!(
                "two methods want GET {other}: test{one} (`{one}`) and test{other} (`{other}`)"
            );
            assert!(error.starts_with(&expected), "{error}");
        }
        let routes = [
            route(&[Method::GET], "/a/{x}"),
            route(&[Method::PUT], "/a/{y}"),
        ];
        assert!(Router::new(&routes).is_ok());
    }

    #[test]
    fn invalid_paths_are_errors() {
        for (path, why) in [
            ("a", "must begin with `/`"),
            ("", "must begin with `/`"),
            ("/<int:id>", "has a `<`; a parameter is written `{name}`"),
            ("/{id", "has an unmatched `{` or `}`"),
            ("/id}", "has an unmatched `{` or `}`"),
            (
                "/{}",
                "has the invalid parameter name ``; use letters, digits and `_`",
            ),
            (
                "/{a-b}",
                "has the invalid parameter name `a-b`; use letters, digits and `_`",
            ),
            ("/{a}/{a}", "has the parameter `a` twice"),
        ] {
            assert_eq!(Template::parse(path), Err(why.to_owned()), "{path}");
        }
        for path in ["/{*rest}/more", "/{a}{b}"] {
            let error = router(&[path]).err().unwrap();
            assert!(error.contains("is no path"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn parameter_values_round_trip(value in "[^\u{0}]+", rest in "[^\u{0}]+") {
            let router = router(&["/x/{a}/{*b}"]).unwrap();
            let encode = |it: &str| percent_encoding::utf8_percent_encode(it, percent_encoding::NON_ALPHANUMERIC).to_string();
            let path = format!("/x/{}/{}", encode(&value), encode(&rest));
            prop_assert_eq!(found(&router, &path), Some(("/x/{a}/{*b}".to_owned(), vec![value, rest])));
        }

        #[test]
        fn arbitrary_paths_never_panic(template in "[/{}*a-c%<\u{e9} ]{0,12}", path in ".*") {
            let router = router(&["/{a}", "/{a}/b", "/c/{*d}"]).unwrap();
            let _ = router.find(&Method::GET, &path);
            if let Ok(template) = Template::parse(&template) {
                let route = Arc::new(Route {
                    methods: vec![Method::GET],
                    template,
                    owner: String::new(),
                    handler: Box::new(Nothing),
                    gate: Arc::default(),
                    errors: None,
                });
                if let Ok(router) = Router::new([&route]) {
                    let _ = router.find(&Method::HEAD, &path);
                }
                let _ = Router::new([&route, &route]);
            }
        }

        #[test]
        fn normalization_preserves_the_meaning(path in "(%[0-9a-fA-F]{2}|[!-~]){0,12}") {
            let once = normalize(&path).into_owned();
            prop_assert_eq!(percent_decode_str(&once).collect::<Vec<u8>>(), percent_decode_str(&path).collect::<Vec<u8>>());
        }
    }
}
