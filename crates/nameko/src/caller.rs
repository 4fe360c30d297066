//! The origin of outgoing messages and the context data of single calls, which determine headers.

use std::sync::Arc;

use crate::{
    amqp::{Table, Value},
    error::{Error, Result},
    protocol,
    worker::{self, WorkerContext},
};

/// Maximum length of a header name in bytes.
const MAX_NAME_BYTES: usize = 255;

/// The sender of requests, events or messages.
#[derive(Clone)]
pub(crate) struct Caller {
    origin: Origin,
    /// Set by `with_context`: data that is sent in addition to the data of the origin.
    context: Option<Arc<CallContext>>,
}

#[derive(Clone)]
enum Origin {
    /// A worker, with its context at the time of the call.
    Worker(WorkerContext),
    /// A standalone client, with one call id for all calls.
    Client(Arc<str>),
    /// A program without a call id.
    Program,
}

/// The context data of `with_context`, checked once.
struct CallContext {
    /// Null removes a value of the origin.
    data: Table,
    /// Replaces the callers in the call id stack.
    callers: Option<Vec<String>>,
    invalid: Option<InvalidValue>,
}

/// The reason why a value cannot be a header.
struct InvalidValue {
    key: String,
    reason: String,
}

impl Caller {
    pub(crate) fn worker(ctx: &WorkerContext) -> Self {
        Self::new(Origin::Worker(ctx.clone()))
    }

    /// # Errors
    /// [`Error::InvalidContext`] if a value of `data` cannot be a header.
    pub(crate) fn client(call_id: String, data: Table) -> Result<Self> {
        let client = Self::new(Origin::Client(call_id.into()));
        if data.is_empty() {
            return Ok(client);
        }
        let client = client.with_data(data);
        client.headers().map(|_| client)
    }

    pub(crate) fn program() -> Self {
        Self::new(Origin::Program)
    }

    fn new(origin: Origin) -> Self {
        Self {
            origin,
            context: None,
        }
    }

    /// Returns the id of a standalone client's calls.
    pub(crate) fn client_call_id(&self) -> &str {
        match &self.origin {
            Origin::Client(call_id) => call_id,
            Origin::Worker(_) | Origin::Program => "",
        }
    }

    /// Returns a copy that sends this value too, in place of a value of the same key.
    pub(crate) fn with_context(&self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        let mut data = match &self.context {
            Some(context) => context.data.clone(),
            None => Table::new(),
        };
        data.insert(key, value);
        self.with_data(data)
    }

    fn with_data(&self, data: Table) -> Self {
        Self {
            origin: self.origin.clone(),
            context: Some(Arc::new(CallContext::new(data))),
        }
    }

    /// Returns the headers of a message.
    ///
    /// # Errors
    /// [`Error::InvalidContext`] if a value of `with_context` cannot be a header.
    pub(crate) fn headers(&self) -> Result<Table> {
        let Some(context) = self.context.as_deref() else {
            return Ok(match &self.origin {
                Origin::Worker(ctx) => ctx.headers(),
                Origin::Client(call_id) => {
                    worker::headers(&Table::new(), vec![call_id.to_string()])
                }
                Origin::Program => Table::new(),
            });
        };
        if let Some(InvalidValue { key, reason }) = &context.invalid {
            return Err(Error::InvalidContext {
                key: key.clone(),
                reason: reason.clone(),
            });
        }
        let (mut data, mut stack) = match &self.origin {
            Origin::Worker(ctx) => (ctx.context_data(), ctx.call_id_stack()),
            Origin::Client(call_id) => (Table::new(), vec![call_id.to_string()]),
            Origin::Program => (Table::new(), Vec::new()),
        };
        data.extend(context.data.clone());
        data.remove(protocol::CALL_ID_STACK);
        if let Some(callers) = &context.callers {
            let own = stack.pop();
            stack = callers.iter().cloned().chain(own).collect();
        }
        let mut headers = worker::headers(&data, stack);
        if matches!(self.origin, Origin::Program) && context.callers.is_none() {
            headers.remove(&header(protocol::CALL_ID_STACK));
        }
        Ok(headers)
    }
}

