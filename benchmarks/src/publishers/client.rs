//! The publisher of nameko-amqp.

use bytes::Bytes;
use nameko::amqp::{ConnectOptions, Properties, Publish, Publisher};

use super::{EVENT, EXCHANGE};
use crate::{hello::Failure, task_caller::Operation};

pub(crate) struct Client {
    publisher: Publisher,
    body: String,
}

impl Client {
    pub(crate) async fn connect(uri: &str) -> Result<Self, Failure> {
        Ok(Self {
            publisher: Publisher::shared(&ConnectOptions::from_uri(uri)?),
            body: super::body(),
        })
    }
}

impl Operation for Client {
    async fn call(&self) -> Result<(), Failure> {
        let event = Publish {
            exchange: EXCHANGE.to_owned(),
            routing_key: EVENT.to_owned(),
            mandatory: false,
            properties: Properties {
                content_type: Some("application/json".into()),
                content_encoding: Some("utf-8".into()),
                delivery_mode: Some(2),
                priority: Some(0),
                ..Properties::default()
            },
            body: Bytes::from(serde_json::to_vec(&self.body)?),
        };
        Ok(self.publisher.publish(event, None).await?)
    }
}
