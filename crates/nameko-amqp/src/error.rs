//! What can go wrong between here and a broker.

use std::{fmt, io, sync::Arc, time::Duration};

use crate::peer::Peer;

/// Why something on a broker did not work. Cheap to clone: one lost connection tells it to everybody who waited.
#[non_exhaustive]
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The text of a URI makes no sense. The URI in it is without its password.
    #[error("bad AMQP URI `{uri}`: {reason}; expected amqp://user:password@host:port/vhost")]
    BadUri {
        /// The URI, without its password.
        uri: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No TCP connection came about.
    #[error(
        "cannot connect to {peer}: {source}; is a broker running there, and are host and port right?"
    )]
    Io {
        /// Whom it was for.
        peer: Peer,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// TLS could not be set up: a file, a certificate, or a server that has no TLS on that port.
    #[error("TLS with {peer} failed: {reason}")]
    Tls {
        /// Whom it was for.
        peer: Peer,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// Nothing came in time.
    #[error(
        "no answer from {peer} within {after:?} while {doing}; is that an AMQP broker, and does the network let it through?"
    )]
    Timeout {
        /// Whom it was for.
        peer: Peer,
        /// How long it waited.
        after: Duration,
        /// What it waited for.
        doing: &'static str,
    },
    /// Something else than AMQP answers on that port.
    #[error("{peer} does not speak AMQP, it said {read}; check host and port")]
    NotAmqp {
        /// Whom it was for.
        peer: Peer,
        /// How its answer began, quoted, with a hint at what it is where that is known.
        read: String,
    },
    /// Broker and client do not agree on how to talk: version, login method, limits.
    #[error("cannot agree with {peer}: {reason}")]
    Handshake {
        /// Whom it was for.
        peer: Peer,
        /// On what.
        reason: String,
    },
    /// The broker does not know the user, or the password is wrong.
    #[error(
        "{peer} refused the login: {text}; check user and password in the AMQP URI, or the client certificate"
    )]
    AccessRefused {
        /// Whom it was for.
        peer: Peer,
        /// What the broker said.
        text: String,
    },
    /// The virtual host does not exist, or the user may not use it.
    #[error(
        "{peer} does not let this user use this vhost: {text}; check the vhost in the AMQP URI and the user's permissions on it"
    )]
    NotAllowed {
        /// Whom it was for.
        peer: Peer,
        /// What the broker said.
        text: String,
    },
    /// The broker closed a channel: what was asked on it was wrong. Its other channels live on.
    #[error("{peer} refused{}: {code} {text}{}", On(*class, *method), advice(*code, *class, *method))]
    ChannelClosed {
        /// Whom it was for.
        peer: Peer,
        /// AMQP's reply code, e.g. 404.
        code: u16,
        /// What the broker said.
        text: String,
        /// The class of the method it is about, 0 if none.
        class: u16,
        /// The method it is about, 0 if none.
        method: u16,
    },
    /// The broker closed the connection.
    #[error("{peer} closed the connection{}: {code} {text}", On(*class, *method))]
    ConnectionClosed {
        /// Whom it was for.
        peer: Peer,
        /// AMQP's reply code, e.g. 320.
        code: u16,
        /// What the broker said.
        text: String,
        /// The class of the method it is about, 0 if none.
        class: u16,
        /// The method it is about, 0 if none.
        method: u16,
    },
    /// The broker was silent, or read nothing, for two heartbeat intervals.
    #[error(
        "lost {peer}: no heartbeat for {silent:?}; the broker hangs, or the network between is down"
    )]
    HeartbeatMissed {
        /// Whom it was for.
        peer: Peer,
        /// For how long nothing came.
        silent: Duration,
    },
    /// The broker sent what AMQP does not allow. The connection was closed.
    #[error("{peer} broke the AMQP protocol: {reason}; the connection was closed")]
    Protocol {
        /// Whom it was for.
        peer: Peer,
        /// What it did.
        reason: String,
    },
    /// The connection broke.
    #[error("lost the connection to {peer}: {reason}")]
    Lost {
        /// Whom it was for.
        peer: Peer,
        /// How it showed.
        reason: String,
    },
    /// This side closed the connection or channel.
    #[error("the {what} to {peer} is closed")]
    Closed {
        /// Whom it was for.
        peer: Peer,
        /// "connection" or "channel".
        what: &'static str,
    },
    /// A name, a header or a message that AMQP cannot carry. Nothing was sent.
    #[error("cannot be sent over AMQP: {reason}")]
    Unsendable {
        /// What and why.
        reason: String,
    },
    /// The consumers were stopped meanwhile.
    #[error("stopped before the broker could be reached")]
    Stopped,
}

/// ` the declaration of a queue`, from a class and method as the broker names them in a close.
struct On(u16, u16);

impl fmt::Display for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Class and method numbers: AMQP 0-9-1 reference, RabbitMQ's extensions included.
        f.write_str(match (self.0, self.1) {
            (40, 10) => " exchange.declare",
            (40, 20) => " exchange.delete",
            (50, 10) => " queue.declare",
            (50, 20) => " queue.bind",
            (50, 30) => " queue.purge",
            (50, 40) => " queue.delete",
            (50, 50) => " queue.unbind",
            (60, 10) => " basic.qos",
            (60, 20) => " basic.consume",
            (60, 40) => " basic.publish",
            (60, 70) => " basic.get",
            (60, 80) => " basic.ack",
            (60, 90) => " basic.reject",
            (10, 40) => " connection.open",
            (0, 0) => "",
            (class, method) => return write!(f, " method {class}.{method}"),
        })
    }
}

