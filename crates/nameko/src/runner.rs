//! Running several services in one process.

use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use tokio::time::timeout;

use crate::{
    config::Config,
    container::{Attachments, Container, STOP_TIMEOUT},
    error::{Error, Result},
    service::Service,
};

/// The list of services of a binary, created by [`services!`](crate::services).
#[derive(Debug, Default, Clone)]
pub struct Services {
    list: Vec<Entry>,
    /// Version of the program.
    version: Option<&'static str>,
    /// Settings of extensions, for all containers.
    pub(crate) attachments: Attachments,
}

#[derive(Debug, Clone)]
struct Entry {
    name: &'static str,
    container: fn(Config, Attachments) -> Result<Container>,
}

impl Services {
    /// Creates an empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the service `S`.
    pub fn add<S: Service>(mut self) -> Self {
        self.list.push(Entry {
            name: S::NAME,
            container: |config, attachments| {
                let mut builder = Container::builder::<S>(config);
                builder.attachments = attachments;
                builder.build()
            },
        });
        self
    }

    /// Sets the version of the program, for `--version`. [`services!`](crate::services) sets it to
    /// the version of the package.
    #[must_use]
    pub fn version(mut self, version: &'static str) -> Self {
        self.version = Some(version);
        self
    }

    #[cfg(feature = "cli")]
    pub(crate) fn program_version(&self) -> Option<&'static str> {
        self.version
    }

    /// Returns the names of the services, in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.list.iter().map(|listed| listed.name)
    }

    /// Checks that all names are names of services.
    pub(crate) fn check<N: AsRef<str>>(&self, names: &[N]) -> Result<()> {
        let list: Vec<_> = self.names().collect();
        let mut names = names.iter().map(AsRef::as_ref);
        match names.find(|name| !list.contains(name)) {
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

/// Creates the list of services of a binary: `services![ServiceX, ServiceY]`.
#[macro_export]
macro_rules! services {
    ($($service:ty),* $(,)?) => {
        $crate::Services::new()
            .version(match ::core::option_env!("CARGO_PKG_VERSION") {
                ::core::option::Option::Some(version) => version,
                // Not built by cargo.
                ::core::option::Option::None => "of unknown version",
            })
            $(.add::<$service>())*
    };
}

/// Runs the containers of several services together: they start together, and if one is killed, the
/// others are stopped.
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
    /// Creates a runner of the services named `names`, or of all if it is empty.
    ///
    /// # Errors
    /// If a name is unknown or listed twice; [`Error::Config`].
    pub fn new<N: AsRef<str>>(services: &Services, names: &[N], config: &Config) -> Result<Self> {
        let list: Vec<_> = services.names().collect();
        if let Some((index, name)) = list
            .iter()
            .enumerate()
            .find(|(index, name)| list[..*index].contains(name))
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
        let chosen = services.list.iter().filter(|listed| {
            names.is_empty() || names.iter().any(|name| name.as_ref() == listed.name)
        });
        let containers = chosen
            .map(|listed| (listed.container)(config.clone(), services.attachments.clone()))
            .collect::<Result<_>>()?;
        Ok(Self { containers })
    }

    /// Returns the containers, one per service.
    pub fn containers(&self) -> &[Container] {
        &self.containers
    }

    /// Starts all services concurrently. Returns when all accept calls.
    ///
    /// # Errors
    /// The error of the first service that could not start ([`Error::Extension`] contains its
    /// name), or [`Error::Killed`] if one is killed during the start; the others are stopped then.
    /// [`Error::ContainerStopping`] if the runner is stopped meanwhile.
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

    /// Waits until all services have stopped. If one is killed, [stops](Self::stop) the others.
    ///
    /// # Errors
    /// [`Error::Killed`] of the first killed service.
    pub async fn wait(&self) -> Result<()> {
        let ended = self.ended().await;
        if ended.is_err() {
            if self.containers.len() > 1 {
                tracing::info!("stopping the other services");
            }
            self.stop().await;
        }
        ended
    }

    /// Waits until all have stopped. Returns the error of the first killed service immediately.
    async fn ended(&self) -> Result<()> {
        try_join_all(self.containers.iter().map(Container::wait))
            .await
            .map(|_| ())
    }

    /// Stops all services in the order of the list. If callers are listed before the services they
    /// call, their pending calls are answered. After a `stop_timeout`, the remaining services are
    /// stopped concurrently.
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

    /// Kills all services. Their unacknowledged messages are requeued.
    pub fn kill(&self) {
        for container in &self.containers {
            container.kill(Error::raise("Killed", "the runner was killed"));
        }
    }
}

/// Returns the `stop_timeout` of a container, which has validated the value.
fn stop_timeout(container: &Container) -> Duration {
    let seconds = container.config().float("stop_timeout").ok().flatten();
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .unwrap_or(STOP_TIMEOUT)
}
