//! The dependency through which a service calls another.

use std::{
    fmt,
    marker::PhantomData,
    sync::{Arc, OnceLock},
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};

use super::{
    client::{Client, Options},
    replies::Replies,
};
use crate::{
    amqp::{self, Observer, Publisher, Table},
    container::Container,
    error::{Error, Result},
    extension::{DependencyProvider, SharedExtension},
    protocol,
    queue_consumer::QueueConsumer,
    serialization::{Compression, Format, Payload},
    worker::{self, WorkerContext},
};

/// Injects a [`ServiceProxy`].
///
/// ```
/// use nameko::prelude::*;
///
/// #[derive(Dependencies)]
/// struct ServiceX {
///     #[dependency(RpcProxy::new("service_y"))]
///     y: ServiceProxy,
/// }
///
/// #[service("service_x")]
/// impl ServiceX {
///     #[rpc]
///     async fn remote_method(&self, value: String) -> Result<String> {
///         self.y.call("append_id", (format!("{value}-x"),)).await
///     }
/// }
/// ```
///
/// [`client`](Self::client) has it inject a typed client in the proxy's place.
pub struct RpcProxy<C = ServiceProxy> {
    service: Arc<str>,
    timeout: Option<Option<Duration>>,
    serializer: Option<String>,
    compression: Option<Compression>,
    ready: OnceLock<(Client, Options)>,
    client: PhantomData<fn() -> C>,
}

impl RpcProxy {
    /// Calls to the service of that name.
    pub fn new(service: impl Into<Arc<str>>) -> Self {
        Self {
            service: service.into(),
            timeout: None,
            serializer: None,
            compression: None,
            ready: OnceLock::new(),
            client: PhantomData,
        }
    }

    /// Injects a client made from the proxy, as [`#[rpc_client]`](macro@crate::rpc_client) writes them.
    /// Those have a `provider` that does this for the name of their service.
    pub fn client<C: From<ServiceProxy>>(self) -> RpcProxy<C> {
        RpcProxy {
            service: self.service,
            timeout: self.timeout,
            serializer: self.serializer,
            compression: self.compression,
            ready: self.ready,
            client: PhantomData,
        }
    }
}

impl<C> RpcProxy<C> {
    /// How long a call waits for its reply, `None` for ever. By default the config key `rpc_timeout`, else a minute.
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.timeout = Some(timeout.into());
        self
    }

    /// What requests are written in: `json`, `msgpack`, or a format that was
    /// [`register`](crate::serialization::register)ed. By default what the config key `serializer` says. The service
    /// must accept it, and replies in it.
    pub fn serializer(mut self, name: impl Into<String>) -> Self {
        self.serializer = Some(name.into());
        self
    }

    /// Makes requests smaller. Replies never are.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = Some(compression);
        self
    }
}

impl<C> fmt::Debug for RpcProxy<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<RpcProxy [{}]>", self.service)
    }
}

impl<C: From<ServiceProxy> + Send + 'static> DependencyProvider for RpcProxy<C> {
    type Dependency = C;

    async fn setup(&self, container: &Container) -> Result<()> {
        let listener = container.shared(ReplyListener::new)?;
        let mut options = Options::new(container.config())?;
        if let Some(timeout) = self.timeout {
            options.timeout = timeout;
        }
        if let Some(name) = &self.serializer {
            options.codec = options.codec.writing(name)?;
        }
        options.compression = self.compression;
        let _ = self.ready.set((listener.client.clone(), options));
        Ok(())
    }

    async fn get_dependency(&self, ctx: &WorkerContext) -> Result<C> {
        match self.ready.get() {
            Some((client, options)) => Ok(C::from(ServiceProxy::new(
                self.service.clone(),
                client.clone(),
                options.clone(),
                Caller::Worker(ctx.clone()),
            ))),
            None => Err(Error::ContainerStopping(ctx.service_name().to_owned())),
        }
    }
}

/// The reply queue of a container, shared by its proxies.
struct ReplyListener {
    client: Client,
    replies: Arc<Replies>,
}

