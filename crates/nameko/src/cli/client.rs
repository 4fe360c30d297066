//! The client that `shell` and `call` share, and how failures read on a terminal.

use std::fmt;
use std::time::Duration;

use serde::ser::{Serialize, Serializer};

use super::broker;
use super::expression::{Call, Event};
use super::literal::Literal;
use super::scanner::Fault;
use crate::amqp::{self, PublishError};
use crate::config::{Config, ConfigError, DEFAULT_AMQP_URI};
use crate::error::Error;
use crate::events::StandaloneDispatcher;
use crate::serialization;
use crate::standalone::Cluster;

/// What calls services, and tells them events.
pub(super) struct Client {
    cluster: Cluster,
    /// Connects when there is something to tell.
    events: StandaloneDispatcher,
    broker: String,
}

impl Client {
    /// Connects, which takes a few seconds at most. `timeout` is for calls; `None` takes what the configuration says,
    /// zero waits for ever.
    pub(super) async fn connect(
        config: &Config,
        timeout: Option<Duration>,
    ) -> Result<Self, Failure> {
        if !is_configured(config) && !broker::is_there(broker::LOCAL).await {
            return Err(Failure::new(
                "ConnectionError",
                "no broker is configured, and none runs at localhost:5672",
            )
            .hint(
                "start one with `nameko broker`, or a service with `run`, which brings one along; \
                 or name one: --broker amqp://user:password@host/",
            ));
        }
        let broker = broker_of(config);
        let cluster = Cluster::connect(config).await?;
        let cluster = match timeout {
            None => cluster,
            Some(Duration::ZERO) => cluster.timeout(None),
            Some(timeout) => cluster.timeout(timeout),
        };
        let events = StandaloneDispatcher::new(config)?;
        Ok(Self {
            cluster,
            events,
            broker,
        })
    }

    /// The broker's address, without the password.
    pub(super) fn broker(&self) -> &str {
        &self.broker
    }

    /// Makes a call and waits for its result.
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
                "no service of that name has been run on {}",
                self.broker
            )),
            // Another name is that of a call which the method made.
            Error::MethodNotFound(ref missing) if missing == method => {
                Failure::from(error).hint(format!("{service} has no such method for RPC"))
            }
            Error::Timeout { .. } => Failure::from(error)
                .hint("the service is not running, busy or hangs; --timeout SECONDS waits longer"),
            // A class that this program knows is an error of the service's all the same.
            Error::Custom(_) => {
                let fault = crate::Fault::of(&error);
                Failure::new("RemoteError", format!("{} {error}", fault.exc_type))
            }
            other => Failure::from(other),
        })?;
        let unshown = |why: &dyn std::fmt::Display| {
            Failure::new("Error", format!("the result can't be shown: {why}"))
        };
        let json = result.to_json().map_err(|error| unshown(&error))?;
        let text = serialization::python(json.get());
        Literal::parse(&text).map_err(|fault| unshown(&fault))
    }

    /// Dispatches an event, and returns when the broker has it.
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
                    "no service {service} that dispatches events has been run on {}, and none that handles them",
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

/// Whether the user said where the broker is.
pub(super) fn is_configured(config: &Config) -> bool {
    config
        .get("AMQP_URI")
        .is_some_and(|value| !value.is_null() && value != "")
}

/// Where the broker is, without the password.
pub(super) fn broker_of(config: &Config) -> String {
    amqp::sanitize(config.amqp_uri().unwrap_or(DEFAULT_AMQP_URI))
}

/// Keyword arguments, as a map.
struct Named<'a>(&'a [(String, Literal)]);

impl Serialize for Named<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

/// Why a command did not do what it should, as the user reads it: `RemoteError: ValueError bad`.
#[derive(Debug)]
pub(super) struct Failure {
    kind: &'static str,
    message: String,
    hint: Option<String>,
    /// The number of the process that it happened in, where there are several.
    process: Option<u16>,
}

impl Failure {
    pub(super) fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
            process: None,
        }
    }

    /// Adds what to do about it.
    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// Tells in which of several processes it happened.
    #[cfg(unix)]
    pub(super) fn in_process(self, number: u16) -> Self {
        Self {
            process: Some(number),
            ..self
        }
    }

    /// A fault in a text that the user wrote.
    pub(super) fn in_text(fault: &Fault, text: &str) -> Self {
        // It names its kind itself, below the text.
        Self::new("", fault.point_at(text))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(number) = self.process {
            write!(f, "[{number}] ")?;
        }
        if !self.kind.is_empty() {
            write!(f, "{}: ", self.kind)?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  {hint}"),
            None => Ok(()),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let mut cause = &error;
        while let Error::Extension { reason, .. } = cause {
            cause = reason;
        }
        let kind = match cause {
            Error::Remote(_) => "RemoteError",
            Error::UnknownService(_) => "UnknownService",
            Error::MethodNotFound(_) => "MethodNotFound",
            Error::IncorrectSignature(_) => "IncorrectSignature",
            Error::MalformedRequest(_) => "MalformedRequest",
            Error::Timeout { .. } => "RpcTimeout",
            Error::ReplyLost { .. } | Error::Amqp(_) | Error::Publish(_) => "ConnectionError",
            Error::Serialization(_) => "SerializationError",
            Error::Config(_) => "ConfigurationError",
            _ => "Error",
        };
        Self::new(kind, error.to_string())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::from(Error::from(error))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new("Error", error.to_string())
    }
}
