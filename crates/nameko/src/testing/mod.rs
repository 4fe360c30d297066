//! Tools for testing services without RabbitMQ and without sleeps.
//!
//! | purpose | API | in Nameko for Python |
//! |---|---|---|
//! | a service value with mocks | a struct literal: `Shop { stock: ServiceProxy::mock(..) }` | `worker_factory` |
//! | a broker for one test | [`broker`]`().await` | the fixture `rabbit_config` |
//! | run a method in a worker, with its dependencies | [`entrypoint_hook`] | `entrypoint_hook` |
//! | wait until an entrypoint has fired | [`entrypoint_waiter`] | `entrypoint_waiter` |
//! | replace dependencies of a container | [`Container::builder`]`.replace("stock", mock)` | `replace_dependencies` |
//! | restrict the entrypoints of a container | [`Container::builder`]`.only(["buy"])` | `restrict_entrypoints` |
//! | record the arguments of a mock | [`Recorder`] | `MagicMock` |
//! | an entrypoint that never fires, or fires once | [`Dummy`], [`Once`] | `dummy`, `once` |
//!
//! A unit test needs none of these: a service is a struct, and its methods are functions.
//!
//! ```
//! use nameko::prelude::*;
//!
//! #[derive(Dependencies)]
//! struct ServiceX {
//!     #[dependency(RpcProxy::new("service_y"))]
//!     y: ServiceProxy,
//! }
//!
//! #[service("service_x")]
//! impl ServiceX {
//!     #[rpc]
//!     async fn remote_method(&self, value: String) -> Result<String> {
//!         self.y.call("append_id", (format!("{value}-x"),)).await
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<()> {
//! let y = ServiceProxy::mock("service_y", |_method, args, _kwargs| Ok(args[0].clone()));
//! let x = ServiceX { y };
//! assert_eq!(x.remote_method("a".into()).await?, "a-x");
//! # Ok(()) }
//! ```
//!
//! An integration test runs several containers on its own broker:
//!
//! ```
//! use nameko::{prelude::*, testing::{self, entrypoint_hook, entrypoint_waiter}};
//! # #[derive(Dependencies)]
//! # struct ServiceX {
//! #     #[dependency(RpcProxy::new("service_y"))]
//! #     y: ServiceProxy,
//! # }
//! # #[service("service_x")]
//! # impl ServiceX {
//! #     #[rpc]
//! #     async fn remote_method(&self, value: String) -> Result<String> {
//! #         self.y.call("append_id", (format!("{value}-x"),)).await
//! #     }
//! # }
//! # #[derive(Dependencies)]
//! # struct ServiceY;
//! # #[service("service_y")]
//! # impl ServiceY {
//! #     #[rpc]
//! #     async fn append_id(&self, value: String) -> Result<String> {
//! #         Ok(format!("{value}-y"))
//! #     }
//! # }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<()> {
//! let broker = testing::broker().await;
//! let x = Container::new::<ServiceX>(broker.config())?;
//! let y = Container::new::<ServiceY>(broker.config())?;
//! x.start().await?;
//! y.start().await?;
//!
//! let mut append_id = entrypoint_waiter(&y, "append_id");
//! let text: String = entrypoint_hook(&x, "remote_method").call(("hello",)).await?;
//! assert_eq!(text, "hello-x-y");
//! assert_eq!(append_id.result::<String>().await?, "hello-x-y");
//!
//! x.stop().await;
//! y.stop().await;
//! # Ok(()) }
//! ```
//!
//! The same tests run on RabbitMQ if [`NAMEKO_TEST_AMQP_URI`](AMQP_URI_VARIABLE) is set.
//!
//! [`Container::builder`]: crate::Container::builder

mod broker;
mod convert;
mod entrypoints;
mod hook;
#[cfg(feature = "http")]
mod http;
mod recorder;
mod timeout;
mod waiter;

pub use broker::{AMQP_URI_VARIABLE, TestBroker, broker};
pub use entrypoints::{Dummy, Once};
pub use hook::{EntrypointHook, entrypoint_hook};
pub use recorder::Recorder;
pub use timeout::TIMEOUT;
pub use waiter::{Ended, EntrypointWaiter, entrypoint_waiter};
