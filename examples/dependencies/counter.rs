//! A custom dependency: a counter shared by all workers of a container.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use nameko::prelude::*;

/// Injects the container's counter.
#[derive(Default)]
struct Counter {
    calls: Arc<AtomicU64>,
}

impl DependencyProvider for Counter {
    type Dependency = Arc<AtomicU64>;

    async fn get_dependency(&self, _ctx: &WorkerContext) -> Result<Arc<AtomicU64>> {
        Ok(self.calls.clone())
    }
}

#[derive(Dependencies)]
struct CountingService {
    #[dependency(Counter::default())]
    calls: Arc<AtomicU64>,
}

#[service("counting_service")]
impl CountingService {
    #[rpc]
    async fn count(&self) -> Result<u64> {
        Ok(self.calls.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

fn main() -> ExitCode {
    nameko::main(services![CountingService])
}