impl ReplyListener {
    fn new(container: &Container) -> Result<Self> {
        let options = container.config().connect_options()?;
        let exchange = protocol::rpc_exchange(container.config())?;
        let queue = QueueConsumer::of(container)?;
        let prefetch = Some(container.prefetch_count());
        let replies = Replies::subscribe(
            &queue.consumers,
            &exchange,
            container.service_name(),
            prefetch,
        );
        queue.watch(Arc::new(Connection(replies.clone())));
        let client = Client::new(&exchange.name, Publisher::shared(&options), replies.clone());
        Ok(Self { client, replies })
    }
}

/// Tells those who wait for replies how the connection fares.
struct Connection(Arc<Replies>);

impl Observer for Connection {
    fn connection_error(&self, _: &amqp::Error, _: Duration) {}

    fn connected(&self, _: bool) {
        self.0.connected();
    }

    fn lost(&self, error: &amqp::Error) {
        self.0.lost(error);
    }
}

impl SharedExtension for ReplyListener {
    async fn stop(&self) {
        self.kill();
    }

    fn kill(&self) {
        self.replies.close("the container was stopped");
    }
}

/// Calls the methods of one service.
///
/// Cheap to clone, usable from many tasks at once.
#[derive(Clone)]
pub struct ServiceProxy {
    service: Arc<str>,
    via: Via,
}

#[derive(Clone)]
enum Via {
    Broker {
        client: Client,
        options: Options,
        caller: Caller,
    },
    Fake(Arc<Fake>),
}

type Fake =
    dyn Fn(&str, serde_json::Value, serde_json::Value) -> Result<serde_json::Value> + Send + Sync;

/// On whose behalf calls are made: what their headers tell.
#[derive(Clone)]
pub(crate) enum Caller {
    /// A worker: its context as it is when the call is made.
    Worker(WorkerContext),
    /// A program of its own: the same call id for all its calls, and its context data.
    Standalone(Arc<(String, Table)>),
}

impl Caller {
    fn headers(&self) -> Table {
        match self {
            Self::Worker(ctx) => ctx.headers(),
            Self::Standalone(it) => worker::headers(&it.1, vec![it.0.clone()]),
        }
    }
}

impl ServiceProxy {
    pub(crate) fn new(service: Arc<str>, client: Client, options: Options, caller: Caller) -> Self {
        Self {
            service,
            via: Via::Broker {
                client,
                options,
                caller,
            },
        }
    }

    /// A stand-in for tests: `reply` is given the method's name, the positional arguments (an array) and the named ones
    /// (an object), and answers in the service's place.
    ///
    /// ```
    /// # use nameko::ServiceProxy;
    /// let y = ServiceProxy::mock("service_y", |_method, args, _kwargs| Ok(args[0].clone()));
    /// ```
    pub fn mock<F>(service: impl Into<Arc<str>>, reply: F) -> Self
    where
        F: Fn(&str, serde_json::Value, serde_json::Value) -> Result<serde_json::Value>
            + Send
            + Sync
            + 'static,
    {
        Self {
            service: service.into(),
            via: Via::Fake(Arc::new(reply)),
        }
    }

    /// The service's name.
    pub fn service_name(&self) -> &str {
        &self.service
    }

    /// The same proxy with another timeout, `None` for none: `proxy.with_timeout(SECOND).call(..)`.
    pub fn with_timeout(&self, timeout: impl Into<Option<Duration>>) -> Self {
        let mut proxy = self.clone();
        if let Via::Broker { options, .. } = &mut proxy.via {
            options.timeout = timeout.into();
        }
        proxy
    }

    /// The same proxy, writing its requests in another format: `json`, `msgpack`, or one that was
    /// [`register`](crate::serialization::register)ed.
    ///
    /// # Errors
    /// [`Error::Config`] where no format has that name.
    pub fn with_serializer(&self, name: &str) -> Result<Self> {
        let mut proxy = self.clone();
        if let Via::Broker { options, .. } = &mut proxy.via {
            options.codec = options.codec.writing(name)?;
        }
        Ok(proxy)
    }

