//! The hello service on lapin, in the style of its examples: one connection, with a channel for
//! requests and one for replies.

use crate::hello::{self, EXCHANGE, Failure, PREFETCH};
use ::lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind,
    message::Delivery,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
        ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
    },
    types::FieldTable,
};
use async_rs::Runtime;
use futures_util::StreamExt;

/// Serves until the connection is lost.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(uri: &str, service: &str) -> Result<(), Failure> {
    let connection = Connection::connect_with_runtime(
        uri,
        ConnectionProperties::default(),
        Runtime::tokio_current(),
    )
    .await?;
    let replies = connection.create_channel().await?;
    replies
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    let requests = connection.create_channel().await?;
    let queue = hello::queue(service);
    requests
        .exchange_declare(
            EXCHANGE.into(),
            ExchangeKind::Topic,
            ExchangeDeclareOptions {
                durable: true,
                ..Default::default()
            },
            FieldTable::default(),
        )
        .await?;
    requests
        .queue_declare(
            queue.as_str().into(),
            QueueDeclareOptions {
                durable: true,
                ..Default::default()
            },
            FieldTable::default(),
        )
        .await?;
    requests
        .queue_bind(
            queue.as_str().into(),
            EXCHANGE.into(),
            hello::binding(service).into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await?;
    requests
        .basic_qos(PREFETCH, BasicQosOptions::default())
        .await?;
    let mut consumer = requests
        .basic_consume(
            queue.into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await?;
    while let Some(delivery) = consumer.next().await {
        let (delivery, replies) = (delivery?, replies.clone());
        tokio::spawn(async move {
            if let Err(error) = handle(&replies, delivery).await {
                eprintln!("{error}");
            }
        });
    }
    Err("consumer cancelled".into())
}

async fn handle(replies: &Channel, delivery: Delivery) -> Result<(), Failure> {
    let body = hello::reply(&delivery.data)?;
    let request = &delivery.properties;
    let mut properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("utf-8".into())
        .with_headers(FieldTable::default())
        .with_delivery_mode(2)
        .with_priority(0);
    if let Some(correlation_id) = request.correlation_id() {
        properties = properties.with_correlation_id(correlation_id.clone());
    }
    let reply_to = request.reply_to().clone().unwrap_or_default();
    replies
        .basic_publish(
            EXCHANGE.into(),
            reply_to,
            BasicPublishOptions::default(),
            &body,
            properties,
        )
        .await?
        .await?;
    delivery.acker.ack(BasicAckOptions::default()).await?;
    Ok(())
}
