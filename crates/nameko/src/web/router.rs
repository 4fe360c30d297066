//! Which handler a request goes to.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use http::Method;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use super::server::DynHandler;

/// A path with parameters: `/orders/{id}`, `/files/{*rest}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    /// As it was written.
    text: String,
    /// As the matcher takes it: literal text percent-encoded, parameters named by number, so that two templates of one
    /// shape are equal.
    pattern: String,
    /// The parameters' names, in order.
    names: Arc<[String]>,
}

/// What a path of a request never holds as it is.
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
    /// Reads a path. The error continues a sentence that begins with it.
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

    /// The path as it was written.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// The values of the parameters in `path`, decoded, in order. `None` where it is another path.
    pub(super) fn values(&self, path: &str) -> Option<Vec<String>> {
        let mut table = matchit::Router::new();
        table.insert(self.pattern.as_str(), ()).ok()?;
        let path = normal(path);
        let found = table.at(&path).ok()?;
        found.params.iter().map(|(_, it)| decoded(it)).collect()
    }

    /// The parameters' names, in order.
    pub(super) fn names(&self) -> Arc<[String]> {
        self.names.clone()
    }
}

/// Reads the parameter that `text` begins with, and returns what follows it.
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
        .and_then(|it| it.split_once('}'))
        .ok_or("has a `{` or `}` without its other half")?;
    let (star, name) = match name.strip_prefix('*') {
        Some(name) => ("*", name),
        None => ("", name),
    };
    if name.is_empty() || !name.chars().all(|it| it.is_alphanumeric() || it == '_') {
        return Err(format!(
            "has a parameter called `{name}`; a name is letters, digits and `_`"
        ));
    }
    if names.iter().any(|it| it == name) {
        return Err(format!("has the parameter `{name}` twice"));
    }
    pattern.push_str(&format!("{{{star}p{}}}", names.len()));
    names.push(name.to_owned());
    Ok(rest)
}

/// A handler and what it serves.
pub(super) struct Route {
    pub(super) methods: Vec<Method>,
    pub(super) template: Template,
    /// The service and method, for errors: `shop.get_order`.
    pub(super) owner: String,
    pub(super) handler: Box<dyn DynHandler>,
    /// False once the container stops. Shared by all its routes.
    pub(super) open: Arc<AtomicBool>,
}

impl Route {
    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "<Route {} to {}>", self.template.as_str(), self.owner)
    }
}

/// All routes of one address.
#[derive(Default)]
pub(super) struct Router {
    /// A table per method, so that `POST /orders/new` hides no `GET /orders/{id}`.
    by_method: Vec<(Method, matchit::Router<Arc<Route>>)>,
}

/// Where a request goes.
#[derive(Debug)]
pub(super) enum Found {
    /// To this route, with the parameters' values as they stand in the path, in order.
    Route(Arc<Route>, Vec<String>),
    /// The path is known, but not for this method. What it is known for, as the header `Allow` lists it.
    NotAllowed(String),
    /// No route has this path.
    Nowhere,
    /// A parameter is not UTF-8 once it is decoded.
    BadPath,
}

impl Router {
    /// The table of `routes`.
    ///
    /// # Errors
    /// Two of them serve one path with one method, or a path is none: a sentence.
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
                        // Found by its own pattern: a template is a path that it matches.
                        let other = table.at(&with).ok().map(|it| it.value.clone());
                        let (other, its_path) = other
                            .as_deref()
                            .map_or(("another method", with.as_str()), |it| {
                                (it.owner.as_str(), it.template.as_str())
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

    /// Finds the route of a request. `HEAD` is answered by `GET` where nothing else serves it.
    pub(super) fn find(&self, method: &Method, path: &str) -> Found {
        let path = &*normal(path);
        let found = self.at(method, path).or_else(|| match *method {
            Method::HEAD => self.at(&Method::GET, path),
            _ => None,
        });
        if let Some(found) = found {
            let values: Option<Vec<_>> = found.params.iter().map(|(_, it)| decoded(it)).collect();
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

/// A parameter's value, decoded, if it is UTF-8.
fn decoded(value: &str) -> Option<String> {
    percent_decode_str(value)
        .decode_utf8()
        .ok()
        .map(Cow::into_owned)
}

/// The path with letters, digits and `-._~` not encoded, and upper-case hex digits elsewhere: what RFC 3986 (6.2.2) calls
/// equal becomes equal. An encoded `/` stays, and so is part of a parameter.
fn normal(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let mut parts = path.split('%');
    let mut normal = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = part
            .get(..2)
            .filter(|it| it.bytes().all(|it| it.is_ascii_hexdigit()))
            .and_then(|it| u8::from_str_radix(it, 16).ok());
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
                // A `%` that encodes nothing is itself.
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
        super::{raw::RawRequest, response::Response, server::Handler},
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
            open: Arc::new(AtomicBool::new(true)),
        })
    }

    fn router(paths: &[&str]) -> Result<Router, String> {
        let routes: Vec<_> = paths.iter().map(|it| route(&[Method::GET], it)).collect();
        Router::new(&routes)
    }

    /// The route and the values that a path leads to.
    fn found(router: &Router, path: &str) -> Option<(String, Vec<String>)> {
        match router.find(&Method::GET, path) {
            Found::Route(route, values) => Some((route.template.text.clone(), values)),
            _ => None,
        }
    }

    #[test]
    fn the_most_literal_route_is_taken() {
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
            let values = values.iter().map(|it| (*it).to_owned()).collect();
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
    fn routes_of_one_shape_clash() {
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
    fn paths_that_are_none_are_refused() {
        for (path, why) in [
            ("a", "must begin with `/`"),
            ("", "must begin with `/`"),
            ("/<int:id>", "has a `<`; a parameter is written `{name}`"),
            ("/{id", "has a `{` or `}` without its other half"),
            ("/id}", "has a `{` or `}` without its other half"),
            (
                "/{}",
                "has a parameter called ``; a name is letters, digits and `_`",
            ),
            (
                "/{a-b}",
                "has a parameter called `a-b`; a name is letters, digits and `_`",
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
        fn values_come_back_as_they_were_encoded(value in "[^\u{0}]+", rest in "[^\u{0}]+") {
            let router = router(&["/x/{a}/{*b}"]).unwrap();
            let encode = |it: &str| percent_encoding::utf8_percent_encode(it, percent_encoding::NON_ALPHANUMERIC).to_string();
            let path = format!("/x/{}/{}", encode(&value), encode(&rest));
            prop_assert_eq!(found(&router, &path), Some(("/x/{a}/{*b}".to_owned(), vec![value, rest])));
        }

        #[test]
        fn no_path_makes_it_panic(template in "[/{}*a-c%<\u{e9} ]{0,12}", path in ".*") {
            let router = router(&["/{a}", "/{a}/b", "/c/{*d}"]).unwrap();
            let _ = router.find(&Method::GET, &path);
            if let Ok(template) = Template::parse(&template) {
                let route = Arc::new(Route {
                    methods: vec![Method::GET],
                    template,
                    owner: String::new(),
                    handler: Box::new(Nothing),
                    open: Arc::default(),
                });
                if let Ok(router) = Router::new([&route]) {
                    let _ = router.find(&Method::HEAD, &path);
                }
                let _ = Router::new([&route, &route]);
            }
        }

        #[test]
        fn a_normal_path_means_the_same(path in "(%[0-9a-fA-F]{2}|[!-~]){0,12}") {
            let once = normal(&path).into_owned();
            prop_assert_eq!(percent_decode_str(&once).collect::<Vec<u8>>(), percent_decode_str(&path).collect::<Vec<u8>>());
        }
    }
}
