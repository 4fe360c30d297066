//! A handler on lapin: one connection, one channel.

use std::sync::Arc;

use ::lapin::{
    Connection, ConnectionProperties, ExchangeKind,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicQosOptions, ExchangeDeclareOptions,
        QueueBindOptions, QueueDeclareOptions,
    },
    types::FieldTable,
};
use async_rs::Runtime;
use futures_util::{StreamExt, future::try_join_all};

use super::{EVENT, Queues};
use crate::{
    hello::{Failure, PREFETCH},
    reports::Reports,
};

/// Serves until the connection is lost.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(queues: &Queues) -> Result<(), Failure> {
    let reports = Arc::new(Reports::new());
    let runtime = Runtime::tokio_current();
    let properties = ConnectionProperties::default();
    let connection = Connection::connect_with_runtime(&queues.uri, properties, runtime).await?;
    let channel = connection.create_channel().await?;
    let durable = ExchangeDeclareOptions {
        durable: true,
        ..Default::default()
    };
    let exchange = queues.exchange.as_str();
    channel
        .exchange_declare(
            exchange.into(),
            ExchangeKind::Topic,
            durable,
            FieldTable::default(),
        )
        .await?;
    channel
        .basic_qos(PREFETCH, BasicQosOptions::default())
        .await?;
    let mut consumers = Vec::new();
    for queue in &queues.queues {
        let queue = queue.as_str();
        let durable = QueueDeclareOptions {
            durable: true,
            ..Default::default()
        };
        channel
            .queue_declare(queue.into(), durable, FieldTable::default())
            .await?;
        channel
            .queue_bind(
                queue.into(),
                exchange.into(),
                EVENT.into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await?;
        let mut consumer = channel
            .basic_consume(
                queue.into(),
                "".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await?;
        let reports = reports.clone();
        consumers.push(async move {
            while let Some(delivery) = consumer.next().await {
                let delivery = delivery?;
                let text: String = serde_json::from_slice(&delivery.data)?;
                reports.handled(text.len());
                delivery.acker.ack(BasicAckOptions::default()).await?;
            }
            Ok::<_, Failure>(())
        });
    }
    try_join_all(consumers).await?;
    Err("consumer cancelled".into())
}
