//! A publisher on amqprs, whose confirms are a callback: a table of waiting tasks by number.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ::amqprs::{
    Ack, BasicProperties, Cancel, CloseChannel, FieldTable, Nack, Return,
    callbacks::ChannelCallback,
    channel::{BasicPublishArguments, Channel, ConfirmSelectArguments},
    connection::Connection,
};
use async_trait::async_trait;
use tokio::sync::{Mutex as AsyncMutex, oneshot};

use super::{EVENT, EXCHANGE};
use crate::{hello::Failure, rpc::amqprs::connect, task_caller::Operation};

type Waiting = Arc<Mutex<BTreeMap<u64, oneshot::Sender<()>>>>;

pub(crate) struct Amqprs {
    _connection: Connection,
    channel: Channel,
    /// Number of published messages. Locked until a message is queued, since the crate does not
    /// return its number.
    published: AsyncMutex<u64>,
    waiting: Waiting,
    body: String,
}

impl Amqprs {
    pub(crate) async fn connect(uri: &str) -> Result<Self, Failure> {
        let connection = connect(uri).await?;
        let channel = connection.open_channel(None).await?;
        let waiting = Waiting::default();
        channel.register_callback(Confirms(waiting.clone())).await?;
        channel
            .confirm_select(ConfirmSelectArguments::default())
            .await?;
        Ok(Self {
            _connection: connection,
            channel,
            published: AsyncMutex::default(),
            waiting,
            body: super::body(),
        })
    }
}

impl Operation for Amqprs {
    async fn call(&self) -> Result<(), Failure> {
        let body = serde_json::to_vec(&self.body)?;
        let mut properties = BasicProperties::default();
        properties
            .with_content_type("application/json")
            .with_content_encoding("utf-8")
            .with_headers(FieldTable::new())
            .with_delivery_mode(2)
            .with_priority(0);
        let (sender, confirm) = oneshot::channel();
        let mut published = self.published.lock().await;
        *published += 1;
        lock(&self.waiting).insert(*published, sender);
        let arguments = BasicPublishArguments::new(EXCHANGE, EVENT);
        self.channel
            .basic_publish(properties.finish(), body, arguments)
            .await?;
        drop(published);
        Ok(confirm.await?)
    }
}

struct Confirms(Waiting);

fn lock(waiting: &Waiting) -> MutexGuard<'_, BTreeMap<u64, oneshot::Sender<()>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut waiting = lock(&self.0);
        let number = ack.delivery_tag();
        if ack.mutiple() {
            let later = waiting.split_off(&(number + 1));
            for (_, sender) in std::mem::replace(&mut *waiting, later) {
                let _ = sender.send(());
            }
        } else if let Some(sender) = waiting.remove(&number) {
            let _ = sender.send(());
        }
    }

    async fn publish_nack(&mut self, _: &Channel, _: Nack) {
        eprintln!("event rejected by the broker (basic.nack)");
    }

    async fn publish_return(&mut self, _: &Channel, _: Return, _: BasicProperties, _: Vec<u8>) {}
}