/// What to do about a channel that the broker closed, where that is not plain from what it says.
fn advice(code: u16, class: u16, method: u16) -> &'static str {
    match (code, class, method) {
        (406, 50, 10) => {
            "; `received` is how it is declared here, `current` how the broker has it: declare it as the broker has it, \
             or delete the queue so that it is made anew"
        }
        (406, 40, 10) => {
            "; `received` is how it is declared here, `current` how the broker has it: declare it as the broker has it, \
             or delete the exchange so that it is made anew"
        }
        (404, 60, 40) => {
            "; who owns the exchange declares it: is that running, and is the name right?"
        }
        _ => "",
    }
}

impl Error {
    /// AMQP's reply code, where the broker gave one: 404 not found, 406 precondition failed, ...
    pub fn reply_code(&self) -> Option<u16> {
        match self {
            Error::ChannelClosed { code, .. } | Error::ConnectionClosed { code, .. } => Some(*code),
            Error::AccessRefused { .. } => Some(403),
            Error::NotAllowed { .. } => Some(530),
            _ => None,
        }
    }

    /// What was asked for does not exist on the broker (404).
    pub fn is_not_found(&self) -> bool {
        self.reply_code() == Some(404)
    }

    /// It exists with other properties, or a message's property is not allowed (406).
    pub fn is_precondition_failed(&self) -> bool {
        self.reply_code() == Some(406)
    }

    /// Nothing came in time.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Error::Timeout { .. })
    }

    /// Connecting again may help: nothing here or at the broker needs to be put right first.
    pub fn is_recoverable(&self) -> bool {
        match self {
            Error::Io { .. }
            | Error::Timeout { .. }
            | Error::HeartbeatMissed { .. }
            | Error::Protocol { .. }
            | Error::Lost { .. }
            | Error::Closed { .. } => true,
            // 320 connection-forced: the broker stops or an operator closed it; 541 its own fault.
            Error::ConnectionClosed { code, .. } => matches!(code, 320 | 541),
            _ => false,
        }
    }

    /// Whom it is about, if the error got that far.
    pub fn peer(&self) -> Option<&Peer> {
        match self {
            Error::BadUri { .. } | Error::Unsendable { .. } | Error::Stopped => None,
            Error::Io { peer, .. }
            | Error::Tls { peer, .. }
            | Error::Timeout { peer, .. }
            | Error::NotAmqp { peer, .. }
            | Error::Handshake { peer, .. }
            | Error::AccessRefused { peer, .. }
            | Error::NotAllowed { peer, .. }
            | Error::ChannelClosed { peer, .. }
            | Error::ConnectionClosed { peer, .. }
            | Error::HeartbeatMissed { peer, .. }
            | Error::Protocol { peer, .. }
            | Error::Lost { peer, .. }
            | Error::Closed { peer, .. } => Some(peer),
        }
    }
}

/// An exchange, for a text: the default one has no name.
fn exchange_of(name: &str) -> String {
    match name {
        "" => "the default exchange".to_owned(),
        name => format!("exchange `{name}`"),
    }
}

/// Why a message was not published.
#[non_exhaustive]
#[derive(Clone, Debug, thiserror::Error)]
pub enum PublishError {
    /// A mandatory message reached no queue: the broker gave it back.
    #[error("no queue takes a message for {}, routing key `{routing_key}`: {code} {text}", exchange_of(.exchange))]
    Unroutable {
        /// AMQP's reply code: 312 no route.
        code: u16,
        /// What the broker said.
        text: String,
        /// Where it was published.
        exchange: String,
        /// Its routing key.
        routing_key: String,
    },
    /// The broker could not take charge of the message, e.g. a full queue that rejects.
    #[error(
        "the broker did not accept a message for exchange `{exchange}`, routing key `{routing_key}`; is a queue behind it full?"
    )]
    Nacked {
        /// Where it was published.
        exchange: String,
        /// Its routing key.
        routing_key: String,
    },
    /// The broker refused it and closed the channel (404 no such exchange, 403, 406, ...), refused the connection (login, vhost,
    /// TLS), or it cannot be sent at all. Trying again at once does not help.
    #[error(transparent)]
    Refused(Error),
    /// No broker could be reached, or the connection broke before the broker confirmed: the message may or may not have arrived.
    #[error(transparent)]
    Lost(Error),
}

impl PublishError {
    /// AMQP's reply code, where the broker gave one.
    pub fn reply_code(&self) -> Option<u16> {
        match self {
            PublishError::Unroutable { code, .. } => Some(*code),
            PublishError::Refused(error) | PublishError::Lost(error) => error.reply_code(),
            PublishError::Nacked { .. } => None,
        }
    }

    /// A mandatory message reached no queue.
    pub fn is_unroutable(&self) -> bool {
        matches!(self, PublishError::Unroutable { .. })
    }
}

impl From<Error> for PublishError {
    fn from(error: Error) -> Self {
        if error.is_recoverable() {
            PublishError::Lost(error)
        } else {
            PublishError::Refused(error)
        }
    }
}
