//! The attribute and derive macros of `nameko-macros`, documented here because their examples need
//! this crate.

/// Derives the injection of a service's dependencies: each field is injected for every call.
///
/// `#[dependency(PROVIDER)]` on a field takes an expression that evaluates to a
/// [`DependencyProvider`](crate::DependencyProvider) or a
/// [`StatefulProvider`](crate::StatefulProvider). It is evaluated once per container. The provider
/// then supplies the field's value for each worker; the type of the field is the provider's
/// dependency type.
///
/// The struct is not generic and has named fields or none.
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
/// #[derive(Dependencies)]
/// struct NoDependencies;
/// ```
pub use nameko_macros::Dependencies;

/// Turns an impl block into a service, with its marked methods as entrypoints.
///
/// The service's name is one word of a routing key: 1 to 200 bytes, without `.`, `*`, `#`,
/// whitespace and control characters.
///
/// `layers = [LAYER, ...]` after the name adds [layers](crate::WorkerLayer) around the workers of
/// the service, the outermost first. The expressions are evaluated once per container.
///
/// ```
/// use nameko::prelude::*;
///
/// #[derive(Dependencies)]
/// struct Greeter;
///
/// #[service("greeter")]
/// impl Greeter {
///     #[rpc]
///     async fn hello(&self, name: String) -> Result<String> {
///         Ok(format!("Hello, {name}!"))
///     }
///
///     // Without a marker, this is a plain method that peers cannot call.
///     fn secret(&self) {}
/// }
/// # fn main() { Greeter.secret() }
/// ```
///
/// The methods stay unchanged, so a test can call them without a container or a broker:
///
/// ```
/// # use nameko::prelude::*;
/// # #[derive(Dependencies)]
/// # struct Greeter;
/// # #[service("greeter")]
/// # impl Greeter {
/// #     #[rpc]
/// #     async fn hello(&self, name: String) -> Result<String> { Ok(format!("Hello, {name}!")) }
/// # }
/// # async fn test() {
/// assert_eq!(Greeter.hello("Ada".into()).await.unwrap(), "Hello, Ada!");
/// # }
/// ```
///
/// A service has exactly one such impl block. Plain methods may also be in other impl blocks.
pub use nameko_macros::service;

/// Marks a method of a [`service`](macro@service) as callable by RPC, as
/// `service_name.method_name`.
///
/// The names of the method and of its parameters are part of the interface
/// (`n.rpc.greeter.hello(name="Ada")`), so renaming one breaks callers. Raw identifiers are used
/// without their prefix: `r#type` is `type`.
///
/// * The method is `async` and takes `&self`. A worker is a fresh value of the struct, created for
///   one call.
/// * Each argument is an owned type that implements `serde::Deserialize`: `String`, not `&str`. An
///   argument with the type `Option<T>` is optional and defaults to `None`. A `serde_json::Value`
///   accepts anything except NaN, infinities and integers of more than 64 bits, which Python's JSON
///   has and which it cannot hold; a [`Payload`](crate::serialization::Payload) keeps them.
/// * The return type is `Result<T, E>`, such as [`nameko::Result<T>`](crate::Result). `T`
///   implements `serde::Serialize` and `E` is an error type.
/// * The method is not generic.
/// * The method does not block its thread. Blocking work (files, long computations, blocking
///   clients) belongs in `tokio::task::spawn_blocking`. A method that blocks is named in the log,
///   and its later calls by messages have a thread each.
///
/// ```
/// use nameko::prelude::*;
///
/// #[derive(Debug, serde::Deserialize, serde::Serialize)]
/// struct Order { id: u64, lines: Vec<String> }
///
/// #[derive(Dependencies)]
/// struct Orders;
///
/// #[service("orders")]
/// impl Orders {
///     /// Finds an order; `archive` is optional.
///     #[rpc]
///     async fn find(&self, id: u64, archive: Option<String>) -> Result<Option<Order>> {
///         let _ = archive;
///         Ok(Some(Order { id, lines: Vec::new() }))
///     }
/// }
/// # fn main() {}
/// ```
///
/// # Options
///
/// `queue_arguments = TABLE`: additional arguments of the service's request queue.
///
/// All entrypoints have these options:
///
/// * `expected_exceptions(NotFound, "ValueError")`: errors that are the caller's fault, by type
///   name. They are logged as warnings; HTTP entrypoints respond with status 400.
/// * `sensitive_arguments("password", "user.token")`: arguments, or parts of them, that are
///   redacted in logs.
pub use nameko_macros::rpc;

