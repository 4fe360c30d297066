//! The client of `shell` and `call`, and the error type of all commands.

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

/// A client that calls services and dispatches events.
pub(super) struct Client {
    cluster: Cluster,
    /// Connects on first use.
    events: StandaloneDispatcher,
    broker: String,
}

impl Client {
    /// Connects to the broker, within a few seconds.
    ///
    /// `timeout` is the timeout of calls; `None` uses the configured one, zero disables it.
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
                "start one with `nameko broker`, or start a service with `run`, which embeds one, \
                 or configure one: --broker amqp://user:password@host/",
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

/// Returns `true` if the user configured a broker.
pub(super) fn is_configured(config: &Config) -> bool {
    config
        .get("AMQP_URI")
        .is_some_and(|value| !value.is_null() && value != "")
}

/// Returns the URI of the broker without the password.
pub(super) fn broker_of(config: &Config) -> String {
    amqp::sanitize(config.amqp_uri().unwrap_or(DEFAULT_AMQP_URI))
}

/// Serializes keyword arguments as a map.
struct Named<'a>(&'a [(String, Literal)]);

impl Serialize for Named<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

/// A failed command, displayed as `RemoteError: ValueError bad`.
#[derive(Debug)]
pub(super) struct Failure {
    kind: &'static str,
    message: String,
    hint: Option<String>,
    /// Number of the failed process under a supervisor.
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

    /// Adds a remedy.
    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// Adds the number of the process.
    #[cfg(unix)]
    pub(super) fn in_process(self, number: u16) -> Self {
        Self {
            process: Some(number),
            ..self
        }
    }

    /// Creates an error about a text typed by the user.
    pub(super) fn in_text(fault: &Fault, text: &str) -> Self {
        // `point_at` includes the kind.
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
