//! Several services in one process.

use futures_util::future::{join_all, select_all, try_join_all};

use crate::{
    config::Config,
    container::Container,
    error::{Error, Result},
    service::Service,
};

/// The services of a binary, as [`services!`](crate::services) lists them.
#[derive(Debug, Default, Clone)]
pub struct Services {
    list: Vec<Entry>,
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

    /// The services' names, in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.list.iter().map(|it| it.name)
    }
}

/// Lists services: `services![ServiceX, ServiceY]`.
#[macro_export]
macro_rules! services {
    ($($service:ty),* $(,)?) => {
        $crate::Services::new()$(.add::<$service>())*
    };
}

/// Runs the containers of several services together.
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
        if let Some(unknown) = names
            .iter()
            .map(AsRef::as_ref)
            .find(|it| !list.contains(it))
        {
            return Err(Error::raise(
                "ServicesError",
                format!(
                    "no service is called `{unknown}`; there are: {}",
                    list.join(", ")
                ),
            ));
        }
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

    /// Starts all. Returns when all can be called.
    ///
    /// # Errors
    /// That of the first service that could not start; the others are stopped then.
    pub async fn start(&self) -> Result<()> {
        let started = try_join_all(self.containers.iter().map(Container::start)).await;
        if started.is_err() {
            self.stop().await;
        }
        started.map(|_| ())
    }

    /// Returns when all have stopped. When one dies, the others are stopped.
    ///
    /// # Errors
    /// [`Error::Killed`] of the first that died.
    pub async fn wait(&self) -> Result<()> {
        let mut running: Vec<_> = self
            .containers
            .iter()
            .map(|it| Box::pin(it.wait()))
            .collect();
        while !running.is_empty() {
            let (ended, _, others) = select_all(running).await;
            if ended.is_err() {
                self.stop().await;
                return ended;
            }
            running = others;
        }
        Ok(())
    }

    /// Stops all, side by side.
    pub async fn stop(&self) {
        join_all(self.containers.iter().map(Container::stop)).await;
    }

    /// Ends all at once; messages at hand go back to their queues.
    pub fn kill(&self) {
        for container in &self.containers {
            container.kill(Error::raise("Killed", "the runner was killed"));
        }
    }
}
