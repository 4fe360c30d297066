//! Errors that keep their type across the wire.
//!
//! An error is sent as its class path, `shop.exceptions.NotFound`, and the arguments it was raised with. A type that
//! implements [`Exception`] says what these are for it: a method that fails with it sends them. Peers in Python know the same
//! path by `deserialize_to_instance`. Once the type is [`register`]ed in a process, a call that fails with one of its paths
//! fails with it: [`Error::downcast_ref`](crate::Error::downcast_ref) finds it, and where a method lets the error pass, it goes on to the next caller
//! unchanged.
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

use crate::{protocol::Fault, remote_error::RemoteError, serialization::python_float};

/// An error type that peers know by a class path of its own.
///
/// `#[derive(Exception)]` writes it: `#[exception("module.Class")]` stands on a struct, or on each variant of an enum, and the
/// fields are the arguments, in their order. A variant that wraps another error is `#[exception(transparent)]`: callers
/// see the other. By hand:
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
    label = "this error type does not say what peers call it",
    note = "derive it: `#[derive(Exception)]` with `#[exception(\"module.Class\")]`"
)]
pub trait Exception: StdError + Send + Sync + Sized + 'static {
    /// The paths of the errors that are read back as this type.
    const PATHS: &'static [&'static str];

    /// The error object that callers receive.
    fn to_fault(&self) -> Fault;

    /// The error from what a peer sent under one of [`PATHS`](Self::PATHS). `None` where that does not fit, as other arguments
    /// than expected; it is then a [`RemoteError`].
    fn from_remote(error: &RemoteError) -> Option<Self>;
}

/// Makes an error type known to this process: calls fail with it from now on. Call it before services start.
///
/// Where two types have one path, the one that was registered last is made. Nameko's own classes
/// ([`Error::MethodNotFound`](crate::Error::MethodNotFound), ...) are always themselves.
///
/// Methods need no registration to send what an error type says of itself, save where its type is hidden: behind
/// [`Error::from_error`](crate::Error::from_error) or a `Box<dyn Error>`, and in services written without `#[service]`.
pub fn register<E: Exception>() {
    Entry {
        id: TypeId::of::<E>(),
        paths: E::PATHS,
        to_fault: |error| error.downcast_ref().map(E::to_fault),
        from_remote: |remote| Some(Box::new(E::from_remote(remote)?)),
    }
    .register();
}

/// Registers an error type of this crate that makes its own faults and is never read from replies. `to_fault` downcasts.
pub(crate) fn register_local<E: StdError + 'static>(to_fault: ToFault) {
    Entry {
        id: TypeId::of::<E>(),
        paths: &[],
        to_fault,
        from_remote: |_| None,
    }
    .register();
}

/// In the order of their registration. There are few, and errors are rare: a lookup walks them.
static REGISTRY: RwLock<Vec<Entry>> = RwLock::new(Vec::new());

/// A registered type.
#[derive(Clone, Copy)]
struct Entry {
    id: TypeId,
    paths: &'static [&'static str],
    to_fault: ToFault,
    from_remote: fn(&RemoteError) -> Option<Box<dyn StdError + Send + Sync>>,
}

/// Makes the fault of an error, if it is of the registered type.
type ToFault = fn(&(dyn StdError + 'static)) -> Option<Fault>;

impl Entry {
    /// Adds the entry, in place of an earlier one for its type.
    fn register(self) {
        let mut registry = REGISTRY.write().unwrap_or_else(PoisonError::into_inner);
        registry.retain(|entry| entry.id != self.id);
        registry.push(self);
    }
}

/// What callers receive of an error, if its type is registered.
pub(crate) fn fault_of(error: &(dyn StdError + 'static)) -> Option<Fault> {
    let registry = REGISTRY.read().unwrap_or_else(PoisonError::into_inner);
    // Faults are made by code of the user's, which may register in turn.
    let entries = registry.clone();
    drop(registry);
    entries.iter().find_map(|entry| (entry.to_fault)(error))
}

/// Returns the error of the type that is registered for the path of `remote`. Returns `None` if there is none, or if it
/// rejects the arguments.
pub(crate) fn from_remote(remote: &RemoteError) -> Option<Box<dyn StdError + Send + Sync>> {
    let registry = REGISTRY.read().unwrap_or_else(PoisonError::into_inner);
    let path = remote.exc_path.as_str();
    let entry = registry
        .iter()
        .rfind(|it| it.paths.contains(&path))
        .copied();
    drop(registry);
    let error = (entry?.from_remote)(remote);
    if error.is_none() {
        tracing::warn!(
            "a {path} came with arguments that do not fit the type that is registered for it; it stays a remote error"
        );
    }
    error
}

impl Fault {
    /// An error of the class at `exc_path`, raised with `exc_args` (a tuple, an array or a `Vec`), whose text is `value`.
    ///
    /// Leaves of the arguments become text, as Nameko sends them: `1` is `"1"`, `true` is `"True"`. Arguments that have no JSON
    /// form are left out.
    ///
    /// ```
    /// use nameko::Fault;
    ///
    /// let fault = Fault::exception("shop.exceptions.NotFound", (17,), "no order 17");
    /// assert_eq!(fault.exc_type, "NotFound");
    /// assert_eq!(fault.exc_args, ["17"]);
    /// ```
    pub fn exception(exc_path: &str, exc_args: impl Serialize, value: impl Display) -> Self {
        let exc_args = match serde_json::to_value(exc_args) {
            Ok(Value::Array(items)) => items.into_iter().map(safe).collect(),
            Ok(Value::Null) | Err(_) => Vec::new(),
            Ok(other) => vec![safe(other)],
        };
        Self {
            exc_type: exc_path.rsplit('.').next().unwrap_or(exc_path).to_owned(),
            exc_path: exc_path.to_owned(),
            exc_args,
            value: value.to_string(),
            extension: None,
        }
    }
}

/// A value whose leaves are text. Source: `safe_for_serialization` of Nameko 2.14.1.
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
    fn a_registered_path_is_read_as_its_type() {
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
    fn leaves_are_sent_as_pythons_text() {
        let args = json!([null, true, 1, 1.0, 1e16, "x", [2, {"a": false}]]);
        let fault = Fault::exception("a.B", args, "");
        let expected = json!(["None", "True", "1", "1.0", "1e+16", "x", ["2", {"a": "False"}]]);
        assert_eq!(json!(fault.exc_args), expected);
    }

    #[test]
    fn arguments_are_read_back_from_their_text() {
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
