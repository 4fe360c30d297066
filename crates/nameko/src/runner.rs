//! Several services in one process.

use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use tokio::time::timeout;

use crate::{
    config::Config,
    container::{Container, STOP_TIMEOUT},
    error::{Error, Result},
    service::Service,
};

/// The services of a binary, as [`services!`](crate::services) lists them.
#[derive(Debug, Default, Clone)]
pub struct Services {
    list: Vec<Entry>,
    /// Of the program that lists them.
    version: Option<&'static str>,
}

#[derive(Debug, Clone)]
struct Entry {
    name: &'static str,
    container: fn(Config) -> Result<Container>,
}

impl Services {
    /// No services.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the service `S`.
    pub fn add<S: Service>(mut self) -> Self {
        self.list.push(Entry {
            name: S::NAME,
            container: Container::new::<S>,
        });
        self
    }

    /// The version of the program, which its `--version` tells. [`services!`](crate::services) takes that of the package.
    #[must_use]
    pub fn version(mut self, version: &'static str) -> Self {
        self.version = Some(version);
        self
    }

    pub(crate) fn program_version(&self) -> Option<&'static str> {
        self.version
    }

    /// The services' names, in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.list.iter().map(|it| it.name)
    }

    /// That each of the names is one of a service.
    pub(crate) fn check<N: AsRef<str>>(&self, names: &[N]) -> Result<()> {
        let list: Vec<_> = self.names().collect();
        let mut names = names.iter().map(AsRef::as_ref);
        match names.find(|it| !list.contains(it)) {
            None => Ok(()),
            Some(unknown) => Err(Error::raise(
                "ServicesError",
                format!(
                    "no service is called `{unknown}`; there are: {}",
                    list.join(", ")
                ),
            )),
        }
    }
}

/// Lists services: `services![ServiceX, ServiceY]`.
#[macro_export]
macro_rules! services {
    ($($service:ty),* $(,)?) => {
        $crate::Services::new()
            .version(match ::core::option_env!("CARGO_PKG_VERSION") {
                ::core::option::Option::Some(version) => version,
                // Built by another tool than cargo.
                ::core::option::Option::None => "of unknown version",
            })
            $(.add::<$service>())*
    };
}

/// Runs the containers of several services together: they start together, and when one dies the others are stopped.
///
/// ```
/// use nameko::{Runner, prelude::*};
///
/// # #[derive(Dependencies)] struct Shop;
/// # #[service("shop")] impl Shop {}
/// # #[derive(Dependencies)] struct Stock;
/// # #[service("stock")] impl Stock {}
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> nameko::Result<()> {
/// # let broker = nameko_broker::Broker::start("127.0.0.1:0").await.map_err(Error::from_error)?;
/// # let uri = broker.uri();
/// let config = Config::new().with("AMQP_URI", uri);
/// let runner = Runner::new::<&str>(&services![Shop, Stock], &[], &config)?;
/// runner.start().await?;
/// runner.stop().await;
/// runner.wait().await // an error when one of them died
/// # }
/// ```
#[derive(Debug)]
pub struct Runner {
    containers: Vec<Container>,
}

impl Runner {
    /// A runner of the services called `names`, or of all when there are no names.
    ///
    /// # Errors
    /// A name that is not listed, or listed twice; [`Error::Config`].
    pub fn new<N: AsRef<str>>(services: &Services, names: &[N], config: &Config) -> Result<Self> {
        let list: Vec<_> = services.names().collect();
        if let Some((index, name)) = list
            .iter()
            .enumerate()
            .find(|(index, it)| list[..*index].contains(it))
        {
            return Err(Error::raise(
                "ServicesError",
                format!(
                    "two services are called `{name}` (see number {})",
                    index + 1
                ),
            ));
        }
        services.check(names)?;
        let chosen = services
            .list
            .iter()
            .filter(|it| names.is_empty() || names.iter().any(|name| name.as_ref() == it.name));
        let containers = chosen
            .map(|it| (it.container)(config.clone()))
            .collect::<Result<_>>()?;
        Ok(Self { containers })
    }

    /// One container per service.
    pub fn containers(&self) -> &[Container] {
        &self.containers
    }

    /// Starts all, side by side. Returns when all can be called.
    ///
    /// # Errors
    /// That of the first service that could not start ([`Error::Extension`] names it), [`Error::Killed`] of one that died before the others had
    /// started; the others are stopped then. [`Error::ContainerStopping`] when it is stopped meanwhile.
    pub async fn start(&self) -> Result<()> {
        let all = try_join_all(self.containers.iter().map(Container::start));
        let started = tokio::select! {
            started = all => started.map(|_| ()),
            Err(died) = self.ended() => Err(died),
        };
        if started.is_err() {
            self.stop().await;
        }
        started
    }

    /// Returns when all have stopped. When one dies, the others are [stopped](Self::stop).
    ///
    /// # Errors
    /// [`Error::Killed`] of the first that died.
    pub async fn wait(&self) -> Result<()> {
        let ended = self.ended().await;
        if ended.is_err() {
            if self.containers.len() > 1 {
                tracing::info!("the services beside it are stopped");
            }
            self.stop().await;
        }
        ended
    }

    /// Returns when all have stopped, or when the first dies: with its error.
    async fn ended(&self) -> Result<()> {
        try_join_all(self.containers.iter().map(Container::wait))
            .await
            .map(|_| ())
    }

    /// Stops all, one after the other in the order of the list: list callers before those they call, and what they still
    /// wait for is answered. Where that takes longer than a `stop_timeout`, the rest are stopped side by side.
    pub async fn stop(&self) {
        let limit = self.containers.first().map_or(STOP_TIMEOUT, stop_timeout);
        let in_order = async {
            for container in &self.containers {
                container.stop().await;
            }
        };
        if timeout(limit, in_order).await.is_err() {
            join_all(self.containers.iter().map(Container::stop)).await;
        }
    }

    /// Ends all at once; messages at hand go back to their queues.
    pub fn kill(&self) {
        for container in &self.containers {
            container.kill(Error::raise("Killed", "the runner was killed"));
        }
    }
}

/// What the container's `stop` takes at most; it has refused a wrong value before.
fn stop_timeout(container: &Container) -> Duration {
    let seconds = container.config().float("stop_timeout").ok().flatten();
    seconds
        .and_then(|it| Duration::try_from_secs_f64(it).ok())
        .unwrap_or(STOP_TIMEOUT)
}
