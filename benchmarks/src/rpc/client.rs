//! The hello service on nameko-amqp without the framework: a consuming and a publishing connection,
//! as in Nameko.

use std::sync::Arc;

use crate::hello::{self, EXCHANGE, Failure, PREFETCH};
use bytes::Bytes;
use nameko::amqp::{
    ConnectOptions, Consumers, Delivery, Exchange, Properties, Publish, Publisher, Queue,
    Subscription,
};
use tokio::runtime::Handle;

/// Serves until the process is stopped.
#[tokio::main]
pub(crate) async fn run(uri: &str, service: &str) -> Result<(), Failure> {
    let options = ConnectOptions::from_uri(uri)?;
    let publisher = Publisher::shared(&options);
    let consumers = Consumers::new(options, Arc::new(()));
    let runtime = Handle::current();
    consumers.add(Subscription {
        queue: Queue::new(hello::queue(service))
            .bind(Exchange::topic(EXCHANGE), hello::binding(service)),
        prefetch: Some(PREFETCH),
        sink: Arc::new(move |delivery| {
            let publisher = publisher.clone();
            runtime.spawn(async move {
                if let Err(error) = handle(&publisher, delivery).await {
                    eprintln!("{error}");
                }
            });
        }),
        on_recovered: None,
    });
    consumers.start().await?;
    std::future::pending().await
}

async fn handle(publisher: &Publisher, delivery: Delivery) -> Result<(), Failure> {
    let body = hello::reply(&delivery.body)?;
    let reply = Publish {
        exchange: EXCHANGE.to_owned(),
        routing_key: delivery
            .properties
            .reply_to
            .unwrap_or_default()
            .into_owned(),
        mandatory: false,
        properties: Properties {
            content_type: Some("application/json".into()),
            content_encoding: Some("utf-8".into()),
            delivery_mode: Some(2),
            priority: Some(0),
            correlation_id: delivery.properties.correlation_id,
            ..Properties::default()
        },
        body: Bytes::from(body),
    };
    publisher.publish(reply, None).await?;
    delivery.acker.ack();
    Ok(())
}
