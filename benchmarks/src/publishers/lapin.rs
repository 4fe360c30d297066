//! A publisher on lapin.

use ::lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::FieldTable,
};
use async_rs::Runtime;

use super::{EVENT, EXCHANGE};
use crate::{hello::Failure, task_caller::Operation};

pub(crate) struct Lapin {
    _connection: Connection,
    channel: Channel,
    body: String,
}

impl Lapin {
    pub(crate) async fn connect(uri: &str) -> Result<Self, Failure> {
        let runtime = Runtime::tokio_current();
        let properties = ConnectionProperties::default();
        let connection = Connection::connect_with_runtime(uri, properties, runtime).await?;
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        Ok(Self {
            _connection: connection,
            channel,
            body: super::body(),
        })
    }
}

impl Operation for Lapin {
    async fn call(&self) -> Result<(), Failure> {
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_content_encoding("utf-8".into())
            .with_headers(FieldTable::default())
            .with_delivery_mode(2)
            .with_priority(0);
        self.channel
            .basic_publish(
                EXCHANGE.into(),
                EVENT.into(),
                BasicPublishOptions::default(),
                &serde_json::to_vec(&self.body)?,
                properties,
            )
            .await?
            .await?;
        Ok(())
    }
}
