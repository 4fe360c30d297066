//! Waits for an entrypoint to fire.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{sync::mpsc, time::timeout};

use super::{convert::json, timeout::TIMEOUT};
use crate::{
    container::{Container, WorkerObserver},
    error::{Error, Result},
    reply::Outcome,
    rpc::CallResult,
    serialization,
    sync::lock,
    worker::WorkerContext,
};

/// Creates a waiter for workers of a method.
///
/// It observes workers that end after its creation: create it before triggering the entrypoint.
///
/// ```
/// use nameko::{prelude::*, testing::{self, entrypoint_waiter}};
///
/// #[derive(Dependencies)]
/// struct Counter;
///
/// #[service("counter")]
/// impl Counter {
///     #[rpc]
///     async fn add(&self, number: u64) -> Result<u64> {
///         Ok(number + 1)
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// let broker = testing::broker().await;
/// let container = Container::new::<Counter>(broker.config())?;
/// container.start().await?;
///
/// let mut add = entrypoint_waiter(&container, "add");
/// let mut failed = entrypoint_waiter(&container, "add").when(|_worker, outcome| outcome.is_err());
/// let cluster = Cluster::connect(&broker.config()).await?;
/// cluster.service("counter").call::<u64>("add", (1,)).await?;
/// cluster.service("counter").call::<u64>("add", (2,)).await?;
/// assert_eq!(add.result::<u64>().await?, 2);
/// assert_eq!(add.result::<u64>().await?, 3);
/// # failed = failed.timeout(std::time::Duration::from_millis(1));
/// assert!(failed.result::<u64>().await.is_err()); // none did, in time
/// # cluster.stop().await;
/// # container.stop().await;
/// # Ok(()) }
/// ```
pub fn entrypoint_waiter(container: &Container, method: impl Into<String>) -> EntrypointWaiter {
    let (sender, ended) = mpsc::unbounded_channel();
    let observer = Arc::new(MethodObserver {
        method: method.into(),
        when: Mutex::new(Box::new(|_, _| true)),
        sender,
    });
    container.observe_workers(&observer);
    EntrypointWaiter {
        container: container.clone(),
        observer,
        ended,
        timeout: TIMEOUT,
    }
}

/// Observes the workers of one method. Created by [`entrypoint_waiter`].
#[must_use = "a waiter does nothing unless awaited"]
pub struct EntrypointWaiter {
    container: Container,
    observer: Arc<MethodObserver>,
    ended: mpsc::UnboundedReceiver<Ended>,
    timeout: Duration,
}

impl EntrypointWaiter {
    /// Only counts workers for which `when` returns `true`. Called once per worker, in the order
    /// they end.
    pub fn when(self, when: impl FnMut(&WorkerContext, &Outcome) -> bool + Send + 'static) -> Self {
        *self.observer.lock() = Box::new(when);
        self
    }

    /// Sets the timeout for each worker. Default: [`TIMEOUT`].
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Waits for the next worker to end, including the final provider hooks.
    ///
    /// # Errors
    /// [`Error::ExtensionNotFound`] if the service has no such entrypoint;
    /// `EntrypointWaiterTimeout` if no worker ended in time; [`Error::Killed`] or
    /// [`Error::ContainerStopping`] if the container ended.
    pub async fn next(&mut self) -> Result<Ended> {
        let Self {
            container,
            observer,
            ended,
            timeout: limit,
        } = self;
        container.method(&observer.method)?;
        let service = container.service_name();
        let next = async {
            tokio::select! {
                biased;
                // The sender is in `observer`, so there is always a next one.
                Some(ended) = ended.recv() => Ok(ended),
                died = container.wait() => Err(died.err().unwrap_or_else(|| Error::ContainerStopping(service.to_owned()))),
            }
        };
        timeout(*limit, next).await.unwrap_or_else(|_| {
            Err(Error::raise(
                "EntrypointWaiterTimeout",
                format!(
                    "Timeout on {service}.{} after {} seconds",
                    observer.method,
                    limit.as_secs_f64()
                ),
            ))
        })
    }

    /// Waits for the next worker to end, and returns the result of its method.
    ///
    /// # Errors
    /// As for [`next`](Self::next) and [`Ended::result`].
    pub async fn result<T: CallResult>(&mut self) -> Result<T> {
        self.next().await?.result()
    }
}

impl fmt::Debug for EntrypointWaiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service = self.container.service_name();
        write!(f, "<EntrypointWaiter [{service}.{}]>", self.observer.method)
    }
}

/// An ended worker.
#[derive(Debug)]
pub struct Ended {
    ctx: WorkerContext,
    json: Result<Vec<u8>>,
}

impl Ended {
    /// Returns the context of the worker.
    pub fn worker(&self) -> &WorkerContext {
        &self.ctx
    }

    /// Returns the result of the method.
    ///
    /// # Errors
    /// [`Error::Raised`] with the error of the method, or [`Error::Custom`] if its type is
    /// [registered](crate::exceptions::register); [`Error::Serialization`] if the result is not a
    /// `T`.
    pub fn result<T: CallResult>(self) -> Result<T> {
        Ok(serialization::from_slice(&self.json?)?)
    }
}

type When = dyn FnMut(&WorkerContext, &Outcome) -> bool + Send;

struct MethodObserver {
    method: String,
    when: Mutex<Box<When>>,
    sender: mpsc::UnboundedSender<Ended>,
}

impl MethodObserver {
    fn lock(&self) -> std::sync::MutexGuard<'_, Box<When>> {
        lock(&self.when)
    }
}

impl WorkerObserver for MethodObserver {
    fn worker_ended(&self, ctx: &WorkerContext, outcome: &Outcome) {
        if ctx.method_name() == self.method && (self.lock())(ctx, outcome) {
            let ended = Ended {
                ctx: ctx.clone(),
                json: json(outcome),
            };
            // Fails if the waiter was dropped.
            let _ = self.sender.send(ended);
        }
    }
}
