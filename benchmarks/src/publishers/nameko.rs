//! The standalone dispatcher of Nameko.

use nameko::{Config, events::StandaloneDispatcher};

use super::{EVENT, SOURCE};
use crate::{hello::Failure, task_caller::Operation};

pub(crate) struct Dispatcher {
    events: StandaloneDispatcher,
    body: String,
}

impl Dispatcher {
    pub(crate) async fn connect(uri: &str) -> Result<Self, Failure> {
        let config = Config::default().with("AMQP_URI", uri);
        Ok(Self {
            events: StandaloneDispatcher::new(&config)?,
            body: super::body(),
        })
    }
}

impl Operation for Dispatcher {
    async fn call(&self) -> Result<(), Failure> {
        Ok(self.events.dispatch(SOURCE, EVENT, &self.body).await?)
    }
}
