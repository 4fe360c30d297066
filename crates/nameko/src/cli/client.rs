//! The client of `shell` and `call`.

use std::time::Duration;

use serde::ser::{Serialize, Serializer};

use super::arguments::ClientArguments;
use super::context;
use super::endpoint::{LOCAL, broker_of, is_configured, is_there, no_broker};
use super::expression::{Call, Event};
use super::failure::Failure;
use super::literal::Literal;
use crate::amqp::PublishError;
use crate::config::Config;
use crate::error::Error;
use crate::events::StandaloneDispatcher;
use crate::serialization;
use crate::standalone::Cluster;

/// A client that calls services and dispatches events.
pub(super) struct Client {
    cluster: Cluster,
    /// Connects on first use.
    events: StandaloneDispatcher,
    broker: String,
}

impl Client {
    /// Connects to the broker, within a few seconds.
    pub(super) async fn connect(
        config: &Config,
        arguments: &ClientArguments,
    ) -> Result<Self, Failure> {
        if !is_configured(config) && !is_there(LOCAL).await {
            return Err(no_broker().hint(
                "start one with `nameko broker`, or start a service with `run`, which embeds one, \
                 or configure one: --broker amqp://user:password@host/",
            ));
        }
        let broker = broker_of(config);
        let context = context::parse(&arguments.context)?;
        let mut events = StandaloneDispatcher::new(config)?;
        for (key, value) in context.iter() {
            events = events.with_context(key, value.clone());
        }
        let cluster = Cluster::connect_with(config, context).await?;
        let cluster = match arguments.timeout {
            None => cluster,
            Some(Duration::ZERO) => cluster.timeout(None),
            Some(timeout) => cluster.timeout(timeout),
        };
        Ok(Self {
            cluster,
            events,
            broker,
        })
    }

    /// Returns the URI of the broker without the password.
    pub(super) fn broker(&self) -> &str {
        &self.broker
    }

    /// Makes a call and awaits the result.
    pub(super) async fn call(&self, call: &Call) -> Result<Literal, Failure> {
        let Call {
            service,
            method,
            args,
            kwargs,
        } = call;
        let service_proxy = self.cluster.service(service.as_str());
        let reply = service_proxy
            .call_unread(method, args, &Named(kwargs))
            .await;
        let result = reply.map_err(|error| match error {
            Error::UnknownService(_) => Failure::from(error).hint(format!(
                "no service with this name has ever run on {}",
                self.broker
            )),
            // Another name belongs to a call made by the method.
            Error::MethodNotFound(ref missing) if missing == method => {
                Failure::from(error).hint(format!("{service} has no RPC method with this name"))
            }
            Error::Timeout { .. } => Failure::from(error)
                .hint("the service is stopped, busy or hanging; --timeout SECONDS waits longer"),
            // A class registered in this program is still an error of the service.
            Error::Custom(_) => {
                let fault = crate::Fault::of(&error);
                Failure::new("RemoteError", format!("{} {error}", fault.exc_type))
            }
            other => Failure::from(other),
        })?;
        let unprintable = |reason: &dyn std::fmt::Display| {
            Failure::new("Error", format!("cannot print the result: {reason}"))
        };
        let json = result.to_json().map_err(|error| unprintable(&error))?;
        let text = serialization::python(json.get());
        Literal::parse(&text).map_err(|fault| unprintable(&fault))
    }

    /// Dispatches an event and awaits the broker's confirm.
    pub(super) async fn dispatch(&self, event: &Event) -> Result<(), Failure> {
        let Event {
            service,
            event_type,
            data,
        } = event;
        let sent = self.events.dispatch(service, event_type, data).await;
        sent.map_err(|error| match error {
            Error::Publish(PublishError::Refused(ref refusal)) if refusal.is_not_found() => {
                Failure::from(error).hint(format!(
                    "no service has dispatched or handled events of {service} on {}",
                    self.broker
                ))
            }
            other => Failure::from(other),
        })
    }

    pub(super) async fn close(self) {
        self.cluster.stop().await;
    }
}

/// Serializes keyword arguments as a map.
struct Named<'a>(&'a [(String, Literal)]);

impl Serialize for Named<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}
