//! Matching of paths with plain URL rules. werkzeug matches all others, see `nameko.web.routes`.

use std::collections::HashMap;
use std::sync::Arc;

use nameko::web::http::header;
use nameko::web::http::request::Parts;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::web::environ;
use crate::web::request::HttpRequest;

/// The number of digits that surely fit an `i64`.
const MAX_DIGITS: usize = 18;
/// The maximum length of a label of a host, from IDNA.
const MAX_LABEL_BYTES: usize = 63;

/// A table of URL rules whose segments are texts, `<name>` or `<int:name>`.
///
/// It finds the rule that werkzeug's `Map` would find, or none. Then the `Map` decides, which may
/// find another rule, redirect, or raise. Segments are tried in the order text, number, string.
#[pyclass(frozen, module = "nameko._nameko")]
pub(crate) struct Routes {
    tree: Arc<RouteTree>,
}

/// The part of [`Routes`] that any thread may search.
pub(super) struct RouteTree {
    root: Node,
}

/// The rules with a common prefix.
#[derive(Default)]
struct Node {
    texts: HashMap<String, Node>,
    number: Option<Box<Node>>,
    string: Option<Box<Node>>,
    /// The rules that end here.
    rules: Vec<Rule>,
    /// Whether a rule continues here that only werkzeug can match.
    opaque: bool,
}

struct Rule {
    /// The position in the list of rules.
    index: usize,
    /// None for all methods.
    methods: Option<Vec<String>>,
    /// The names of the variables.
    names: Vec<Py<PyString>>,
}

/// The result of a search.
enum Found<'a> {
    Rule(&'a Rule),
    Nothing,
    /// Only werkzeug can decide.
    Unknown,
}

/// The value of a variable.
#[derive(Clone, Copy)]
enum Value<'a> {
    Number(i64),
    String(&'a str),
}

/// The segments of a rule as pairs of a converter and a name, or of None and a text; the methods;
/// whether the rule ends after these segments.
type RuleParts = (Vec<(Option<String>, String)>, Option<Vec<String>>, bool);

#[pymethods]
impl Routes {
    /// `rules`: triples of the segments, the methods, and whether the segments are the whole rule;
    /// if not, only werkzeug matches it. A segment is (None, text), ("string", name) or
    /// ("int", name). Raises ValueError for another converter.
    #[new]
    fn new(py: Python<'_>, rules: Vec<RuleParts>) -> PyResult<Self> {
        let mut root = Node::default();
        for (index, (segments, methods, is_whole)) in rules.into_iter().enumerate() {
            let mut node = &mut root;
            let mut names = Vec::new();
            for (converter, text) in segments {
                node = match converter.as_deref() {
                    None => node.texts.entry(text).or_default(),
                    Some(converter) => {
                        names.push(PyString::intern(py, &text).unbind());
                        let child = match converter {
                            "string" => &mut node.string,
                            "int" => &mut node.number,
                            _ => {
                                let text = format!("the converter {converter:?} is not plain");
                                return Err(PyValueError::new_err(text));
                            }
                        };
                        child.get_or_insert_default()
                    }
                };
            }
            if is_whole {
                node.rules.push(Rule {
                    index,
                    methods,
                    names,
                });
            } else {
                node.opaque = true;
            }
        }
        Ok(Routes {
            tree: Arc::new(RouteTree { root }),
        })
    }

    /// Returns the position of the rule for a request, and the values of its variables. None if
    /// werkzeug has to decide.
    fn find<'py>(
        &self,
        py: Python<'py>,
        request: &Bound<'py, HttpRequest>,
    ) -> PyResult<Option<(usize, Bound<'py, PyDict>)>> {
        let head = request.get().head();
        self.tree
            .search(head, |rule, values| {
                let variables = PyDict::new(py);
                for (name, value) in rule.names.iter().zip(values) {
                    match *value {
                        Value::Number(number) => variables.set_item(name, number)?,
                        Value::String(text) => variables.set_item(name, text)?,
                    }
                }
                Ok((rule.index, variables))
            })
            .transpose()
    }
}

