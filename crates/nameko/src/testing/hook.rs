//! Runs a method in a worker without firing its entrypoint.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};
use tokio::{sync::oneshot, time::timeout};

use super::{convert::json, timeout::TIMEOUT};
use crate::{
    amqp::{Table, Value},
    arguments::Arguments,
    container::{Container, MethodHandle},
    error::{Error, Result},
    messaging::RawMessage,
    protocol,
    rpc::CallResult,
    serialization,
    tasks::TaskHandle,
};

/// Creates a hook that calls a method of a container's service as if its entrypoint had fired.
///
/// The method runs in a worker, with dependencies and all provider hooks. No message is sent, so a
/// container without AMQP entrypoints needs no broker.
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
///         let language = self.worker.get("language");
///         let french = language.is_some_and(|value| value.as_str() == Some("fr"));
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

/// Calls a method of a container's service. Created by [`entrypoint_hook`].
#[derive(Debug, Clone)]
#[must_use = "a hook does nothing until called"]
pub struct EntrypointHook {
    pub(super) container: Container,
    pub(super) method: String,
    pub(super) context_data: Table,
    pub(super) timeout: Duration,
}

impl EntrypointHook {
    /// Adds context data to the call, such as `language` or `auth_token`.
    pub fn context(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.context_data.insert(key.into(), value.into());
        self
    }

    /// Sets the timeout of calls. Default: [`TIMEOUT`].
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Runs a worker to its end, including the final provider hooks, and returns the method's
    /// result.
    ///
    /// Arguments are passed as to [`ServiceProxy::call`](crate::ServiceProxy::call).
    ///
    /// # Errors
    /// [`Error::Raised`] with the error of the method, or [`Error::Custom`] if its type is
    /// [registered](crate::exceptions::register); [`Error::ExtensionNotFound`] if the service has
    /// no such entrypoint; [`Error::Timeout`]; [`Error::Killed`] if the call killed the container;
    /// [`Error::ContainerStopping`]; [`Error::Serialization`] if the result is not a `T`.
    pub async fn call<T: CallResult>(&self, arguments: impl Serialize) -> Result<T> {
        self.run(protocol::Call::bindable(&arguments)?).await
    }

    /// Like [`call`](Self::call), for a method that takes a [`RawMessage`].
    ///
    /// # Errors
    /// As for [`call`](Self::call).
    pub async fn message<T: CallResult>(&self, message: RawMessage) -> Result<T> {
        self.run(Arguments::from_origin(message)).await
    }

    async fn run<T: DeserializeOwned>(&self, arguments: Arguments) -> Result<T> {
        let method = self.find()?;
        let (sender, receiver) = oneshot::channel();
        let context_data = self.context_data.clone();
        let worker =
            self.container
                .spawn_worker(&method, arguments, context_data, |outcome| async {
                    // Fails if the caller timed out.
                    let _ = sender.send(json(&outcome));
                    outcome
                });
        self.wait(worker).await?;
        match receiver.await {
            Ok(result) => Ok(serialization::from_slice(&result?)?),
            Err(_) => Err(self.stopping()),
        }
    }

    /// Looks up the method in the running container.
    pub(super) fn find(&self) -> Result<MethodHandle> {
        let method = self.container.method(&self.method)?;
        if !self.container.was_started() {
            return Err(Error::raise(
                "ContainerError",
                format!(
                    "{} is not started: a hook requires a running container",
                    self.container.service_name()
                ),
            ));
        }
        Ok(method)
    }

    /// Waits for the end of a worker.
    pub(super) async fn wait(&self, mut worker: TaskHandle) -> Result<()> {
        if timeout(self.timeout, worker.wait()).await.is_err() {
            worker.abort();
            return Err(Error::Timeout {
                service: self.container.service_name().to_owned(),
                method: self.method.clone(),
                timeout: self.timeout,
            });
        }
        self.container.killed().map_or(Ok(()), Err)
    }

    pub(super) fn stopping(&self) -> Error {
        Error::ContainerStopping(self.container.service_name().to_owned())
    }
}
