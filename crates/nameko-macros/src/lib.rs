//! The attributes of the `nameko` crate: [`macro@service`], its entrypoints such as [`macro@rpc`], and [`macro@Dependencies`].
//!
//! They parse, check and write calls to public items of `nameko`, and hold no behaviour: the same service can be
//! written by hand. What they refuse, they refuse with all reasons at once, each on the words that it is about.
//!
//! Use them through `nameko::prelude`.

mod dependencies;
mod entrypoint;
mod errors;
mod exception;
mod literals;
mod markers;
mod owned;
mod rpc_client;
mod service;
mod spans;

use proc_macro::TokenStream;

/// Makes a struct the state of a service: each field is injected, anew for every call.
///
/// `#[dependency(PROVIDER)]` on a field takes any expression whose value is a `DependencyProvider`. It is evaluated
/// once, when the service's container is made. The provider then gives each worker the value of the field, and the
/// field's type is the type of what it gives.
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
/// struct NeedsNothing;
/// ```
///
/// The struct has named fields, or none. It is not generic.
#[proc_macro_derive(Dependencies, attributes(dependency))]
pub fn dependencies(item: TokenStream) -> TokenStream {
    dependencies::expand(item.into()).into()
}

/// Makes an impl block a service: its marked methods are what others can call.
///
/// The name is the first word of the service's routing keys, so it is one word: not empty, at most 200 bytes,
/// without `.`, `*`, `#` or white space.
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
///     // Without a marker it is a method like any other, and is called only from here.
///     fn secret(&self) {}
/// }
/// # fn main() { Greeter.secret() }
/// ```
///
/// The methods stay as they are, so that a test can call them without a container or a broker:
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
/// A service has one such impl block. Methods without a marker may also stand in others.
#[proc_macro_attribute]
pub fn service(arguments: TokenStream, item: TokenStream) -> TokenStream {
    service::expand(arguments.into(), &item.into()).into()
}

/// Marks a method of a [`macro@service`] impl that others call by RPC, as `service_name.method_name`.
///
/// The names of the method and of its parameters are what callers write (`n.rpc.greeter.hello(name="Ada")`), so
/// renaming one changes the service's interface. A raw name loses its prefix: `r#type` is `type` to callers.
///
/// * The method is `async` and takes `&self`: a worker is a fresh value of the struct, made for this one call.
/// * An argument is an owned type that implements `serde::Deserialize`: `String`, not `&str`. An argument whose type
///   is written `Option<T>` may be left out by the caller, and is `None` then.
///   A `serde_json::Value` takes anything, but makes null of NaN and infinities, which Python's JSON has:
///   `serialization::Payload` takes those as they are.
/// * It returns `Result<T, E>`, in which `T` implements `serde::Serialize` and `E` is an error. `nameko::Result<T>`
///   is one.
/// * It is not generic.
/// * It does not block its thread, as no `async` code does: what blocks (a file, a long computation, a blocking client)
///   goes into `tokio::task::spawn_blocking`. Methods that block every thread of the runtime for two heartbeat
///   intervals cost the connection; their requests are then delivered again.
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
///     /// Finds an order. Callers may leave out `archive`.
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
/// `queue_arguments = TABLE`: further arguments of the service's request queue. All entrypoints, whatever their kind, take:
///
/// * `expected_exceptions(NotFound, "ValueError")`: errors that are the caller's fault, by their type's name. They are
///   logged as warnings, and HTTP answers them with status 400.
/// * `sensitive_arguments("password", "user.token")`: arguments, or parts of them, that no log shows.
#[proc_macro_attribute]
pub fn rpc(arguments: TokenStream, item: TokenStream) -> TokenStream {
    entrypoint::marker("rpc", &arguments.into(), &item.into()).into()
}

/// Marks a method of a [`macro@service`] impl that runs for each event of a type that a service dispatches:
/// `#[event_handler("source_service", "event_type")]`.
///
/// The method takes one argument, what was dispatched. The rules and options of [`macro@rpc`] hold here too, and:
///
/// * `handler_type = service_pool` (one instance of this service gets the event; so it is unless said otherwise),
///   `singleton` (one handler of all services does), or `broadcast` (every instance does).
/// * `reliable_delivery = false`: events are dropped while no instance listens. On unless this says otherwise.
/// * `broadcast_identifier = TEXT`: names the instance of a broadcast handler. One that delivers reliably needs it.
/// * `requeue_on_error`: an event whose handler fails goes back to the queue.
/// * `reject_on_error`: it is rejected, and goes to the queue's dead-letter exchange.
/// * `prefetch_count = NUMBER`: how many events are held unacknowledged.
/// * `queue_arguments = TABLE`: further arguments of the queue.
#[proc_macro_attribute]
pub fn event_handler(arguments: TokenStream, item: TokenStream) -> TokenStream {
    entrypoint::marker("event_handler", &arguments.into(), &item.into()).into()
}

/// Marks a method of a [`macro@service`] impl that runs for each message of a queue: `#[consume(Queue::new("name"))]`.
///
/// The method takes one argument, the message's body. The rules and options of [`macro@rpc`] hold here too, and:
///
/// * `requeue_on_error`: a message whose method fails goes back to the queue.
/// * `reject_on_error`: it is rejected, and goes to the queue's dead-letter exchange.
/// * `prefetch_count = NUMBER`: how many messages are held unacknowledged.
#[proc_macro_attribute]
pub fn consume(arguments: TokenStream, item: TokenStream) -> TokenStream {
    entrypoint::marker("consume", &arguments.into(), &item.into()).into()
}

