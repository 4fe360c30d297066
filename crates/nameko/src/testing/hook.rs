//! Runs a method as a worker, without whatever fires its entrypoint.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};
use tokio::{sync::oneshot, time::timeout};

use super::TIMEOUT;
use crate::{
    amqp::{Table, Value},
    arguments::Arguments,
    container::Container,
    error::{Error, Result},
    serialization,
    service::Outcome,
};

/// A hook to call the method `method` of a container's service as if its entrypoint had fired: in a worker, with its
/// dependencies and all that providers do. No message is sent for it, so a container without AMQP needs no broker.
///
/// ```
/// use nameko::{prelude::*, testing::entrypoint_hook};
///
/// #[derive(Dependencies)]
/// struct Greeter {
///     #[dependency(CurrentWorker)]
///     worker: WorkerContext,
/// }
///
/// #[service("greeter")]
/// impl Greeter {
///     #[entrypoint(nameko::testing::Dummy)]
///     async fn hello(&self, name: String) -> Result<String> {
///         let french = self.worker.get("language").is_some_and(|it| it.as_str() == Some("fr"));
///         Ok(format!("{}, {name}!", if french { "Bonjour" } else { "Hello" }))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// let container = Container::new::<Greeter>(Config::new())?;
/// container.start().await?;
/// let hello = entrypoint_hook(&container, "hello");
/// assert_eq!(hello.call::<String>(("zq",)).await?, "Hello, zq!");
/// let bonjour = hello.context("language", "fr");
/// assert_eq!(bonjour.call::<String>(("zq",)).await?, "Bonjour, zq!");
/// container.stop().await;
/// # Ok(()) }
/// ```
pub fn entrypoint_hook(container: &Container, method: impl Into<String>) -> EntrypointHook {
    EntrypointHook {
        container: container.clone(),
        method: method.into(),
        context_data: Table::new(),
        timeout: TIMEOUT,
    }
}

/// Calls a method of a container's service. Made by [`entrypoint_hook`].
#[derive(Debug, Clone)]
#[must_use = "a hook does nothing until it calls"]
pub struct EntrypointHook {
    container: Container,
    method: String,
    context_data: Table,
    timeout: Duration,
}

impl EntrypointHook {
    /// Context data that the call comes with: `language`, `auth_token`, or your own.
    pub fn context(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.context_data.insert(key.into(), value.into());
        self
    }

    /// How long a call may take: by default [`TIMEOUT`].
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Runs a worker to its end, last hooks of providers included, and returns what the method returned. A tuple, an
    /// array or a `Vec` holds positional arguments; a struct or a map holds named ones.
    ///
    /// # Errors
    /// [`Error::Raised`] with what the method failed with. [`Error::ExtensionNotFound`] when the service has no such
    /// entrypoint, [`Error::Timeout`], [`Error::Killed`] when the container died of the call,
    /// [`Error::ContainerStopping`], [`Error::Serialization`] when the result is not a `T`.
    pub async fn call<T: DeserializeOwned>(&self, arguments: impl Serialize) -> Result<T> {
        let method = self.container.method(&self.method)?;
        if !self.container.was_started() {
            return Err(Error::raise(
                "ContainerError",
                format!(
                    "{} was not started: a hook calls into a running container",
                    self.container.service_name()
                ),
            ));
        }
        let arguments = bindable(&arguments)?;
        let (sender, receiver) = oneshot::channel();
        let context_data = self.context_data.clone();
        let mut worker =
            self.container
                .spawn_worker(&method, arguments, context_data, |outcome| async {
                    // Where nobody waits any more, nobody wants it.
                    let _ = sender.send(json(&outcome));
                    outcome
                });
        if timeout(self.timeout, worker.wait()).await.is_err() {
            worker.abort();
            return Err(Error::Timeout {
                service: self.container.service_name().to_owned(),
                method: self.method.clone(),
                timeout: self.timeout,
            });
        }
        if let Some(killed) = self.container.killed() {
            return Err(killed);
        }
        match receiver.await {
            Ok(result) => Ok(serialization::from_slice(&result?)?),
            Err(_) => Err(Error::ContainerStopping(
                self.container.service_name().to_owned(),
            )),
        }
    }
}

/// What a worker ended with, as JSON text.
pub(super) fn json(outcome: &Outcome) -> Result<Vec<u8>> {
    match outcome {
        Ok(reply) => reply.to_json(),
        Err(fault) => Err(Error::Raised(fault.clone())),
    }
}

/// Positional arguments in a list, named ones in an object, none in `null`.
pub(super) fn bindable(arguments: &impl Serialize) -> Result<Arguments> {
    let json = String::from_utf8(serialization::to_vec(arguments)?)?;
    match json.as_bytes().first() {
        Some(b'[') => Arguments::from_json(&json, "{}"),
        Some(b'{') => Arguments::from_json("[]", &json),
        Some(b'n') => Ok(Arguments::new()),
        _ => Err(Error::IncorrectSignature(
            "arguments must be a tuple such as `(value,)`, or named ones in a struct or map"
                .to_owned(),
        )),
    }
}
