//! The hello service on amqprs: one connection, with a channel for requests and one for replies.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use crate::hello::{self, EXCHANGE, Failure, PREFETCH};
use ::amqprs::{
    Ack, BasicProperties, Cancel, CloseChannel, Deliver, FieldTable, Nack, Return,
    callbacks::{ChannelCallback, DefaultConnectionCallback},
    channel::{
        BasicAckArguments, BasicConsumeArguments, BasicPublishArguments, BasicQosArguments,
        Channel, ConfirmSelectArguments, ExchangeDeclareArguments, QueueBindArguments,
        QueueDeclareArguments,
    },
    connection::{Connection, OpenConnectionArguments},
    consumer::AsyncConsumer,
};
use amq_protocol::uri::AMQPUri;
use async_trait::async_trait;

/// Pairs of publish number and request delivery tag of unconfirmed replies, in publish order.
type Unconfirmed = Arc<Mutex<VecDeque<(u64, u64)>>>;

/// Serves until the connection is lost.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(uri: &str, service: &str) -> Result<(), Failure> {
    let connection = connect(uri).await?;
    let requests = connection.open_channel(None).await?;
    let replies = connection.open_channel(None).await?;
    let unconfirmed = Unconfirmed::default();
    replies
        .register_callback(Confirms {
            requests: requests.clone(),
            unconfirmed: unconfirmed.clone(),
        })
        .await?;
    replies
        .confirm_select(ConfirmSelectArguments::default())
        .await?;
    let queue = hello::queue(service);
    let exchange = ExchangeDeclareArguments::new(EXCHANGE, "topic")
        .durable(true)
        .finish();
    requests.exchange_declare(exchange).await?;
    requests
        .queue_declare(QueueDeclareArguments::durable_client_named(&queue))
        .await?;
    requests
        .queue_bind(QueueBindArguments::new(
            &queue,
            EXCHANGE,
            &hello::binding(service),
        ))
        .await?;
    requests
        .basic_qos(BasicQosArguments::new(0, PREFETCH, false))
        .await?;
    let consumer = Hello {
        replies,
        unconfirmed,
        published: 0,
    };
    requests
        .basic_consume(consumer, BasicConsumeArguments::new(&queue, ""))
        .await?;
    connection.listen_network_io_failure().await;
    Err("connection lost".into())
}

/// Connects to the broker at `uri`.
///
/// # Errors
///
/// If the broker is unreachable or refuses the connection.
pub(crate) async fn connect(uri: &str) -> Result<Connection, Failure> {
    let uri: AMQPUri = uri.parse()?;
    let user = &uri.authority.userinfo;
    let arguments = OpenConnectionArguments::new(
        &uri.authority.host,
        uri.authority.port,
        &user.username,
        &user.password,
    )
    .virtual_host(&uri.vhost)
    .finish();
    let connection = Connection::open(&arguments).await?;
    connection
        .register_callback(DefaultConnectionCallback)
        .await?;
    Ok(connection)
}

struct Hello {
    replies: Channel,
    unconfirmed: Unconfirmed,
    published: u64,
}

#[async_trait]
impl AsyncConsumer for Hello {
    async fn consume(
        &mut self,
        _: &Channel,
        deliver: Deliver,
        request: BasicProperties,
        content: Vec<u8>,
    ) {
        let body = match hello::reply(&content) {
            Ok(body) => body,
            Err(error) => return eprintln!("{error}"),
        };
        let mut properties = BasicProperties::default();
        properties
            .with_content_type("application/json")
            .with_content_encoding("utf-8")
            .with_headers(FieldTable::new())
            .with_delivery_mode(2)
            .with_priority(0);
        if let Some(correlation_id) = request.correlation_id() {
            properties.with_correlation_id(correlation_id);
        }
        self.published += 1;
        self.unconfirmed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back((self.published, deliver.delivery_tag()));
        let reply_to = request.reply_to().map_or("", String::as_str);
        let arguments = BasicPublishArguments::new(EXCHANGE, reply_to);
        if let Err(error) = self
            .replies
            .basic_publish(properties.finish(), body, arguments)
            .await
        {
            eprintln!("{error}");
        }
    }
}

/// Acknowledges each request after the confirm of its reply.
struct Confirms {
    requests: Channel,
    unconfirmed: Unconfirmed,
}

#[async_trait]
impl ChannelCallback for Confirms {
    async fn close(
        &mut self,
        _: &Channel,
        close: CloseChannel,
    ) -> Result<(), ::amqprs::error::Error> {
        eprintln!("channel closed by the broker: {close}");
        Ok(())
    }

    async fn cancel(&mut self, _: &Channel, _: Cancel) -> Result<(), ::amqprs::error::Error> {
        Ok(())
    }

    async fn flow(&mut self, _: &Channel, active: bool) -> Result<bool, ::amqprs::error::Error> {
        Ok(active)
    }

    async fn publish_ack(&mut self, _: &Channel, ack: Ack) {
        let number = ack.delivery_tag();
        let mut confirmed = Vec::new();
        {
            let mut unconfirmed = self
                .unconfirmed
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if ack.mutiple() {
                while let Some((_, tag)) = unconfirmed.pop_front_if(|(this, _)| *this <= number) {
                    confirmed.push(tag);
                }
            } else if let Some(at) = unconfirmed.iter().position(|(this, _)| *this == number) {
                confirmed.extend(unconfirmed.remove(at).map(|(_, tag)| tag));
            }
        }
        for tag in confirmed {
            if let Err(error) = self
                .requests
                .basic_ack(BasicAckArguments::new(tag, false))
                .await
            {
                eprintln!("{error}");
            }
        }
    }

    async fn publish_nack(&mut self, _: &Channel, _: Nack) {
        eprintln!("reply rejected by the broker (basic.nack)");
    }

    async fn publish_return(&mut self, _: &Channel, _: Return, _: BasicProperties, _: Vec<u8>) {}
}
