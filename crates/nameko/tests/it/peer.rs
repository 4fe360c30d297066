//! A peer that is no framework, to see and send what is on the wire.

use nameko::amqp::{Channel, Connection, Delivery, Exchange, Properties, Publish, Queue, Table};
use serde_json::Value as Json;
use tokio::sync::mpsc;

use crate::support::{self, TestBroker};

/// A peer that speaks AMQP by hand: it has a queue of its own to which replies come.
pub(crate) struct Peer {
    pub(crate) channel: Channel,
    pub(crate) replies: mpsc::UnboundedReceiver<Delivery>,
}

impl Peer {
    pub(crate) async fn new(broker: &TestBroker) -> Self {
        let connection = Connection::open(&broker.options()).await.unwrap();
        let channel = connection.channel().await.unwrap();
        let queue = Queue::new("peer");
        channel
            .exchange_declare(&Exchange::topic("nameko-rpc"))
            .await
            .unwrap();
        channel.queue_declare(&queue).await.unwrap();
        let none = Table::new();
        channel
            .queue_bind("peer", "nameko-rpc", "peer", &none)
            .await
            .unwrap();
        let (sink, replies) = mpsc::unbounded_channel();
        let sink = move |delivery: Delivery| {
            delivery.acker.ack();
            let _ = sink.send(delivery);
        };
        channel.consume("peer", sink, |_| {}).await.unwrap();
        channel.confirm_select().await.unwrap();
        Self { channel, replies }
    }

    /// Sends a request as it stands.
    pub(crate) async fn send(&self, key: &str, properties: Properties, body: &[u8]) {
        let message = Publish {
            exchange: "nameko-rpc".to_owned(),
            routing_key: key.to_owned(),
            mandatory: true,
            properties,
            body: body.to_vec().into(),
        };
        self.channel.publish(&message).await.unwrap().await.unwrap();
    }

    /// Sends a request, and returns the reply to it.
    pub(crate) async fn ask(
        &mut self,
        key: &str,
        content_type: &'static str,
        body: &[u8],
    ) -> Delivery {
        let properties = Properties {
            content_type: Some(content_type.into()),
            content_encoding: Some("utf-8".into()),
            ..Properties::default()
        };
        self.ask_with(key, properties, body).await
    }

    /// The same, with any properties.
    pub(crate) async fn ask_with(
        &mut self,
        key: &str,
        properties: Properties,
        body: &[u8],
    ) -> Delivery {
        let properties = Properties {
            correlation_id: Some("the-id".into()),
            reply_to: Some("peer".into()),
            ..properties
        };
        self.send(key, properties, body).await;
        support::within("a reply", self.replies.recv())
            .await
            .unwrap()
    }
}

/// The body of a reply in JSON.
pub(crate) fn json_of(delivery: &Delivery) -> Json {
    serde_json::from_slice(&delivery.body).unwrap()
}