/// Marks a method of a [`service`](macro@service) as the handler of an event type:
/// `#[event_handler("source_service", "event_type")]`.
///
/// The method takes one argument, the event's data. The rules and options of [`rpc`](macro@rpc)
/// apply, and these options:
///
/// * `handler_type`: `service_pool` (one instance of this service handles each event; the default),
///   `singleton` (one handler in the cluster) or `broadcast` (every instance).
/// * `reliable_delivery = false`: events are dropped while no instance is connected. Default:
///   `true`.
/// * `broadcast_identifier = TEXT`: the identity of a broadcast handler's instance, required for
///   reliable delivery.
/// * `requeue_on_error`: requeues an event if its handler fails.
/// * `reject_on_error`: rejects an event if its handler fails, so that it is dead-lettered.
/// * `prefetch_count = NUMBER`: maximum number of unacknowledged events.
/// * `queue_arguments = TABLE`: additional arguments of the queue.
pub use nameko_macros::event_handler;

/// Marks a method of a [`service`](macro@service) as the consumer of a queue:
/// `#[consume(Queue::new("name"))]`.
///
/// The method takes one argument, the message's body. The rules and options of
/// [`rpc`](macro@rpc) apply, and these options:
///
/// * `requeue_on_error`: requeues a message if the method fails.
/// * `reject_on_error`: rejects a message if the method fails, so that it is dead-lettered.
/// * `prefetch_count = NUMBER`: maximum number of unacknowledged messages.
pub use nameko_macros::consume;

/// Marks a method of a [`service`](macro@service) as periodic: `#[timer(interval = 5)]`, in seconds
/// or as a `Duration`.
///
/// With `eager`, it also runs at the start. The method takes no arguments; the other rules and
/// options of [`rpc`](macro@rpc) apply.
pub use nameko_macros::timer;

/// Marks a method of a [`service`](macro@service) as scheduled by a cron expression:
/// `#[cron("0 3 * * *", tz = "Europe/London")]`.
///
/// With `once = "fleet"`, it runs in only one instance of the service. `late = DURATION` is the
/// maximum delay of a run. The method takes no argument, or the scheduled time as a `String`; the
/// other rules and options of [`rpc`](macro@rpc) apply.
pub use nameko_macros::cron;

/// Marks a method of a [`service`](macro@service) as a handler of HTTP requests:
/// `#[http(GET, "/orders/{id}")]`.
///
/// It may handle several methods: `#[http(GET, POST, "/orders")]`. Parameters are extracted from
/// the request according to their types; each `{name}` in the path needs a parameter of its name,
/// unless one takes the whole request. The other rules and options of [`rpc`](macro@rpc) apply.
///
/// `cancel_on_disconnect` drops the worker when the client disconnects. `max_body = BYTES` replaces
/// `WEB_SERVER_MAX_BODY` and `timeout = SECONDS` replaces `WEB_SERVER_TIMEOUT` for the method.
pub use nameko_macros::http;

/// Marks a method of a [`service`](macro@service) as callable by browsers over a WebSocket.
///
/// The method takes the socket's id, then the arguments of the call by name. The rules and options
/// of [`rpc`](macro@rpc) apply.
pub use nameko_macros::websocket_rpc;

