//! The one connection on which a container consumes.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use super::replies::Replies;
use crate::{
    amqp::{self, Consumers, Observer},
    container::Container,
    error::Result,
    extension::SharedExtension,
};

/// The queues of one container, over one connection and one channel.
pub(crate) struct QueueConsumer {
    pub(crate) consumers: Consumers,
    link: Arc<Link>,
}

impl QueueConsumer {
    /// The queue consumer of `container`.
    pub(crate) fn of(container: &Container) -> Result<Arc<Self>> {
        container.shared(|container| {
            let link = Arc::new(Link {
                service: container.service_name().to_owned(),
                replies: OnceLock::new(),
            });
            let mut options = container.config().connect_options()?;
            options.connection_name = Some(container.service_name().to_owned());
            Ok(Self {
                consumers: Consumers::new(options, link.clone()),
                link,
            })
        })
    }

    /// Tells `replies` when the connection is lost and made again.
    pub(crate) fn watch(&self, replies: Arc<Replies>) {
        let _ = self.link.replies.set(replies);
    }
}

impl SharedExtension for QueueConsumer {
    async fn start(&self) -> Result<()> {
        Ok(self.consumers.start().await?)
    }

    async fn stop(&self) {
        self.consumers.stop().await;
    }

    fn kill(&self) {
        self.consumers.kill();
    }
}

/// Says in the log how the connection fares, and tells those who wait for replies.
struct Link {
    service: String,
    replies: OnceLock<Arc<Replies>>,
}

impl Observer for Link {
    fn connection_error(&self, error: &amqp::Error, retry_in: Duration) {
        tracing::warn!(
            service = self.service,
            "error connecting to broker: {error}; retrying in {retry_in:.1?}"
        );
    }

    fn connected(&self, reconnect: bool) {
        if reconnect {
            tracing::info!(service = self.service, "connected to broker again");
        }
        if let Some(replies) = self.replies.get() {
            replies.connected();
        }
    }

    fn lost(&self, error: &amqp::Error) {
        tracing::warn!(
            service = self.service,
            "connection to broker lost, trying to re-establish it: {error}"
        );
        if let Some(replies) = self.replies.get() {
            replies.lost(error.to_string());
        }
    }
}
