//! Functions for generated code. Not a public API; may change at any time.

use std::{any::TypeId, future::Future, marker::PhantomData, pin::Pin};

use serde::{Serialize, de::DeserializeOwned};

#[cfg(feature = "http")]
use crate::web::IntoResponse;
use crate::{
    arguments::{Args, Param},
    error::{Error, Raise, Result},
    exceptions::Exception,
    extension::Entrypoint,
    messaging::{FromMessage, RawMessage},
    protocol::Fault,
    remote_error::RemoteError,
    reply::{Outcome, Reply},
    serialization::Payload,
    service::{Call, Entrypoints, Method, Service},
};

#[cfg(feature = "http")]
pub use crate::web::{
    extraction::{DefaultKind, HttpArgument},
    path_check::{HttpParam, check_path},
};

pub use crate::rpc::typed::{ArgumentList, ByName, ByPosition, Given, Target};

/// Creates a required parameter.
pub const fn required(name: &'static str) -> Param {
    Param::required(name)
}

/// Creates an optional parameter.
pub const fn optional(name: &'static str) -> Param {
    Param::optional(name)
}

/// Adds an entrypoint to a service.
pub fn add<S: Service>(
    entrypoints: &mut Entrypoints<S>,
    entrypoint: impl Entrypoint,
    method: Method<S>,
) {
    entrypoints.add(entrypoint, method);
}

/// Creates a method from a function that decodes its arguments.
pub fn method<S, F>(name: &'static str, params: &'static [Param], decode: F) -> Method<S>
where
    F: Fn(&mut Args) -> Result<Call<S>> + Send + Sync + 'static,
{
    Method::new(name, params, decode)
}

/// Creates a call with decoded arguments.
pub fn call<S, F>(call: F) -> Call<S>
where
    F: for<'a> FnOnce(&'a S) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'a>> + Send + 'static,
{
    Method::call(call)
}

/// Converts the result of a method to an outcome.
pub fn reply<R: Returned, M>(returned: R, fault: impl FindFault<R::Error>) -> Outcome
where
    R::Value: Reply,
    R::Error: Raise<M>,
{
    match returned.into_result() {
        Ok(value) => Ok(Box::new(value)),
        Err(error) => Err(fault_of(&error, fault(ErrorTag::new()))),
    }
}

/// Extracts the argument of a method that handles messages.
pub fn message<T: FromMessage>(args: &mut Args) -> Result<T> {
    T::from_message(args)
}

/// Returns `true` if the type is that of undecoded messages.
pub fn is_raw<T: 'static>() -> bool {
    TypeId::of::<T>() == TypeId::of::<RawMessage>()
}

/// Converts the result of an HTTP method to an outcome.
#[cfg(feature = "http")]
pub fn respond<R: Returned, M>(returned: R, fault: impl FindFault<R::Error>) -> Outcome
where
    R::Value: IntoResponse,
    R::Error: Raise<M>,
{
    match returned.into_result() {
        Ok(value) => match value.into_response() {
            Ok(response) => Ok(Box::new(response)),
            Err(error) => Err(Fault::of(&error)),
        },
        Err(error) => Err(fault_of(&error, fault(ErrorTag::new()))),
    }
}

/// Selects the conversion of an `E` to an error object, if it is an exception.
pub trait FindFault<E>: FnOnce(ErrorTag<E>) -> Option<fn(&E) -> Fault> {}

impl<E, F: FnOnce(ErrorTag<E>) -> Option<fn(&E) -> Fault>> FindFault<E> for F {}

/// A `Result` or an alias of it. Without bounds on the value and the error, so that the compiler
/// reports an invalid reply type differently from a return type that is not a `Result`.
#[diagnostic::on_unimplemented(
    message = "an entrypoint cannot return `{Self}`",
    label = "return `Result<T, E>` instead",
    note = "`nameko::Result<T>` is `Result<T, nameko::Error>`"
)]
pub trait Returned {
    /// Type of the reply.
    type Value;
    /// Type of the error.
    type Error;

    /// Converts to `Result`.
    fn into_result(self) -> std::result::Result<Self::Value, Self::Error>;
}

impl<T, E> Returned for std::result::Result<T, E> {
    type Value = T;
    type Error = E;