/// Marks a method of a [`service`](macro@service) as the target of a custom entrypoint:
/// `#[entrypoint(EXPRESSION)]`.
///
/// The expression evaluates to an [`Entrypoint`](crate::Entrypoint), once per container. The rules
/// of [`rpc`](macro@rpc) and its options `expected_exceptions` and `sensitive_arguments` apply.
pub use nameko_macros::entrypoint;

/// Maps an error type to an exception class path, for callers and for called services.
///
/// `#[exception("module.Class")]` is written on a struct, or on each variant of an enum, since
/// callers see each variant as a class. The fields are the positional arguments of the exception,
/// as a Python class of that path would be raised with; they implement `serde::Serialize` and
/// `serde::Deserialize`. `#[exception(transparent)]` is for a variant that only wraps another
/// error, which callers see instead.
///
/// ```
/// use nameko::prelude::*;
///
/// #[derive(Debug, thiserror::Error, Exception)]
/// enum ShopError {
///     #[error("no order {0}")]
///     #[exception("shop.exceptions.NotFound")]
///     NotFound(u64),
///     #[error("only {left} of {item} left")]
///     #[exception("shop.exceptions.OutOfStock")]
///     OutOfStock { item: String, left: u32 },
///     #[error(transparent)]
///     #[exception(transparent)]
///     Other(#[from] nameko::Error),
/// }
///
/// # fn main() {
/// // Once, at the start of a program that calls services which raise it: calls then fail with it.
/// nameko::exceptions::register::<ShopError>();
/// # }
/// ```
///
/// Also implements `From<ShopError>` for [`nameko::Error`](crate::Error), so that `?` works in
/// methods that return [`nameko::Result`](crate::Result).
pub use nameko_macros::Exception;

/// Generates a typed client from a trait with a service's methods: `ServiceYClient` for a trait
/// `ServiceY`.
///
/// ```
/// use nameko::prelude::*;
///
/// #[rpc_client("service_y")]
/// trait ServiceY {
///     async fn append_id(&self, value: String) -> Result<String>;
/// }
///
/// #[derive(Dependencies)]
/// struct ServiceX {
///     #[dependency(ServiceYClient::provider())]
///     y: ServiceYClient,
/// }
///
/// #[service("service_x")]
/// impl ServiceX {
///     #[rpc]
///     async fn remote_method(&self, value: String) -> Result<String> {
///         self.y.append_id(format!("{value}-x")).await
///     }
/// }
///
/// // A test may mock the service.
/// struct MockServiceY;
///
/// impl ServiceY for MockServiceY {
///     async fn append_id(&self, value: String) -> Result<String> {
///         Ok(format!("{value}-mock"))
///     }
/// }
///
/// # async fn test() {
/// let x = ServiceX { y: ServiceYClient::mock(MockServiceY) };
/// assert_eq!(x.remote_method("a".into()).await.unwrap(), "a-x-mock");
/// # }
/// # fn main() {}
/// ```
///
/// * Outside of services: `cluster.client::<ServiceYClient>()`.
/// * The provider has the options of [`RpcProxy`](crate::RpcProxy):
///   `ServiceYClient::provider().timeout(SECOND)`. For a single call:
///   `self.y.with_timeout(SECOND).append_id(..)`.
/// * Arguments are passed by name, so the names of methods and parameters are the service's; raw
///   identifiers are used without their prefix. A `None` for a parameter with the type `Option<T>`
///   omits the argument, so the service's default applies.
/// * `#[rpc_client("service_y", positional)]` passes arguments by position, for services with names
///   that Rust does not permit. Omitted arguments are dropped at the end and null elsewhere.
/// * Each argument is an owned type that implements `serde::Serialize`. The return type is
///   `Result<T, E>`; `T` implements `serde::Deserialize` and `E` implements
///   `From<`[`nameko::Error`](crate::Error)`>`.
/// * `#[rpc_client("service_y", client = YClient)]` sets the client's name.
///
/// The methods of the trait return `Send` futures; impls may write them as `async fn`.
pub use nameko_macros::rpc_client;