/// Marks a method of a [`macro@service`] impl that runs again and again: `#[timer(interval = 5)]`, in seconds, or a
/// `Duration`.
///
/// With `eager` it first runs at once. The method takes no arguments; the other rules and options of [`macro@rpc`] hold.
#[proc_macro_attribute]
pub fn timer(arguments: TokenStream, item: TokenStream) -> TokenStream {
    entrypoint::marker("timer", &arguments.into(), &item.into()).into()
}

/// Marks a method of a [`macro@service`] impl that runs by the calendar: `#[cron("0 3 * * *", tz = "Europe/London")]`.
///
/// With `once = "fleet"` it runs in one instance of the service only; `late = DURATION` is how late it may still run. The method
/// takes no argument, or the time it runs for as a `String`; the other rules and options of [`macro@rpc`] hold.
#[proc_macro_attribute]
pub fn cron(arguments: TokenStream, item: TokenStream) -> TokenStream {
    entrypoint::marker("cron", &arguments.into(), &item.into()).into()
}

/// Marks a method of a [`macro@service`] impl that answers HTTP requests: `#[http(GET, "/orders/{id}")]`.
///
/// Several methods: `#[http(GET, POST, "/orders")]`. Parameters are taken from the request by their types; the other
/// rules and options of [`macro@rpc`] hold.
#[proc_macro_attribute]
pub fn http(arguments: TokenStream, item: TokenStream) -> TokenStream {
    entrypoint::marker("http", &arguments.into(), &item.into()).into()
}

/// Marks a method of a [`macro@service`] impl that browsers call over a WebSocket.
///
/// The method takes the id of the socket, then what the caller sends by name. The rules and options of [`macro@rpc`] hold.
#[proc_macro_attribute]
pub fn websocket_rpc(arguments: TokenStream, item: TokenStream) -> TokenStream {
    entrypoint::marker("websocket_rpc", &arguments.into(), &item.into()).into()
}

/// Marks a method of a [`macro@service`] impl that an entrypoint of your own runs: `#[entrypoint(EXPRESSION)]`.
///
/// The expression's value is any `nameko::Entrypoint`. It is evaluated once, when the service's container is made. The
/// rules and the options `expected_exceptions` and `sensitive_arguments` of [`macro@rpc`] hold here too.
#[proc_macro_attribute]
pub fn entrypoint(arguments: TokenStream, item: TokenStream) -> TokenStream {
    entrypoint::marker("entrypoint", &arguments.into(), &item.into()).into()
}

/// Makes an error type one that peers know by a class path: both ways, to callers and from services that are called.
///
/// `#[exception("module.Class")]` stands on a struct, or on each variant of an enum, since each is a class of its own to
/// callers. The fields are the arguments that a Python class of that path is raised with, in their order; they implement
/// `serde::Serialize` and `serde::Deserialize`. A variant that only wraps another error is `#[exception(transparent)]`:
/// callers see the other.
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
/// // Once, where a program starts that calls services which raise it: such calls fail with it from now on.
/// nameko::exceptions::register::<ShopError>();
/// # }
/// ```
///
/// It also makes `nameko::Error: From<ShopError>`, so that `?` works in methods that return `nameko::Result`.
#[proc_macro_derive(Exception, attributes(exception))]
pub fn exception(item: TokenStream) -> TokenStream {
    exception::expand(item.into()).into()
}

/// Makes a trait the methods of a service that is called, and writes a client with them: `ServiceYClient` for a trait
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
/// // In a test, something else may stand in the service's place.
/// struct Fake;
///
/// impl ServiceY for Fake {
///     async fn append_id(&self, value: String) -> Result<String> {
///         Ok(format!("{value}-fake"))
///     }
/// }
///
/// # async fn test() {
/// let x = ServiceX { y: ServiceYClient::mock(Fake) };
/// assert_eq!(x.remote_method("a".into()).await.unwrap(), "a-x-fake");
/// # }
/// # fn main() {}
/// ```
///
/// * From a program that is no service: `cluster.client::<ServiceYClient>()`.
/// * The options of `RpcProxy` are the provider's: `ServiceYClient::provider().timeout(SECOND)`. For one call:
///   `self.y.with_timeout(SECOND).append_id(..)`.
/// * Arguments are passed by their names, so the names of methods and parameters are those of the service; a raw name
///   loses its prefix. An argument whose type is written `Option<T>` is left out where it is `None`, and the service's own
///   default holds. `#[rpc_client("service_y", positional)]` passes them by their order instead, for a service whose
///   names cannot be written in Rust; what is left out at the end is not sent, what is left out before that is null.
/// * An argument is an owned type that implements `serde::Serialize`. A method returns `Result<T, E>`, in which `T`
///   implements `serde::Deserialize` and `E` is `nameko::Error`, or anything that is made `From` it.
/// * `#[rpc_client("service_y", client = YClient)]` gives the client another name.
///
/// The trait stays a trait: its methods return futures that are `Send`, and an impl may write them as `async fn`.
#[proc_macro_attribute]
pub fn rpc_client(arguments: TokenStream, item: TokenStream) -> TokenStream {
    rpc_client::expand(arguments.into(), &item.into()).into()
}