impl Routes {
    pub(super) fn tree(&self) -> Arc<RouteTree> {
        self.tree.clone()
    }
}

impl RouteTree {
    /// Returns the position of the rule for a request. None if werkzeug has to decide.
    pub(super) fn index(&self, head: &Parts) -> Option<usize> {
        self.search(head, |rule, _| rule.index)
    }

    /// Finds the rule for a request, and returns what `found` returns for it and the values of its
    /// variables.
    fn search<T>(&self, head: &Parts, found: impl FnOnce(&Rule, &[Value<'_>]) -> T) -> Option<T> {
        if !is_plain(head) {
            return None;
        }
        let path = environ::path_text(head.uri.path())?;
        let segments: Vec<&str> = path.split('/').collect();
        let mut values = Vec::new();
        match self.root.find(&segments, head.method.as_str(), &mut values) {
            Found::Rule(rule) => Some(found(rule, &values)),
            Found::Nothing | Found::Unknown => None,
        }
    }
}

impl Node {
    /// Finds the first rule for `segments`, whose variables have `values`.
    fn find<'a, 'p>(
        &'a self,
        segments: &[&'p str],
        method: &str,
        values: &mut Vec<Value<'p>>,
    ) -> Found<'a> {
        if self.opaque {
            return Found::Unknown;
        }
        let Some((&segment, rest)) = segments.split_first() else {
            let rule = self.rules.iter().find(|rule| rule.allows(method));
            return match rule {
                Some(rule) => Found::Rule(rule),
                // Redirects to the path with a slash.
                None if self.texts.contains_key("") => Found::Unknown,
                None => Found::Nothing,
            };
        };
        if let Some(child) = self.texts.get(segment) {
            match child.find(rest, method, values) {
                Found::Nothing => {}
                found => return found,
            }
        }
        if let Some(child) = &self.number {
            if !segment.is_ascii() || segment.len() > MAX_DIGITS {
                return Found::Unknown;
            }
            if segment.bytes().all(|byte| byte.is_ascii_digit())
                && let Ok(number) = segment.parse()
            {
                match child.find_with(Value::Number(number), rest, method, values) {
                    Found::Nothing => {}
                    found => return found,
                }
            }
        }
        match &self.string {
            Some(child) if !segment.is_empty() => {
                child.find_with(Value::String(segment), rest, method, values)
            }
            _ => Found::Nothing,
        }
    }

    fn find_with<'a, 'p>(
        &'a self,
        value: Value<'p>,
        segments: &[&'p str],
        method: &str,
        values: &mut Vec<Value<'p>>,
    ) -> Found<'a> {
        values.push(value);
        let found = self.find(segments, method, values);
        if !matches!(found, Found::Rule(_)) {
            values.pop();
        }
        found
    }
}

impl Rule {
    fn allows(&self, method: &str) -> bool {
        self.methods
            .as_ref()
            .is_none_or(|methods| methods.iter().any(|allowed| allowed == method))
    }
}

/// Whether werkzeug matches a request by its method and path alone. It also looks at upgrades to a
/// WebSocket, merges slashes, and raises for hosts that IDNA does not allow.
fn is_plain(head: &Parts) -> bool {
    let host = match head.uri.authority() {
        Some(authority) => authority.as_str().as_bytes(),
        None => match head.headers.get(header::HOST) {
            Some(host) => host.as_bytes(),
            None => return false,
        },
    };
    let name = host.split(|byte| *byte == b':').next().unwrap_or_default();
    !head.headers.contains_key(header::UPGRADE)
        && !head.uri.path().contains("//")
        && name.is_ascii()
        && name.split(|byte| *byte == b'.').all(|label| {
            (1..=MAX_LABEL_BYTES).contains(&label.len())
                && label
                    .iter()
                    .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
        })
}
