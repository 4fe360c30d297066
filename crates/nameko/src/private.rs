//! What generated code calls. Not for use by hand; may change at any time.

use std::{any::TypeId, future::Future, marker::PhantomData, pin::Pin};

use serde::{Serialize, de::DeserializeOwned};

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
    web::{self, FromRequest, IntoResponse},
};

pub use crate::rpc::typed::{ArgumentList, ByName, ByPosition, Given, Target};

/// A parameter that callers must give.
pub const fn required(name: &'static str) -> Param {
    Param::required(name)
}

/// A parameter that callers may leave out.
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

/// A method that takes its arguments off the wire.
pub fn method<S, F>(name: &'static str, params: &'static [Param], decode: F) -> Method<S>
where
    F: Fn(&mut Args) -> Result<Call<S>> + Send + Sync + 'static,
{
    Method::new(name, params, decode)
}

/// A call whose arguments are decoded.
pub fn call<S, F>(call: F) -> Call<S>
where
    F: for<'a> FnOnce(&'a S) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'a>> + Send + 'static,
{
    Method::call(call)
}

/// What a method returned.
pub fn reply<R: Returned>(returned: R, fault: impl FindFault<R::Error>) -> Outcome
where
    R::Value: Reply,
    R::Error: Raise,
{
    match returned.into_result() {
        Ok(value) => Ok(Box::new(value)),
        Err(error) => Err(fault_of(&error, fault(ErrorTag::new()))),
    }
}

/// What a method takes of a message.
pub fn message<T: FromMessage>(args: &mut Args) -> Result<T> {
    T::from_message(args)
}

/// Whether a method with a parameter of that type takes messages as they came.
pub fn is_raw<T: 'static>() -> bool {
    TypeId::of::<T>() == TypeId::of::<RawMessage>()
}

/// What a method takes of an HTTP request.
pub fn extract<T: FromRequest>(args: &mut Args, name: &'static str) -> Result<T> {
    match args.origin::<web::Request>() {
        Some(request) => T::from_request(request, name),
        None => Err(Error::IncorrectSignature(format!(
            "the parameter `{name}` is taken from an HTTP request, and the call came with none; a hook gives one with `request`"
        ))),
    }
}

/// What a method answers an HTTP request with.
pub fn respond<R: Returned>(returned: R, fault: impl FindFault<R::Error>) -> Outcome
where
    R::Value: IntoResponse,
    R::Error: Raise,
{
    match returned.into_result() {
        Ok(value) => match value.into_response() {
            Ok(response) => Ok(Box::new(response)),
            Err(error) => Err(Fault::of(&error)),
        },
        Err(error) => Err(fault_of(&error, fault(ErrorTag::new()))),
    }
}

/// Finds how the error object of an `E` is made, if it is an exception.
pub trait FindFault<E>: FnOnce(ErrorTag<E>) -> Option<fn(&E) -> Fault> {}

impl<E, F: FnOnce(ErrorTag<E>) -> Option<fn(&E) -> Fault>> FindFault<E> for F {}

/// A `Result`, by whatever name the method calls it. What is in it is bounded where it is used, so that the compiler
/// tells a reply that cannot be sent from a method that returns no `Result`.
#[diagnostic::on_unimplemented(
    message = "an entrypoint cannot return `{Self}`",
    label = "return `Result<T, E>` instead",
    note = "`nameko::Result<T>` is `Result<T, nameko::Error>`"
)]
pub trait Returned {
    /// What is replied.
    type Value;
    /// What is raised.
    type Error;

    /// The value as the `Result` that it is.
    fn into_result(self) -> std::result::Result<Self::Value, Self::Error>;
}

impl<T, E> Returned for std::result::Result<T, E> {
    type Value = T;
    type Error = E;

    fn into_result(self) -> Self {
        self
    }
}

/// The future of a method of a mock.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a client's method returns: the result of the call, read.
pub fn answer<R: Answer>(target: &Target, method: &str, result: Result<Payload>) -> R
where
    R::Value: Received,
    R::Error: From<Error>,
{
    let read = |it: Payload| target.read(method, &it);
    R::from_result(result.and_then(read).map_err(R::Error::from))
}

/// A `Result`, by whatever name a client's method calls it.
#[diagnostic::on_unimplemented(
    message = "a client's method cannot return `{Self}`",
    label = "return `Result<T, E>` instead",
    note = "`nameko::Result<T>` is `Result<T, nameko::Error>`; any other `E` implements `From<nameko::Error>`"
)]
pub trait Answer {
    /// What the service replies.
    type Value;
    /// What a call that fails is told as.
    type Error;

    /// The `Result` as what the method returns.
    fn from_result(result: Result<Self::Value, Self::Error>) -> Self;
}

impl<T, E> Answer for Result<T, E> {
    type Value = T;
    type Error = E;

    fn from_result(result: Self) -> Self {
        result
    }
}

// What these return does not tell its type, so that the compiler reports one that cannot be sent once.

/// An argument of a call.
pub fn given<T: Sent>(value: T) -> Given<impl Serialize + use<T>> {
    Given {
        value,
        is_given: true,
    }
}

/// An argument of a call that is left out where it is `None`.
pub fn given_some<T>(value: Option<T>) -> Given<impl Serialize + use<T>>
where
    Option<T>: Sent,
{
    Given {
        is_given: value.is_some(),
        value,
    }
}

/// An argument of an exception, to be sent.
pub fn sent<T: Sent>(argument: &T) -> impl Serialize + use<'_, T> {
    argument
}

/// What callers see of an error: what it says itself, as an exception, if there is a `fault` for that.
pub fn fault_of<E: Raise>(error: &E, fault: Option<fn(&E) -> Fault>) -> Fault {
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
    /// The question.
    #[expect(clippy::new_without_default, reason = "generated code says `new`")]
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

/// The kind of an exception.
pub trait ExceptionFault<E> {
    /// How its error object is made.
    fn fault(&self) -> Option<fn(&E) -> Fault>;
}

impl<E: Exception> ExceptionFault<E> for ErrorTag<E> {
    fn fault(&self) -> Option<fn(&E) -> Fault> {
        Some(E::to_fault)
    }
}

/// The kind of any other error.
pub trait DefaultFault<E> {
    /// None.
    fn fault(&self) -> Option<fn(&E) -> Fault>;
}

impl<E> DefaultFault<E> for &ErrorTag<E> {
    fn fault(&self) -> Option<fn(&E) -> Fault> {
        None
    }
}

/// An argument of an exception, as it was sent. `None` where it is absent, or something else.
pub fn received<T: Received>(error: &RemoteError, index: usize) -> Option<T> {
    error.arg(index)
}

/// A value that is sent: whatever serde serialises.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be sent",
    label = "this type cannot be written into a message",
    note = "what is sent implements `serde::Serialize`: derive it on your own types"
)]
pub trait Sent: Serialize {}

impl<T: Serialize> Sent for T {}

/// A value that comes with a message: whatever serde deserialises into an owned value.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be read from a message",
    label = "this type cannot be read from a message",
    note = "what is read is an owned type that implements `serde::Deserialize`: derive it on your own types"
)]
pub trait Received: DeserializeOwned {}

impl<T: DeserializeOwned> Received for T {}
