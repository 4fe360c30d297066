//! What generated code calls. Not for use by hand; may change at any time.

use std::{future::Future, pin::Pin};

use crate::{
    arguments::{Args, Param},
    error::{Raise, Result},
    extension::Entrypoint,
    service::{Call, Entrypoints, Method, Outcome, Reply, Service},
};

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
pub fn reply<T: Reply, E: Raise>(result: std::result::Result<T, E>) -> Outcome {
    Method::<()>::reply(result)
}
