//! A handler on amqprs: one connection, one channel.

use std::sync::Arc;

use ::amqprs::{
    BasicProperties, Deliver,
    channel::{
        BasicAckArguments, BasicConsumeArguments, BasicQosArguments, Channel,
        ExchangeDeclareArguments, QueueBindArguments, QueueDeclareArguments,
    },
    consumer::AsyncConsumer,
};
use async_trait::async_trait;

use super::{EVENT, Queues};
use crate::{
    hello::{Failure, PREFETCH},
    reports::Reports,
    rpc::amqprs::connect,
};

/// Serves until the connection is lost.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(queues: &Queues) -> Result<(), Failure> {
    let reports = Arc::new(Reports::new());
    let connection = connect(&queues.uri).await?;
    let channel = connection.open_channel(None).await?;
    let exchange = ExchangeDeclareArguments::new(&queues.exchange, "topic")
        .durable(true)
        .finish();
    channel.exchange_declare(exchange).await?;
    channel
        .basic_qos(BasicQosArguments::new(0, PREFETCH, false))
        .await?;
    for queue in &queues.queues {
        channel
            .queue_declare(QueueDeclareArguments::durable_client_named(queue))
            .await?;
        channel
            .queue_bind(QueueBindArguments::new(queue, &queues.exchange, EVENT))
            .await?;
        let consumer = Handler(reports.clone());
        channel
            .basic_consume(consumer, BasicConsumeArguments::new(queue, queue))
            .await?;
    }
    connection.listen_network_io_failure().await;
    Err("connection lost".into())
}

struct Handler(Arc<Reports>);

#[async_trait]
impl AsyncConsumer for Handler {
    async fn consume(
        &mut self,
        channel: &Channel,
        deliver: Deliver,
        _: BasicProperties,
        content: Vec<u8>,
    ) {
        match serde_json::from_slice::<String>(&content) {
            Ok(text) => self.0.handled(text.len()),
            Err(error) => eprintln!("{error}"),
        }
        let acknowledgement = BasicAckArguments::new(deliver.delivery_tag(), false);
        if let Err(error) = channel.basic_ack(acknowledgement).await {
            eprintln!("{error}");
        }
    }
}
