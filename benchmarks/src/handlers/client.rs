//! A handler on nameko-amqp without the framework.

use std::sync::Arc;

use nameko::amqp::{ConnectOptions, Consumers, Exchange, Queue, Subscription};
use tokio::runtime::Handle;

use super::{EVENT, Queues};
use crate::{
    hello::{Failure, PREFETCH},
    reports::Reports,
};

/// Serves until the process is stopped.
#[tokio::main]
pub(crate) async fn run(queues: &Queues) -> Result<(), Failure> {
    let reports = Arc::new(Reports::new());
    let consumers = Consumers::new(ConnectOptions::from_uri(&queues.uri)?, Arc::new(()));
    for queue in &queues.queues {
        let (runtime, reports) = (Handle::current(), reports.clone());
        consumers.add(Subscription {
            queue: Queue::new(queue).bind(Exchange::topic(&queues.exchange), EVENT),
            prefetch: Some(PREFETCH),
            sink: Arc::new(move |delivery| {
                let reports = reports.clone();
                runtime.spawn(async move {
                    match serde_json::from_slice::<String>(&delivery.body) {
                        Ok(text) => reports.handled(text.len()),
                        Err(error) => eprintln!("{error}"),
                    }
                    delivery.acker.ack();
                });
            }),
            on_recovered: None,
        });
    }
    consumers.start().await?;
    std::future::pending().await
}