    fn into_result(self) -> Self {
        self
    }
}

/// The future of a mock's method.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Deserializes the result of a call for the method of a client.
pub fn answer<R: Answer>(target: &Target, method: &str, result: Result<Payload>) -> R
where
    R::Value: Received,
    R::Error: From<Error>,
{
    let read = |payload: Payload| target.read(method, &payload);
    R::from_result(result.and_then(read).map_err(R::Error::from))
}

/// A `Result` or an alias of it, as the return type of a client's method.
#[diagnostic::on_unimplemented(
    message = "a client's method cannot return `{Self}`",
    label = "return `Result<T, E>` instead",
    note = "`nameko::Result<T>` is `Result<T, nameko::Error>`; any other `E` implements `From<nameko::Error>`"
)]
pub trait Answer {
    /// Type of the reply.
    type Value;
    /// Type of the error.
    type Error;

    /// Converts from `Result`.
    fn from_result(result: Result<Self::Value, Self::Error>) -> Self;
}

impl<T, E> Answer for Result<T, E> {
    type Value = T;
    type Error = E;

    fn from_result(result: Self) -> Self {
        result
    }
}

// The return types are opaque, so that the compiler reports a type that cannot be serialized only
// once.

/// Creates an argument of a call.
pub fn given<T: Sent>(value: T) -> Given<impl Serialize + use<T>> {
    Given {
        value,
        is_given: true,
    }
}

/// Creates an argument of a call, omitted if it is `None`.
pub fn given_some<T>(value: Option<T>) -> Given<impl Serialize + use<T>>
where
    Option<T>: Sent,
{
    Given {
        is_given: value.is_some(),
        value,
    }
}

/// Returns an argument of an exception for serialization.
pub fn sent<T: Sent>(argument: &T) -> impl Serialize + use<'_, T> {
    argument
}

/// Returns the error object for callers, created by `fault` if the error is an exception.
pub fn fault_of<E: Raise<M>, M>(error: &E, fault: Option<fn(&E) -> Fault>) -> Fault {
    match fault {
        Some(fault) => fault(error),
        None => Fault::of(error),
    }
}

/// Selects the error object of an error type by autoref specialization: with both traits in scope,
/// `(&ErrorTag::<E>::new()).fault()` resolves to [`ExceptionFault`] if `E` is an exception, else to
/// [`DefaultFault`].
pub struct ErrorTag<E>(PhantomData<E>);

impl<E> ErrorTag<E> {
    /// Creates the value for method resolution.
    #[expect(clippy::new_without_default, reason = "generated code says `new`")]
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

/// Implemented for the [`ErrorTag`] of exceptions.
pub trait ExceptionFault<E> {
    /// Returns the conversion to an error object.
    fn fault(&self) -> Option<fn(&E) -> Fault>;
}

impl<E: Exception> ExceptionFault<E> for ErrorTag<E> {
    fn fault(&self) -> Option<fn(&E) -> Fault> {
        Some(|error| error.to_fault().with_causes_of(error))
    }
}

/// Implemented for the [`ErrorTag`] of all errors, with lower priority.
pub trait DefaultFault<E> {
    /// Returns `None`.
    fn fault(&self) -> Option<fn(&E) -> Fault>;
}

impl<E> DefaultFault<E> for &ErrorTag<E> {
    fn fault(&self) -> Option<fn(&E) -> Fault> {
        None
    }
}

/// Returns an argument of a received exception, or `None` if it is absent or has another type.
pub fn received<T: Received>(error: &RemoteError, index: usize) -> Option<T> {
    error.arg(index)
}

/// A type that can be sent: any type that implements `serde::Serialize`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be sent",
    label = "this type cannot be written into a message",
    note = "values in messages must implement `serde::Serialize`: derive it on your own types"
)]
pub trait Sent: Serialize {}

impl<T: Serialize> Sent for T {}

/// A type that can be received: any owned type that implements `serde::Deserialize`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be read from a message",
    label = "this type cannot be read from a message",
    note = "values from messages must be owned types that implement `serde::Deserialize`: derive it on your own types"
)]
pub trait Received: DeserializeOwned {}

impl<T: DeserializeOwned> Received for T {}