    /// The same proxy, making its requests smaller.
    pub fn with_compression(&self, compression: impl Into<Option<Compression>>) -> Self {
        let mut proxy = self.clone();
        if let Via::Broker { options, .. } = &mut proxy.via {
            options.compression = compression.into();
        }
        proxy
    }

    /// Calls `method`. A tuple, an array or a `Vec` holds positional arguments; a struct or a map holds named ones.
    ///
    /// ```no_run
    /// # use nameko::{Result, ServiceProxy};
    /// # use std::collections::BTreeMap;
    /// # async fn run(hello: ServiceProxy) -> Result<()> {
    /// let _: String = hello.call("hello", ("zq",)).await?;
    /// let _: String = hello.call("hello", BTreeMap::from([("name", "zq")])).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Remote`] when the method raised, [`Error::UnknownService`], [`Error::MethodNotFound`],
    /// [`Error::IncorrectSignature`], [`Error::Timeout`], [`Error::ReplyLost`], [`Error::Publish`] when the request could
    /// not be sent, [`Error::Serialization`] when the arguments have no form in the format or the result is not a `T`.
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        arguments: impl Serialize,
    ) -> Result<T> {
        let result = self.ask(method, arguments).await?;
        self.read(method, &result)
    }

    /// Reads the result of a call of `method`. An error says whose result it is: a worker makes many calls.
    pub(crate) fn read<T: DeserializeOwned>(&self, method: &str, result: &Payload) -> Result<T> {
        let service = &self.service;
        let read = result.read();
        Ok(read.map_err(|error| error.within(format_args!("the result of {service}.{method}")))?)
    }

    /// As [`call`](Self::call), with the result unread.
    pub(crate) async fn ask(&self, method: &str, arguments: impl Serialize) -> Result<Payload> {
        let call = protocol::Call::new(self.format(), &arguments)?;
        match call {
            Some(call) => self.send(method, call).await,
            None => Err(Error::IncorrectSignature(format!(
                "arguments of {}.{method} must be a tuple such as `(value,)`, or named ones in a struct or map",
                self.service
            ))),
        }
    }

    /// Calls `method` with positional and named arguments: what serialises as a list, and as a map.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn call_with<T: DeserializeOwned>(
        &self,
        method: &str,
        args: &(impl Serialize + ?Sized),
        kwargs: &(impl Serialize + ?Sized),
    ) -> Result<T> {
        let result = self.call_unread(method, args, kwargs).await?;
        self.read(method, &result)
    }

    /// As [`call_with`](Self::call_with), for who passes the result on and does not know its type.
    ///
    /// # Errors
    /// As there.
    pub async fn call_unread(
        &self,
        method: &str,
        args: &(impl Serialize + ?Sized),
        kwargs: &(impl Serialize + ?Sized),
    ) -> Result<Payload> {
        let call = protocol::Call::of(self.format(), args, kwargs)?;
        self.send(method, call).await
    }

    async fn send(&self, method: &str, call: protocol::Call) -> Result<Payload> {
        match &self.via {
            Via::Broker {
                client,
                options,
                caller,
            } => {
                let mut request = call.encode(options.codec.format())?;
                drop(call);
                if let Some(compression) = options.compression {
                    request = request.compress(compression)?;
                }
                client
                    .call(&self.service, method, request, caller.headers(), options)
                    .await
            }
            Via::Fake(reply) => {
                let (args, kwargs) = call.values()?;
                Ok(Payload::of(&reply(method, args, kwargs)?)?)
            }
        }
    }

    fn format(&self) -> &Format {
        match &self.via {
            Via::Broker { options, .. } => options.codec.format(),
            Via::Fake(_) => &Format::Json,
        }
    }
}

impl fmt::Debug for ServiceProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<ServiceProxy [{}]>", self.service)
    }
}
