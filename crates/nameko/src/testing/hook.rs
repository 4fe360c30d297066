//! Runs a method as a worker, without whatever fires its entrypoint.

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
    serialization,
    service::Outcome,
    tasks::TaskHandle,
    web::{Http, Request, Response},
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
        self.run(bindable(&arguments)?).await
    }

    /// As [`call`](Self::call), for a method that takes messages as they came.
    ///
    /// # Errors
    /// As of [`call`](Self::call).
    pub async fn message<T: DeserializeOwned>(&self, message: RawMessage) -> Result<T> {
        self.run(Arguments::from_origin(message)).await
    }

    /// Has an `#[http]` method answer a request, and returns the response as a client would get it, when the worker has
    /// ended: also where the method failed, or does not take the request's arguments. No connection is made for it; the
    /// service listens all the same, so let it take a free port.
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
    /// [`Error::IncorrectSignature`] when the method has no `#[http]` for such a request. [`Error::ExtensionNotFound`],
    /// [`Error::Timeout`], [`Error::Killed`] and [`Error::ContainerStopping`] as of [`call`](Self::call).
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
            let served: Vec<_> = entrypoints().map(|(it, _)| it.describe()).collect();
            return Err(Error::IncorrectSignature(format!(
                "{}() is not called for {} {}; it has {}",
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
                    // Where nobody waits any more, nobody wants it.
                    let _ = sender.send(json(&outcome));
                    outcome
                });
        self.wait(worker).await?;
        match receiver.await {
            Ok(result) => Ok(serialization::from_slice(&result?)?),
            Err(_) => Err(self.stopping()),
        }
    }

    /// The method, of a service that runs.
    fn find(&self) -> Result<MethodHandle> {
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
        Ok(method)
    }

    /// Waits for a worker's end.
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
