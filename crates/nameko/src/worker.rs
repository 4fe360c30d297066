//! One call of one method: its context.

use std::{
    fmt,
    sync::{Arc, Mutex, OnceLock},
};

use crate::{
    amqp::{Table, Value},
    config::Config,
    protocol,
    sync::lock,
};

/// What a worker knows of its call: where it came from, and the data that travels with it.
///
/// Cheap to clone; all clones are one context. A service asks for it like for any dependency:
/// `#[dependency(CurrentWorker)] worker: WorkerContext`.
#[derive(Clone)]
pub struct WorkerContext {
    inner: Arc<Inner>,
}

struct Inner {
    service: Arc<str>,
    method: &'static str,
    config: Config,
    /// How many parents the call id stack keeps.
    parents: usize,
    /// The ids of the calls that led here, oldest first, this call's not among them.
    callers: Vec<String>,
    /// Made when first asked for: most workers call nobody.
    call_id: OnceLock<String>,
    /// What travels with the call. Methods may change it; calls they make afterwards carry the change.
    data: Mutex<Table>,
}

impl WorkerContext {
    /// `data` is what came with the message, without the prefix; the call id stack is taken out of it.
    pub(crate) fn new(
        service: Arc<str>,
        method: &'static str,
        config: Config,
        parents: usize,
        mut data: Table,
    ) -> Self {
        let callers = match data.remove(protocol::CALL_ID_STACK) {
            Some(Value::List(ids)) => ids
                .into_iter()
                .filter_map(|it| match it {
                    Value::String(id) => Some(id),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        };
        let inner = Inner {
            service,
            method,
            config,
            parents,
            callers,
            call_id: OnceLock::new(),
            data: Mutex::new(data),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// A worker's context outside of any container, for a test that makes the service's value itself, or asks a provider
    /// for its dependency. It starts with no context data, called by nobody, with the default configuration.
    ///
    /// ```
    /// use nameko::WorkerContext;
    ///
    /// let worker = WorkerContext::mock("shop", "buy");
    /// worker.set("language", "fr");
    /// assert!(worker.call_id().starts_with("shop.buy."));
    /// ```
    pub fn mock(service: &str, method: &'static str) -> Self {
        let parents = protocol::PARENT_CALLS_TRACKED;
        Self::new(
            service.into(),
            method,
            Config::default(),
            parents,
            Table::new(),
        )
    }

    /// The service's name.
    pub fn service_name(&self) -> &str {
        &self.inner.service
    }

    /// The method's name.
    pub fn method_name(&self) -> &'static str {
        self.inner.method
    }

    /// The container's configuration.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// This call's id: `{service}.{method}.{uuid4}`.
    pub fn call_id(&self) -> &str {
        self.inner
            .call_id
            .get_or_init(|| protocol::call_id(&self.inner.service, self.inner.method))
    }

    /// The ids of the calls that led here, oldest first, this call's last. At most `parent_calls_tracked` + 1.
    pub fn call_id_stack(&self) -> Vec<String> {
        let callers = &self.inner.callers;
        let skip = callers.len().saturating_sub(self.inner.parents);
        callers
            .iter()
            .skip(skip)
            .map(String::as_str)
            .chain([self.call_id()])
            .map(str::to_owned)
            .collect()
    }

    /// The id of the call at the root of the stack: this call's own where nobody called.
    pub fn origin_call_id(&self) -> &str {
        self.inner
            .callers
            .first()
            .map_or_else(|| self.call_id(), String::as_str)
    }

    /// The id of the caller's call.
    pub fn immediate_parent_call_id(&self) -> Option<&str> {
        self.inner.callers.last().map(String::as_str)
    }

    /// A value of the context data: `language`, `user_id`, `auth_token`, or your own.
    pub fn get(&self, key: &str) -> Option<Value> {
        self.data().get(key).cloned()
    }

    /// Sets a value of the context data. Calls made from now on carry it.
    pub fn set(&self, key: impl Into<String>, value: impl Into<Value>) {
        self.data().insert(key.into(), value.into());
    }

    /// A copy of the context data.
    pub fn context_data(&self) -> Table {
        self.data().clone()
    }

    /// The headers of a message that this worker sends: the context data and the call id stack, as `nameko.*`.
    pub fn headers(&self) -> Table {
        headers(&self.data(), self.call_id_stack())
    }

    fn data(&self) -> std::sync::MutexGuard<'_, Table> {
        lock(&self.inner.data)
    }
}

/// Context data as headers: each key prefixed, nulls dropped, the call id stack added.
pub(crate) fn headers(data: &Table, call_id_stack: Vec<String>) -> Table {
    let stack = Value::List(call_id_stack.into_iter().map(Value::String).collect());
    data.iter()
        .filter(|(_, value)| !matches!(value, Value::Null))
        .map(|(key, value)| (format!("{}{key}", protocol::HEADER_PREFIX), value.clone()))
        .chain([(
            format!("{}{}", protocol::HEADER_PREFIX, protocol::CALL_ID_STACK),
            stack,
        )])
        .collect()
}

/// The headers of a message that arrived, as the context data of the worker that handles it: the prefix `nameko.` taken
/// off. Headers without it are kept under their own name, as in Nameko.
pub fn context_data(headers: Table) -> Table {
    headers
        .into_iter()
        .map(
            |(key, value)| match key.strip_prefix(protocol::HEADER_PREFIX) {
                Some(name) => (name.to_owned(), value),
                None => (key, value),
            },
        )
        .collect()
}

impl fmt::Display for WorkerContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.inner.service, self.inner.method)
    }
}

impl fmt::Debug for WorkerContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<WorkerContext [{self}]>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(parents: usize, callers: &[&str]) -> WorkerContext {
        let stack = callers.iter().map(|it| Value::from(*it)).collect();
        let data = Table::from_iter([
            ("call_id_stack".to_owned(), Value::List(stack)),
            ("language".to_owned(), Value::from("en")),
        ]);
        WorkerContext::new("shop".into(), "buy", Config::default(), parents, data)
    }

    #[test]
    fn the_stack_ends_with_this_call_and_forgets_the_oldest() {
        let ctx = context(2, &["a.a.1", "b.b.2", "c.c.3"]);
        assert_eq!(ctx.call_id_stack(), ["b.b.2", "c.c.3", ctx.call_id()]);
        assert_eq!(ctx.origin_call_id(), "a.a.1");
        assert_eq!(ctx.immediate_parent_call_id(), Some("c.c.3"));
        assert!(ctx.call_id().starts_with("shop.buy."));
    }

    #[test]
    fn a_call_from_nowhere_is_its_own_origin() {
        let ctx = context(10, &[]);
        assert_eq!(ctx.origin_call_id(), ctx.call_id());
        assert_eq!(ctx.immediate_parent_call_id(), None);
    }

    #[test]
    fn context_data_travels_as_prefixed_headers_and_back() {
        let ctx = context(10, &[]);
        ctx.set("user_id", "7");
        ctx.set("gone", Value::Null);
        let headers = ctx.headers();
        assert_eq!(headers.get("nameko.language"), Some(&Value::from("en")));
        assert_eq!(headers.get("nameko.gone"), None);
        let data = context_data(headers);
        assert_eq!(data.get("user_id"), Some(&Value::from("7")));
        assert!(matches!(data.get("call_id_stack"), Some(Value::List(ids)) if ids.len() == 1));
    }

    #[test]
    fn headers_of_others_keep_their_name() {
        let data = context_data(Table::from_iter([("x-death".to_owned(), Value::Int(1))]));
        assert_eq!(data.get("x-death"), Some(&Value::Int(1)));
    }
}
