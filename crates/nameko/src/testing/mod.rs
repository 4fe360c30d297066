//! Tools for testing services: no RabbitMQ, no sleeping, no mocks of what is real.
//!
//! | you want | you write | in Nameko for Python |
//! |---|---|---|
//! | the service's value with fakes | a struct literal: `Shop { stock: ServiceProxy::fake(..) }` | `worker_factory` |
//! | a broker, in one line | [`broker`]`().await` | the fixture `rabbit_config` |
//! | to run a method as a worker, with its dependencies | [`entrypoint_hook`] | `entrypoint_hook` |
//! | to wait until a method was run by something else | [`entrypoint_waiter`] | `entrypoint_waiter` |
//! | other dependencies in a container | [`Container::builder`]`.replace("stock", fake)` | `replace_dependencies` |
//! | some of a container's entrypoints | [`Container::builder`]`.only(["buy"])` | `restrict_entrypoints` |
//! | to see what a fake was given | [`Recorder`] | `MagicMock` |
//! | an entrypoint that nothing fires, or that fires once | [`Dummy`], [`Once`] | `dummy`, `once` |
//!
//! A unit test needs none of it: a service is a struct, and its methods are functions.
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
//! let y = ServiceProxy::fake("service_y", |_method, args, _kwargs| Ok(args[0].clone()));
//! let x = ServiceX { y };
//! assert_eq!(x.remote_method("a".into()).await?, "a-x");
//! # Ok(()) }
//! ```
//!
//! An integration test runs real containers, side by side, on a broker of its own:
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
//! The same tests run on RabbitMQ when the environment variable [`NAMEKO_TEST_AMQP_URI`](AMQP_URI_VARIABLE) names one.
//!
//! [`Container::builder`]: crate::Container::builder

mod broker;
mod entrypoints;
mod hook;
mod recorder;
mod waiter;

pub use broker::{AMQP_URI_VARIABLE, TestBroker, broker};
pub use entrypoints::{Dummy, Once};
pub use hook::{EntrypointHook, entrypoint_hook};
pub use recorder::Recorder;
pub use waiter::{Ended, EntrypointWaiter, entrypoint_waiter};

use std::time::Duration;

/// How long what waits here waits, unless it is told otherwise: as in Nameko.
pub const TIMEOUT: Duration = Duration::from_secs(30);
