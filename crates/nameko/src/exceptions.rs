//! Errors that keep their type across the wire.
//!
//! Errors are sent as a class path, `shop.exceptions.NotFound`, and the arguments of the exception.
//! A type that implements [`Exception`] defines both, and is sent this way by methods that return
//! it. Python peers map the same path to a class with `deserialize_to_instance`. In a process that
//! [`register`]s the type, calls that fail with one of its paths return it:
//! [`Error::downcast_ref`](crate::Error::downcast_ref) finds it, and a method that propagates the
//! error forwards it unchanged to the next caller.
//!
//! ```
//! use nameko::prelude::*;
//! use nameko::exceptions;
//!
//! #[derive(Debug, thiserror::Error, Exception)]
//! #[error("no order {id}")]
//! #[exception("shop.exceptions.NotFound")]
//! struct NotFound { id: u64 }
//!
//! async fn title(orders: &ServiceProxy, id: u64) -> Result<Option<String>> {
//!     match orders.call("title", (id,)).await {
//!         Err(error) if error.is::<NotFound>() => Ok(None),
//!         other => other.map(Some),
//!     }
//! }
//!
//! # fn main() {
//! exceptions::register::<NotFound>();
//! # }
//! ```

use std::{
    any::TypeId,
    error::Error as StdError,
    fmt::Display,
    sync::{PoisonError, RwLock},
};

use serde::Serialize;
use serde_json::Value;

use crate::{
    protocol::{Details, Fault},
    remote_error::RemoteError,
    serialization::{self, python_float},
};

/// An error type with its own class path for peers.
///
/// Implemented by `#[derive(Exception)]`: annotate a struct, or every variant of an enum, with
/// `#[exception("module.Class")]`. The fields are the arguments, in order. Annotate a variant that
/// wraps another error with `#[exception(transparent)]`: callers receive the wrapped error. Without
/// the macro:
///
/// ```
/// use nameko::{Exception, Fault, RemoteError};
///
/// #[derive(Debug, thiserror::Error)]
/// #[error("no order {0}")]
/// struct NotFound(u64);
///
/// impl Exception for NotFound {
///     const PATHS: &[&str] = &["shop.exceptions.NotFound"];
///
///     fn to_fault(&self) -> Fault {
///         Fault::exception("shop.exceptions.NotFound", (self.0,), self)
///     }
///
///     fn from_remote(error: &RemoteError) -> Option<Self> {
///         error.arg(0).map(Self)
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no class path on the wire",
    label = "this error type does not declare its class path",
    note = "derive it: `#[derive(Exception)]` with `#[exception(\"module.Class\")]`"
)]
pub trait Exception: StdError + Send + Sync + Sized + 'static {
    /// Class paths that are deserialized as this type.
    const PATHS: &'static [&'static str];

    /// Returns the error object for callers.
    fn to_fault(&self) -> Fault;

    /// Creates the error from a received error with one of the [`PATHS`](Self::PATHS). Returns
    /// `None` if the arguments do not match; the caller receives a [`RemoteError`] then.
    fn from_remote(error: &RemoteError) -> Option<Self>;
}

/// Registers an error type in this process, so that calls return it. To be called before services
/// start.
///
/// If two types have the same path, the last registered one applies. Nameko's own classes
/// ([`Error::MethodNotFound`](crate::Error::MethodNotFound), ...) cannot be replaced.
///
/// Methods can send an exception without registration, unless its type is erased by
/// [`Error::from_error`](crate::Error::from_error) or a `Box<dyn Error>`, or the service is written
/// without `#[service]`.
pub fn register<E: Exception>() {
    Entry {
        id: TypeId::of::<E>(),
        paths: E::PATHS,
        to_fault: |error| error.downcast_ref().map(E::to_fault),
        from_remote: |remote| Some(Box::new(E::from_remote(remote)?)),
    }
    .register();
}

