//! Types of the results of calls.

use serde::de::DeserializeOwned;

/// A type that the result of a call can be read as: any owned type that implements
/// `serde::Deserialize`.
#[diagnostic::on_unimplemented(
    message = "the result of a call cannot be read as `{Self}`",
    label = "this type cannot be read from a message",
    note = "a result is read as an owned type that implements `serde::Deserialize`: derive it on your own types",
    note = "where the type is `!`, name the type of the result: `let order: Order = proxy.call(..).await?;`, or `let _: () = proxy.call(..).await?;` for a method without a result"
)]
pub trait CallResult: DeserializeOwned {}

impl<T: DeserializeOwned> CallResult for T {}
