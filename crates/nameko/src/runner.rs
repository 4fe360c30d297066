//! Running several services in one process.

use std::{future::Future, time::Duration};

use futures_util::future::{join_all, try_join_all};
use tokio::time::timeout;

#[cfg(all(feature = "cli", unix))]
use crate::container::EXTENSIONS_STOP_LIMIT;
use crate::{
    config::Config,
    container::{Attachments, Container, STOP_TIMEOUT},
    error::{Error, Result},
    layer::{Layers, WorkerLayer},
    service::Service,
};

/// The list of services of a binary, created by [`services!`](crate::services).
#[derive(Debug, Default, Clone)]
pub struct Services {
    list: Vec<Entry>,
    layers: Layers,
    /// Version of the program.
    version: Option<&'static str>,
    /// Settings of extensions, for all containers.
    pub(crate) attachments: Attachments,
}

#[derive(Debug, Clone)]
struct Entry {
    name: &'static str,
    container: fn(Config, Attachments, Layers) -> Result<Container>,
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
            container: |config, attachments, layers| {
                let mut builder = Container::builder::<S>(config).layers(layers);
                builder.attachments = attachments;
                builder.build()
            },
        });
        self
    }

    /// Adds a layer around the workers of all services, inside the layers added before and outside
    /// those of the services. The services share it.
    ///
    /// ```no_run
    /// use nameko::{Next, Outcome, WorkerCall, WorkerLayer, prelude::*};
    ///
    /// struct Timing;
    ///
    /// impl WorkerLayer for Timing {
    ///     async fn call(&self, call: WorkerCall<'_>, next: Next<'_>) -> Outcome {
    ///         let begun = std::time::Instant::now();
    ///         let outcome = next.run().await;
    ///         println!("{} took {:?}", call.ctx(), begun.elapsed());
    ///         outcome
    ///     }
    /// }
    ///
    /// # #[derive(Dependencies)] struct Shop;
    /// # #[service("shop")] impl Shop {}
    /// fn main() -> ExitCode {
    ///     nameko::main(services![Shop].layer(Timing))
    /// }
    /// ```
    #[must_use]
    pub fn layer(mut self, layer: impl WorkerLayer) -> Self {
        self.layers.add(layer);
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

/// Serves until `shutdown` completes, on the runtime and with the `tracing` subscriber of the
/// caller. For programs with a `main` of their own; [`main`](crate::main) has a command line.
///
/// Returns after the services have stopped gracefully, or once one of them has died. Handles no
/// signals and starts no broker: `config` names one, by default that at localhost.
///
/// ```no_run
/// use nameko::{Config, prelude::*};
///
/// # #[derive(Dependencies)] struct Shop;
/// # #[service("shop")] impl Shop {}
/// #[tokio::main]
/// async fn main() -> nameko::Result<()> {
///     let config = Config::new().with("AMQP_URI", "amqp://guest:guest@localhost");
///     let shutdown = async { drop(tokio::signal::ctrl_c().await) };
///     nameko::serve(services![Shop], config, shutdown).await
/// }
/// ```
///
/// # Errors
/// As for [`RunnerBuilder::build`] and [`Runner::run_until`].
pub async fn serve(
    services: Services,
    config: Config,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let runner = Runner::builder(services).config(config).build()?;
    runner.run_until(shutdown).await
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

/// Builder of a [`Runner`].
///
/// ```
/// use nameko::{Runner, prelude::*};
///
/// # #[derive(Dependencies)] struct Shop;
/// # #[service("shop")] impl Shop {}
/// # #[derive(Dependencies)] struct Stock {
/// #     #[dependency(RpcProxy::new("prices"))]
/// #     prices: ServiceProxy,
/// # }
/// # #[service("stock")] impl Stock {}
/// # fn main() -> nameko::Result<()> {
/// let config = Config::new().with("max_workers", 20);
/// let prices = ServiceProxy::mock("prices", |_method, _args, _kwargs| Ok(17.into()));
/// let stock = Container::builder::<Stock>(config.clone()).replace("prices", prices);
/// let runner = Runner::builder(services![Shop])
///     .container(stock.build()?)
///     .config(config)
///     .build()?;
/// # assert_eq!(runner.containers().len(), 2);
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct RunnerBuilder {
    services: Services,
    names: Vec<String>,
    config: Config,
    containers: Vec<Container>,
}

impl RunnerBuilder {
    /// Sets the configuration of the services. Default: empty.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Selects services by name; without names, all run.
    pub fn only<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.names.extend(names.into_iter().map(Into::into));
        self
    }

    /// Adds a container with a configuration of its own, such as one with replaced dependencies. It
    /// stops after the services of the list.
    pub fn container(mut self, container: Container) -> Self {
        self.containers.push(container);
        self
    }

    /// Builds the runner. Opens no connections before [`start`](Runner::start).
    ///
    /// # Errors
    /// If a name is unknown, or two services have the same; [`Error::Config`].
    pub fn build(self) -> Result<Runner> {
        self.services.check(&self.names)?;
        let chosen = self.services.list.iter().filter(|listed| {
            self.names.is_empty() || self.names.iter().any(|name| name == listed.name)
        });
        let others = self.containers.iter().map(Container::service_name);
        unique(
            self.services
                .names()
                .map(|name| -> &str { name })
                .chain(others),
        )?;
        let mut containers = chosen
            .map(|listed| {
                let Services {
                    attachments,
                    layers,
                    ..
                } = &self.services;
                (listed.container)(self.config.clone(), attachments.clone(), layers.clone())
            })
            .collect::<Result<Vec<_>>>()?;
        containers.extend(self.containers);
        Ok(Runner { containers })
    }
}

impl Runner {
    /// Creates a builder of a runner of `services`.
    pub fn builder(services: Services) -> RunnerBuilder {
        RunnerBuilder {
            services,
            names: Vec::new(),
            config: Config::new(),
            containers: Vec::new(),
        }
    }

    /// Creates a runner of the services named `names`, or of all if it is empty.
    ///
    /// # Errors
    /// If a name is unknown or listed twice; [`Error::Config`].
    pub fn new<N: AsRef<str>>(services: &Services, names: &[N], config: &Config) -> Result<Self> {
        Self::builder(services.clone())
            .only(names.iter().map(AsRef::as_ref))
            .config(config.clone())
            .build()
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

    /// Starts all services, serves until `shutdown` completes, and stops them gracefully. If one is
    /// killed, [stops](Self::stop) the others and returns.
    ///
    /// A `shutdown` that completes during the start ends it.
    ///
    /// # Errors
    /// As for [`start`](Self::start); [`Error::Killed`] of the first killed service.
    pub async fn run_until(&self, shutdown: impl Future<Output = ()>) -> Result<()> {
        let served = async {
            self.start().await?;
            self.wait().await
        };
        tokio::select! {
            ended = served => return ended,
            () = shutdown => {}
        }
        self.stop().await;
        self.ended().await
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

    /// Returns the longest `stop_timeout` of the services.
    #[cfg(feature = "cli")]
    pub(crate) fn stop_timeout(&self) -> Duration {
        let timeouts = self.containers.iter().map(stop_timeout);
        timeouts.max().unwrap_or(STOP_TIMEOUT)
    }

    /// Returns the time within which a stop ends, whatever extensions and workers do.
    #[cfg(all(feature = "cli", unix))]
    pub(crate) fn stop_limit(&self) -> Duration {
        // In order, then concurrently, see `stop`; with a margin.
        let rounds = if self.containers.len() > 1 { 2 } else { 1 };
        self.stop_timeout() * rounds + EXTENSIONS_STOP_LIMIT + Duration::from_secs(5)
    }

    /// Kills all services. Their unacknowledged messages are requeued.
    pub fn kill(&self) {
        for container in &self.containers {
            container.kill(Error::raise("Killed", "the runner was killed"));
        }
    }
}

/// Checks that no name occurs twice.
fn unique<'a>(names: impl Iterator<Item = &'a str>) -> Result<()> {
    let names: Vec<_> = names.collect();
    let mut numbered = names.iter().enumerate();
    match numbered.find(|(index, name)| names[..*index].contains(name)) {
        None => Ok(()),
        Some((index, name)) => Err(Error::raise(
            "ServicesError",
            format!(
                "two services are called `{name}` (see number {})",
                index + 1
            ),
        )),
    }
}

/// Returns the `stop_timeout` of a container, which has validated the value.
fn stop_timeout(container: &Container) -> Duration {
    let seconds = container.config().float("stop_timeout").ok().flatten();
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .unwrap_or(STOP_TIMEOUT)
}
