//! Entrypoints for tests, without an external trigger.

use std::sync::Mutex;

use serde::Serialize;

use crate::{
    amqp::Table,
    arguments::Arguments,
    container::{Container, MethodHandle, WeakContainer},
    error::Result,
    extension::Entrypoint,
    protocol,
    sync::lock,
};

/// An entrypoint that never fires: its method only runs through an
/// [`entrypoint_hook`](super::entrypoint_hook).
#[derive(Debug, Clone, Copy, Default)]
pub struct Dummy;

impl Entrypoint for Dummy {
    async fn setup(&self, _: &Container, _: MethodHandle) -> Result<()> {
        Ok(())
    }

    fn describe(&self) -> String {
        "dummy".to_owned()
    }
}

/// An entrypoint that fires once, when the container starts.
///
/// ```
/// use nameko::{prelude::*, testing::{Once, entrypoint_waiter}};
///
/// #[derive(Dependencies)]
/// struct Greeter;
///
/// #[service("greeter")]
/// impl Greeter {
///     #[entrypoint(Once::new(("zq",)))]
///     async fn hello(&self, name: String) -> Result<String> {
///         Ok(format!("Hello, {name}!"))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// let container = Container::new::<Greeter>(Config::new())?;
/// let mut hello = entrypoint_waiter(&container, "hello");
/// container.start().await?;
/// assert_eq!(hello.result::<String>().await?, "Hello, zq!");
/// # container.stop().await;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Once {
    /// Taken during setup, which fails if they could not be serialized.
    arguments: Mutex<Option<Result<Arguments>>>,
    fires: Mutex<Option<(WeakContainer, MethodHandle, Arguments)>>,
}

impl Once {
    /// Creates an entrypoint that calls the method with `arguments`: positional ones as a tuple,
    /// array or `Vec`, named ones as a struct or map.
    pub fn new(arguments: impl Serialize) -> Self {
        Self {
            arguments: Mutex::new(Some(protocol::Call::bindable(&arguments))),
            fires: Mutex::default(),
        }
    }
}

impl Entrypoint for Once {
    async fn setup(&self, container: &Container, method: MethodHandle) -> Result<()> {
        let arguments = lock(&self.arguments).take().transpose()?;
        *lock(&self.fires) = arguments.map(|arguments| (container.downgrade(), method, arguments));
        Ok(())
    }

    async fn start(&self) -> Result<()> {
        let fires = lock(&self.fires).take();
        if let Some((container, method, arguments)) = fires
            && let Some(container) = container.upgrade()
        {
            container.spawn_worker(&method, arguments, Table::new(), |outcome| async {
                outcome
            });
        }
        Ok(())
    }

    fn describe(&self) -> String {
        "once".to_owned()
    }
}
