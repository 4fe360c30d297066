//! The context of a call.

use std::{
    borrow::Cow,
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, OnceLock},
};

use crate::{
    amqp::{Table, Value},
    config::Config,
    protocol,
    sync::lock,
    worker_hooks::WorkerHooks,
};

/// The context of a worker: the origin of its call and its context data.
///
/// Cheap to clone; clones share the same context. Injected like any dependency:
/// `#[dependency(CurrentWorker)] worker: WorkerContext`.
#[derive(Clone)]
pub struct WorkerContext {
    inner: Arc<Inner>,
}

struct Inner {
    service: Arc<str>,
    method: &'static str,
    config: Config,
    /// Maximum number of parents in the call id stack.
    parents: usize,
    /// Call ids of the callers, oldest first, without this call.
    callers: Vec<String>,
    /// Created on demand: most workers make no calls.
    call_id: OnceLock<String>,
    /// Context data. Changes apply to later calls of the worker.
    data: Mutex<Table>,
    /// Hooks of injected providers, until the worker takes them. `None` without a worker, so that
    /// a state that owns the context does not form a cycle.
    hooks: Mutex<Option<Vec<NamedHooks>>>,
    /// Set when the method has ended, for the log.
    #[cfg(feature = "cli")]
    ended: OnceLock<Ended>,
}

/// The end of a method, as fields of its worker's span.
#[cfg(feature = "cli")]
pub(crate) struct Ended {
    pub(crate) outcome: Cow<'static, str>,
    pub(crate) expected: Option<bool>,
    pub(crate) duration_ms: f64,
}

/// Hooks of a provider for one worker, with the field of its dependency.
pub(crate) struct NamedHooks {
    pub(crate) field: Cow<'static, str>,
    pub(crate) hooks: Box<dyn WorkerHooks>,
}

impl WorkerContext {
    /// Creates a context from the data of a message, without prefixes. Removes the call id stack
    /// from it.
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
                .filter_map(|value| match value {
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
            hooks: Mutex::new(Some(Vec::new())),
            #[cfg(feature = "cli")]
            ended: OnceLock::new(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Creates a context without a container, for tests that create the service value directly or
    /// call a provider. It has no context data, no caller, and the default configuration.
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
        let ctx = Self::new(
            service.into(),
            method,
            Config::default(),
            parents,
            Table::new(),
        );
        ctx.close_hooks();
        ctx
    }

    #[cfg(feature = "cli")]
    pub(crate) fn set_ended(&self, ended: Ended) {
        let _ = self.inner.ended.set(ended);
    }

    #[cfg(feature = "cli")]
    pub(crate) fn ended(&self) -> Option<&Ended> {
        self.inner.ended.get()
    }

    /// Adds the hooks of an injected provider.
    pub(crate) fn add_hooks(&self, field: Cow<'static, str>, hooks: Box<dyn WorkerHooks>) {
        if let Some(list) = &mut *lock(&self.inner.hooks) {
            list.push(NamedHooks { field, hooks });
        }
    }

    /// Moves the hooks of providers injected since the last call to the end of `list`.
    pub(crate) fn take_hooks(&self, list: &mut VecDeque<NamedHooks>) {
        if let Some(added) = &mut *lock(&self.inner.hooks) {
            list.extend(added.drain(..));
        }
    }

    /// Takes no more hooks from now on; returns those not taken.
    pub(crate) fn close_hooks(&self) -> Vec<NamedHooks> {
        lock(&self.inner.hooks).take().unwrap_or_default()
    }

    /// Returns the name of the service.
    pub fn service_name(&self) -> &str {
        &self.inner.service
    }

    /// Returns the name of the method.
    pub fn method_name(&self) -> &'static str {
        self.inner.method
    }

    /// Returns the configuration of the container.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// Returns the id of this call: `{service}.{method}.{uuid4}`.
    pub fn call_id(&self) -> &str {
        self.inner
            .call_id
            .get_or_init(|| protocol::call_id(&self.inner.service, self.inner.method))
    }

    /// Returns the call ids of the callers, oldest first, and of this call. At most
    /// `parent_calls_tracked` + 1.
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

    /// Returns the first id of the call id stack: the id of this call if it has no caller.
    pub fn origin_call_id(&self) -> &str {
        self.inner
            .callers
            .first()
            .map_or_else(|| self.call_id(), String::as_str)
    }

    /// Returns the call id of the caller.
    pub fn immediate_parent_call_id(&self) -> Option<&str> {
        self.inner.callers.last().map(String::as_str)
    }

    /// Returns a value of the context data: `language`, `user_id`, `auth_token`, or a custom key.
    pub fn get(&self, key: &str) -> Option<Value> {
        self.data().get(key).cloned()
    }

    /// Sets a value of the context data, for later calls.
    pub fn set(&self, key: impl Into<String>, value: impl Into<Value>) {
        self.data().insert(key.into(), value.into());
    }

    /// Returns a copy of the context data.
    pub fn context_data(&self) -> Table {
        self.data().clone()
    }

    /// Returns the headers of messages sent by this worker: the context data and the call id stack,
    /// as `nameko.*`.
    pub fn headers(&self) -> Table {
        headers(&self.data(), self.call_id_stack())
    }

    fn data(&self) -> std::sync::MutexGuard<'_, Table> {
        lock(&self.inner.data)
    }
}

/// Converts context data to headers: adds the prefix to the keys, drops nulls, adds the call id
/// stack.
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

/// Converts the headers of a received message to context data: removes the prefix `nameko.`.
/// Headers without it keep their name, as in Nameko.
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
        let stack = callers.iter().map(|caller| Value::from(*caller)).collect();
        let data = Table::from_iter([
            ("call_id_stack".to_owned(), Value::List(stack)),
            ("language".to_owned(), Value::from("en")),
        ]);
        WorkerContext::new("shop".into(), "buy", Config::default(), parents, data)
    }

    #[test]
    fn the_call_id_stack_ends_with_this_call_and_drops_the_oldest() {
        let ctx = context(2, &["a.a.1", "b.b.2", "c.c.3"]);
        assert_eq!(ctx.call_id_stack(), ["b.b.2", "c.c.3", ctx.call_id()]);
        assert_eq!(ctx.origin_call_id(), "a.a.1");
        assert_eq!(ctx.immediate_parent_call_id(), Some("c.c.3"));
        assert!(ctx.call_id().starts_with("shop.buy."));
    }

    #[test]
    fn a_call_without_caller_is_its_own_origin() {
        let ctx = context(10, &[]);
        assert_eq!(ctx.origin_call_id(), ctx.call_id());
        assert_eq!(ctx.immediate_parent_call_id(), None);
    }

    #[test]
    fn context_data_converts_to_prefixed_headers_and_back() {
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
    fn foreign_headers_keep_their_name() {
        let data = context_data(Table::from_iter([("x-death".to_owned(), Value::Int(1))]));
        assert_eq!(data.get("x-death"), Some(&Value::Int(1)));
    }
}