/// Registers an error type of this crate that creates its own faults and is never deserialized from
/// replies. `to_fault` downcasts.
#[cfg(feature = "http")]
pub(crate) fn register_local<E: StdError + 'static>(to_fault: ToFault) {
    Entry {
        id: TypeId::of::<E>(),
        paths: &[],
        to_fault,
        from_remote: |_| None,
    }
    .register();
}

/// In the order of registration. Lookups are linear, since types are few and errors are rare.
static REGISTRY: RwLock<Vec<Entry>> = RwLock::new(Vec::new());

/// A registered type.
#[derive(Clone, Copy)]
struct Entry {
    id: TypeId,
    paths: &'static [&'static str],
    to_fault: ToFault,
    from_remote: fn(&RemoteError) -> Option<Box<dyn StdError + Send + Sync>>,
}

/// Creates the fault of an error, if it has the registered type.
type ToFault = fn(&(dyn StdError + 'static)) -> Option<Fault>;

impl Entry {
    /// Adds the entry, replacing an earlier one of the same type.
    fn register(self) {
        let mut registry = REGISTRY.write().unwrap_or_else(PoisonError::into_inner);
        registry.retain(|entry| entry.id != self.id);
        registry.push(self);
    }
}

/// Returns the error object of an error, if its type is registered.
pub(crate) fn fault_of(error: &(dyn StdError + 'static)) -> Option<Fault> {
    let registry = REGISTRY.read().unwrap_or_else(PoisonError::into_inner);
    // User code creates the faults, and may call `register`.
    let entries = registry.clone();
    drop(registry);
    entries.iter().find_map(|entry| (entry.to_fault)(error))
}

/// Returns the error of the type that is registered for the path of `remote`. Returns `None` if
/// there is none, or if it rejects the arguments.
pub(crate) fn from_remote(remote: &RemoteError) -> Option<Box<dyn StdError + Send + Sync>> {
    let registry = REGISTRY.read().unwrap_or_else(PoisonError::into_inner);
    let path = remote.exc_path.as_str();
    let entry = registry
        .iter()
        .rfind(|entry| entry.paths.contains(&path))
        .copied();
    drop(registry);
    let error = (entry?.from_remote)(remote);
    if error.is_none() {
        tracing::warn!(
            "the arguments of a received {path} do not match the type registered for it; it becomes a RemoteError"
        );
    }
    error
}

impl Fault {
    /// Creates an error object with the class `exc_path`, the arguments `exc_args` (a tuple, an
    /// array or a `Vec`) and the message `value`.
    ///
    /// For Python peers, leaves of the arguments become strings, as in Nameko: `1` is `"1"`, `true`
    /// is `"True"`. Rust peers receive the values. Arguments that JSON cannot represent, such as a
    /// map with compound keys, are omitted: callers receive a [`RemoteError`] without them.
    ///
    /// ```
    /// use nameko::Fault;
    ///
    /// let fault = Fault::exception("shop.exceptions.NotFound", (17,), "no order 17");
    /// assert_eq!(fault.exc_type, "NotFound");
    /// assert_eq!(fault.exc_args, ["17"]);
    /// ```
    pub fn exception(exc_path: &str, exc_args: impl Serialize, value: impl Display) -> Self {
        let exc_args_json = match serialization::to_vec(&exc_args).map(String::from_utf8) {
            Ok(Ok(text)) => Some(text).filter(|text| text.starts_with('[') && text != "[]"),
            Ok(Err(_)) => None,
            Err(error) => {
                tracing::warn!("the arguments of {exc_path} cannot be sent: {error}");
                None
            }
        };
        let exc_args = match serde_json::to_value(exc_args) {
            Ok(Value::Array(items)) => items.into_iter().map(safe).collect(),
            Ok(Value::Null) | Err(_) => Vec::new(),
            Ok(other) => vec![safe(other)],
        };
        Self {
            exc_type: exc_path.rsplit('.').next().unwrap_or(exc_path).to_owned(),
            exc_path: exc_path.to_owned(),
            exc_args,
            details: Details::of_json(exc_args_json),
            value: value.to_string(),
            extension: None,
        }
    }
}

/// Converts the leaves of a value to strings. Source: `safe_for_serialization` of Nameko 2.14.1.
fn safe(value: Value) -> Value {
    match value {
        Value::Null => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(float) => python_float(float).into(),
            None => number.to_string().into(),
        },
        Value::String(text) => Value::String(text),
        Value::Array(items) => items.into_iter().map(safe).collect(),
        Value::Object(entries) => entries.into_iter().map(|(k, v)| (k, safe(v))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, thiserror::Error)]
    #[error("{0} of {1}")]
    struct Sold(u32, String);

    impl Exception for Sold {
        const PATHS: &'static [&'static str] = &["tests.Sold", "tests.old.Sold"];

        fn to_fault(&self) -> Fault {
            Fault::exception("tests.Sold", (self.0, &self.1), self)
        }

        fn from_remote(error: &RemoteError) -> Option<Self> {
            Some(Self(error.arg(0)?, error.arg(1)?))
        }
    }

    fn remote(path: &str, args: Value) -> RemoteError {
        let fault = Fault::exception(path, args, "3 of tea");
        RemoteError::from(fault)
    }

    #[test]
    fn a_registered_path_is_deserialized_as_its_type() {
        register::<Sold>();
        register::<Sold>();
        for path in ["tests.Sold", "tests.old.Sold"] {
            let error = Fault::from(remote(path, json!(["3", "tea"]))).into_error();
            assert_eq!(error.downcast_ref(), Some(&Sold(3, "tea".to_owned())));
            assert_eq!(error.to_string(), "3 of tea");
        }
        for (path, args) in [
            ("tests.Sold", json!(["many", "tea"])),
            ("tests.Sold", json!([])),
            ("tests.Unsold", json!(["3", "tea"])),
        ] {
            let error = Fault::from(remote(path, args)).into_error();
            assert!(error.as_remote().is_some(), "{error:?}");
        }
    }

    #[test]
    fn a_registered_type_is_sent_by_its_path() {
        register::<Sold>();
        let fault = Fault::of(&Sold(3, "tea".to_owned()));
        assert_eq!(fault.exc_path, "tests.Sold");
        assert_eq!(fault.exc_args, ["3", "tea"]);
        let boxed: Box<dyn StdError + Send + Sync> = Box::new(Sold(3, "tea".to_owned()));
        assert_eq!(Fault::of(&crate::Error::from(boxed)), fault);
    }

    /// Source: `safe_for_serialization` of Nameko 2.14.1.
    #[test]
    fn leaves_are_sent_as_python_strings() {
        let args = json!([null, true, 1, 1.0, 1e16, "x", [2, {"a": false}]]);
        let fault = Fault::exception("a.B", args, "");
        let expected = json!(["None", "True", "1", "1.0", "1e+16", "x", ["2", {"a": "False"}]]);
        assert_eq!(json!(fault.exc_args), expected);
    }

    #[test]
    fn arguments_are_parsed_from_strings() {
        let remote = remote("a.B", json!([1, 1.5, true, null, "x", [1, 2]]));
        assert_eq!(remote.arg(0), Some(1));
        assert_eq!(remote.arg(0), Some("1".to_owned()));
        assert_eq!(remote.arg(1), Some(1.5));
        assert_eq!(remote.arg(2), Some(true));
        assert_eq!(remote.arg(3), Some(None::<u8>));
        assert_eq!(remote.arg(4), Some("x".to_owned()));
        assert_eq!(remote.arg::<u8>(4), None);
        assert_eq!(remote.arg::<u8>(6), None);
        assert_eq!(remote.arg(5), Some(["1".to_owned(), "2".to_owned()]));
    }
}
