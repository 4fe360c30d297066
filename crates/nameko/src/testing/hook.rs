//! Runs a method in a worker without firing its entrypoint.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};
use tokio::{sync::oneshot, time::timeout};

use super::TIMEOUT;
use crate::{
    amqp::{Table, Value},
    arguments::Arguments,
    container::{Container, MethodHandle},
    error::{Error, Result},
    extension::Entrypoint,
    messaging::RawMessage,
    reply::Outcome,
    serialization,
    tasks::TaskHandle,
    web::{Http, Request, Response},
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
    container: Container,
    method: String,
    context_data: Table,
    timeout: Duration,
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
    /// Positional arguments are a tuple, array or `Vec`; named ones a struct or map.
    ///
    /// # Errors
    /// [`Error::Raised`] with the error of the method; [`Error::ExtensionNotFound`] if the service
    /// has no such entrypoint; [`Error::Timeout`]; [`Error::Killed`] if the call killed the
    /// container; [`Error::ContainerStopping`]; [`Error::Serialization`] if the result is not a
    /// `T`.
    pub async fn call<T: DeserializeOwned>(&self, arguments: impl Serialize) -> Result<T> {
        self.run(bindable(&arguments)?).await
    }

    /// Like [`call`](Self::call), for a method that takes a [`RawMessage`].
    ///
    /// # Errors
    /// As for [`call`](Self::call).
    pub async fn message<T: DeserializeOwned>(&self, message: RawMessage) -> Result<T> {
        self.run(Arguments::from_origin(message)).await
    }

    /// Passes a request to an `#[http]` method and returns the response that a client would
    /// receive.
    ///
    /// Returns after the worker has ended, also if the method fails or the request's arguments do
    /// not match. No connection is made, but the service still listens: configure port 0.
    ///
    /// ```
    /// use nameko::{prelude::*, testing::entrypoint_hook, web::{self, http, Bytes, Json}};
    ///
    /// #[derive(Dependencies)]
    /// struct Shop;
    ///
    /// #[service("shop")]
    /// impl Shop {
    ///     #[http(GET, "/orders/{id}")]
    ///     async fn order(&self, id: u64) -> Result<Json<u64>> {
    ///         if id > 9 {
    ///             return Err(web::Error::not_found(format!("no order {id}")).into());
    ///         }
    ///         Ok(Json(id))
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// let config = Config::new().with("WEB_SERVER_ADDRESS", "127.0.0.1:0");
    /// let shop = Container::new::<Shop>(config)?;
    /// shop.start().await?;
    /// let order = entrypoint_hook(&shop, "order");
    /// let get = |path| http::Request::get(path).body(Bytes::new()).unwrap();
    /// let response = order.request(get("/orders/7")).await?;
    /// assert_eq!((response.status_code().as_u16(), response.body()), (200, Some(&b"7"[..])));
    /// let response = order.request(get("/orders/17")).await?;
    /// assert_eq!(response.status_code(), 404);
    /// shop.stop().await;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::IncorrectSignature`] if the method has no `#[http]` for the request.
    /// [`Error::ExtensionNotFound`], [`Error::Timeout`], [`Error::Killed`] and
    /// [`Error::ContainerStopping`] as for [`call`](Self::call).
    pub async fn request(&self, request: impl Into<Request>) -> Result<Response> {
        self.find()?;
        let request = request.into();
        let owner = format!("{}.{}", self.container.service_name(), self.method);
        let entrypoints = || self.container.entrypoints_of::<Http>(&self.method);
        let accepts = |(entrypoint, method)| {
            let entrypoint: &Http = entrypoint;
            Some((entrypoint, method, entrypoint.accept(&owner, &request)?))
        };
        let Some((entrypoint, method, accepted)) = entrypoints().find_map(accepts) else {
            let served: Vec<_> = entrypoints()
                .map(|(entrypoint, _)| entrypoint.describe())
                .collect();
            return Err(Error::IncorrectSignature(format!(
                "{}() does not handle {} {}; it handles {}",
                self.method,
                request.method(),
                request.uri().path(),
                if served.is_empty() {
                    "no #[http]".to_owned()
                } else {
                    served.join(", ")
                },
            )));
        };
        let context_data = self.context_data.clone();
        let (worker, response) =
            entrypoint.answer(&self.container, method, accepted, context_data)?;
        self.wait(worker).await?;
        response.await.map_err(|_| self.stopping())
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
    fn find(&self) -> Result<MethodHandle> {
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
    async fn wait(&self, mut worker: TaskHandle) -> Result<()> {
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

    fn stopping(&self) -> Error {
        Error::ContainerStopping(self.container.service_name().to_owned())
    }
}

/// Serializes the result of a worker as JSON.
pub(super) fn json(outcome: &Outcome) -> Result<Vec<u8>> {
    match outcome {
        Ok(reply) => reply.to_json(),
        Err(fault) => Err(Error::Raised(fault.clone())),
    }
}

/// Converts arguments: a list to positional ones, an object to named ones, `null` to none.
pub(super) fn bindable(arguments: &impl Serialize) -> Result<Arguments> {
    let json = String::from_utf8(serialization::to_vec(arguments)?)?;
    match json.as_bytes().first() {
        Some(b'[') => Arguments::from_json(&json, "{}"),
        Some(b'{') => Arguments::from_json("[]", &json),
        Some(b'n') => Ok(Arguments::new()),
        _ => Err(Error::IncorrectSignature(
            "arguments must be a tuple such as `(value,)`, or a struct or map of named ones"
                .to_owned(),
        )),
    }
}
