//! Load that a client makes itself: concurrent tasks, each with one operation at a time.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::try_join_all;
use tokio::runtime::Runtime;

use crate::{
    hello::Failure,
    load::{Caller, Limit, Load, Run, until_answered},
};

/// A client under test, shared by all tasks.
pub(crate) trait Operation: Send + Sync + 'static {
    /// Makes one call, or publishes one message and waits for its confirm.
    fn call(&self) -> impl Future<Output = Result<(), Failure>> + Send;
}

pub(crate) struct TaskCaller<O> {
    runtime: Runtime,
    operation: Arc<O>,
}

impl<O: Operation> TaskCaller<O> {
    /// Creates the client with `connect`.
    pub(crate) fn new<F>(runtime: Runtime, connect: F) -> Result<Self, Failure>
    where
        F: Future<Output = Result<O, Failure>>,
    {
        let operation = Arc::new(runtime.block_on(connect)?);
        Ok(Self { runtime, operation })
    }
}

impl<O: Operation> Caller for TaskCaller<O> {
    fn first_answer(&mut self, timeout: Duration) -> Result<(), Failure> {
        until_answered(timeout, || {
            Ok(self.runtime.block_on(self.operation.call()).is_ok())
        })
    }

    fn run(&mut self, load: &Load, limit: Limit) -> Result<Run, Failure> {
        let begin = Instant::now();
        let end = begin + Duration::from_secs_f64(limit.seconds);
        let calls = limit.calls / load.number;
        let tasks = (0..load.number).map(|_| {
            let operation = self.operation.clone();
            self.runtime.spawn(async move {
                let mut latencies = Vec::new();
                let mut start = Instant::now();
                while start < end && latencies.len() < calls {
                    operation.call().await?;
                    let now = Instant::now();
                    latencies.push(now - start);
                    start = now;
                }
                Ok::<_, Failure>(latencies)
            })
        });
        let tasks: Vec<_> = tasks.collect();
        let latencies = self.runtime.block_on(try_join_all(tasks))?;
        let elapsed = begin.elapsed();
        let latencies: Result<Vec<_>, _> = latencies.into_iter().collect();
        Ok(Run::timed(latencies?.concat(), elapsed))
    }

    fn clean_up(self) -> Result<(), Failure> {
        let Self { runtime, operation } = self;
        // Clients of amqprs spawn tasks when they are dropped.
        let _runtime = runtime.enter();
        drop(operation);
        Ok(())
    }
}