impl CallContext {
    fn new(data: Table) -> Self {
        let mut invalid = data.iter().find_map(|(key, value)| {
            let reason = match key {
                "" => "its key is empty".to_owned(),
                key => unsendable(&header(key), value)?,
            };
            Some(InvalidValue {
                key: key.to_owned(),
                reason,
            })
        });
        let stack = data.get(protocol::CALL_ID_STACK);
        let callers = stack.and_then(call_ids);
        if callers.is_none() && stack.is_some_and(|stack| *stack != Value::Null) {
            invalid.get_or_insert_with(|| InvalidValue {
                key: protocol::CALL_ID_STACK.to_owned(),
                reason: "it must be a list of call ids".to_owned(),
            });
        }
        Self {
            data,
            callers,
            invalid,
        }
    }
}

fn header(key: &str) -> String {
    format!("{}{key}", protocol::HEADER_PREFIX)
}

fn call_ids(stack: &Value) -> Option<Vec<String>> {
    let ids = stack.as_list()?.iter();
    ids.map(|id| id.as_str().map(str::to_owned)).collect()
}

/// Returns the reason why a header cannot be sent.
fn unsendable(name: &str, value: &Value) -> Option<String> {
    if name.len() > MAX_NAME_BYTES {
        let length = name.len();
        return Some(format!(
            "the name of its header has {length} bytes, more than {MAX_NAME_BYTES}"
        ));
    }
    match value {
        Value::Double(number) if !number.is_finite() => {
            Some(format!("a header cannot hold the number {number}"))
        }
        Value::List(items) => items.iter().find_map(|item| unsendable("", item)),
        Value::Table(table) => table
            .iter()
            .find_map(|(name, value)| unsendable(name, value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(data: Table) -> Caller {
        Caller::client("gateway.call.1".to_owned(), data).expect("valid context data")
    }

    fn stack(headers: &Table) -> Vec<String> {
        let stack = headers.get("nameko.call_id_stack").expect("a stack");
        call_ids(stack).expect("a list of ids")
    }

    #[test]
    fn values_of_a_call_replace_those_of_the_origin() {
        let client = client(Table::from([("language", "fr"), ("tenant", "acme")]));
        let call = client
            .with_context("tenant", "other")
            .with_context("user_id", 7)
            .with_context("language", Value::Null);
        let headers = call.headers().expect("headers");
        assert_eq!(headers.get("nameko.tenant"), Some(&"other".into()));
        assert_eq!(headers.get("nameko.user_id"), Some(&7.into()));
        assert_eq!(headers.get("nameko.language"), None);
        let unchanged = client.headers().expect("headers");
        assert_eq!(unchanged.get("nameko.tenant"), Some(&"acme".into()));
    }

    #[test]
    fn a_call_id_stack_precedes_the_own_call_id() {
        let trace = || vec!["web.get.0"];
        let client = client(Table::new());
        let headers = client
            .with_context("call_id_stack", trace())
            .headers()
            .expect("headers");
        assert_eq!(stack(&headers), ["web.get.0", "gateway.call.1"]);

        let worker = Caller::worker(&WorkerContext::mock("shop", "buy"));
        let headers = worker
            .with_context("call_id_stack", trace())
            .headers()
            .expect("headers");
        let ids = stack(&headers);
        assert_eq!((ids.len(), ids[0].as_str()), (2, "web.get.0"));
        assert!(ids[1].starts_with("shop.buy."));

        let program = Caller::program();
        let headers = program
            .with_context("call_id_stack", trace())
            .headers()
            .expect("headers");
        assert_eq!(stack(&headers), ["web.get.0"]);
        let without = program.with_context("tenant", "acme");
        let headers = without.headers().expect("headers");
        assert_eq!(headers, Table::from([("nameko.tenant", "acme")]));
    }

    #[test]
    fn a_value_that_cannot_be_a_header_is_named() {
        let nested = Table::from([("rate", f64::NAN)]);
        let long = "x".repeat(249);
        for (data, key, reason) in [
            (
                Table::from([("limits", nested)]),
                "limits",
                "a header cannot hold the number NaN",
            ),
            (
                Table::from([(long.as_str(), 1)]),
                &long,
                "the name of its header has 256 bytes, more than 255",
            ),
            (
                Table::from([("call_id_stack", "web.get.0")]),
                "call_id_stack",
                "it must be a list of call ids",
            ),
        ] {
            let call = client(Table::new()).with_data(data.clone());
            // A further value does not hide the error.
            let call = call.with_context("tenant", "acme");
            let error = call.headers().expect_err("an error").to_string();
            assert_eq!(
                error,
                format!("the context value `{key}` cannot be sent: {reason}")
            );
            assert!(Caller::client("id".to_owned(), data).is_err());
        }
        let longest = "x".repeat(248);
        let call = client(Table::new()).with_context(longest, 1);
        assert!(call.headers().is_ok());
    }
}
