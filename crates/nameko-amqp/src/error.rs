//! Errors of connections, channels and publishes.

use std::{fmt, io, sync::Arc, time::Duration};

use crate::peer::Peer;

/// An error of a connection or channel. Cheap to clone, since one lost connection fails many calls.
#[non_exhaustive]
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A URI cannot be parsed.
    #[error("bad AMQP URI `{uri}`: {reason}; expected amqp://user:password@host:port/vhost")]
    BadUri {
        /// The URI, with the password redacted.
        uri: String,
        /// The part that cannot be parsed.
        reason: String,
    },
    /// The TCP connection failed.
    #[error(
        "cannot connect to {peer}: {source}; is a broker running there, and are host and port right?"
    )]
    Io {
        /// Address and user of the connection.
        peer: Peer,
        /// Error of the operating system.
        source: Arc<io::Error>,
    },
    /// TLS failed: a file or certificate is unusable, the server has no TLS on that port, or this
    /// crate was built without the feature `tls`.
    #[error("TLS with {peer} failed: {reason}")]
    Tls {
        /// Address and user of the connection.
        peer: Peer,
        /// The cause, and what to do about it.
        reason: String,
    },
    /// The broker did not answer in time.
    #[error(
        "no answer from {peer} within {after:?} while {doing}; is that an AMQP broker, and does the network let it through?"
    )]
    Timeout {
        /// Address and user of the connection.
        peer: Peer,
        /// The timeout.
        after: Duration,
        /// The step that timed out, such as "connecting".
        doing: &'static str,
    },
    /// The broker accepts no messages (`connection.blocked`), short of memory or disk space.
    #[error(
        "{peer} accepts no messages: {reason}; waited {waited:?} for it to free memory or disk space"
    )]
    Blocked {
        /// Address and user of the connection.
        peer: Peer,
        /// Reason given by the broker, such as "low on memory".
        reason: String,
        /// Time that the publish waited.
        waited: Duration,
    },
    /// The server does not speak AMQP.
    #[error("{peer} does not speak AMQP, it sent {read}; check host and port")]
    NotAmqp {
        /// Address and user of the connection.
        peer: Peer,
        /// The beginning of its answer, quoted, with the name of the protocol if known.
        read: String,
    },
    /// The handshake failed: version, login method or limits are incompatible.
    #[error("AMQP handshake with {peer} failed: {reason}")]
    Handshake {
        /// Address and user of the connection.
        peer: Peer,
        /// The incompatibility.
        reason: String,
    },
    /// The broker refused user and password, or the client certificate.
    #[error(
        "{peer} refused the login: {text}; check user and password in the AMQP URI, or the client certificate"
    )]
    AccessRefused {
        /// Address and user of the connection.
        peer: Peer,
        /// Reply text of the broker.
        text: String,
    },
    /// The virtual host does not exist, or the user may not use it.
    #[error(
        "{peer} does not let this user use this vhost: {text}; check the vhost in the AMQP URI and the user's permissions on it"
    )]
    NotAllowed {
        /// Address and user of the connection.
        peer: Peer,
        /// Reply text of the broker.
        text: String,
    },
    /// The broker closed the channel because of an invalid request. Other channels stay open.
    #[error("{peer} refused{}: {code} {text}{}", On(*class, *method), advice(*code, *class, *method, text))]
    ChannelClosed {
        /// Address and user of the connection.
        peer: Peer,
        /// AMQP reply code, such as 404.
        code: u16,
        /// Reply text of the broker.
        text: String,
        /// Class id of the refused method, 0 if none.
        class: u16,
        /// Method id of the refused method, 0 if none.
        method: u16,
    },
    /// The broker closed the connection.
    #[error("{peer} closed the connection{}: {code} {text}", On(*class, *method))]
    ConnectionClosed {
        /// Address and user of the connection.
        peer: Peer,
        /// AMQP reply code, such as 320.
        code: u16,
        /// Reply text of the broker.
        text: String,
        /// Class id of the refused method, 0 if none.
        class: u16,
        /// Method id of the refused method, 0 if none.
        method: u16,
    },
    /// The broker sent nothing, or read nothing, for two heartbeat intervals.
    #[error("lost {peer}: no heartbeat for {silent:?}; the broker hangs, or the network is down")]
    HeartbeatMissed {
        /// Address and user of the connection.
        peer: Peer,
        /// Two heartbeat intervals.
        silent: Duration,
    },
    /// The broker violated the AMQP protocol. The connection is closed.
    #[error("{peer} violated the AMQP protocol: {reason}; the connection was closed")]
    Protocol {
        /// Address and user of the connection.
        peer: Peer,
        /// The violation.
        reason: String,
    },
    /// The connection was lost.
    #[error("lost the connection to {peer}: {reason}")]
    Lost {
        /// Address and user of the connection.
        peer: Peer,
        /// The cause, such as "connection closed by peer".
        reason: String,
    },
    /// This side has closed the connection or channel.
    #[error("the {what} to {peer} is closed")]
    Closed {
        /// Address and user of the connection.
        peer: Peer,
        /// "connection" or "channel".
        what: &'static str,
    },
    /// AMQP cannot carry a name, a header or a message, or all channels are in use. Nothing was
    /// sent.
    #[error("cannot be sent over AMQP: {reason}")]
    Unsendable {
        /// The cause.
        reason: String,
    },
    /// The consumers were stopped before they were connected.
    #[error("stopped before the broker could be reached")]
    Stopped,
}

/// Displays the name of a method by the class and method ids of a close, with a leading space.
struct On(u16, u16);

impl fmt::Display for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Class and method ids: AMQP 0-9-1 reference, including RabbitMQ's extensions.
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

/// Returns advice on a channel closed by the broker, where its reply text does not suffice.
fn advice(code: u16, class: u16, method: u16, text: &str) -> &'static str {
    if max_message_size(code, text).is_some() {
        return "; send less, or raise `max_message_size` in rabbitmq.conf";
    }
    let differs = text.contains("inequivalent arg");
    match (code, class, method) {
        (406, 50, 10) if differs => {
            "; `received` is how it is declared here, `current` how the broker has it: declare it as the broker has it, \
             or delete the queue so that it is made anew"
        }
        (406, 40, 10) if differs => {
            "; `received` is how it is declared here, `current` how the broker has it: declare it as the broker has it, \
             or delete the exchange so that it is made anew"
        }
        (404, 60, 40) => {
            "; is the name right, and is the program running that declares the exchange?"
        }
        _ => "",
    }
}

/// Returns the broker's limit of a message in bytes, if `text` says that a message exceeded it.
fn max_message_size(code: u16, text: &str) -> Option<u64> {
    let sizes = text.split_once("message size ").filter(|_| code == 406)?.1;
    let (_, limit) = sizes.split_once(" is larger than ")?;
    limit.rsplit(' ').next()?.parse().ok()
}

impl Error {
    /// Returns the broker's limit of a message in bytes, if the channel was closed by a message
    /// that exceeded it.
    pub(crate) fn max_message_size(&self) -> Option<u64> {
        match self {
            Error::ChannelClosed { code, text, .. } => max_message_size(*code, text),
            _ => None,
        }
    }

    /// Returns the AMQP reply code, if the broker sent one: 404 not found, 406 precondition failed,
    /// ...
    pub fn reply_code(&self) -> Option<u16> {
        match self {
            Error::ChannelClosed { code, .. } | Error::ConnectionClosed { code, .. } => Some(*code),
            Error::AccessRefused { .. } => Some(403),
            Error::NotAllowed { .. } => Some(530),
            _ => None,
        }
    }

    /// Returns whether an exchange, queue or other entity is missing (404).
    pub fn is_not_found(&self) -> bool {
        self.reply_code() == Some(404)
    }

    /// Returns whether an entity exists with other arguments, or a property is not allowed (406).
    pub fn is_precondition_failed(&self) -> bool {
        self.reply_code() == Some(406)
    }

    /// Returns whether the broker did not answer in time.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Error::Timeout { .. })
    }

    /// Returns whether reconnecting may help, without a change to the configuration first.
    pub fn is_recoverable(&self) -> bool {
        match self {
            Error::Io { .. }
            | Error::Timeout { .. }
            | Error::Blocked { .. }
            | Error::HeartbeatMissed { .. }
            | Error::Protocol { .. }
            | Error::Lost { .. }
            | Error::Closed { .. } => true,
            // 320 connection-forced: the broker stops, or an operator closed it; 541
            // internal-error.
            Error::ConnectionClosed { code, .. } => matches!(code, 320 | 541),
            _ => false,
        }
    }

    /// Returns the address and user of the connection, if the error belongs to one.
    pub fn peer(&self) -> Option<&Peer> {
        match self {
            Error::BadUri { .. } | Error::Unsendable { .. } | Error::Stopped => None,
            Error::Io { peer, .. }
            | Error::Tls { peer, .. }
            | Error::Timeout { peer, .. }
            | Error::Blocked { peer, .. }
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

/// Returns the name of an exchange for a message. The default exchange has none.
fn describe_exchange(name: &str) -> String {
    match name {
        "" => "the default exchange".to_owned(),
        name => format!("exchange `{name}`"),
    }
}

/// An error of a publish.
#[non_exhaustive]
#[derive(Clone, Debug, thiserror::Error)]
pub enum PublishError {
    /// The broker returned a mandatory message that no queue takes.
    #[error("no queue takes a message for {}, routing key `{routing_key}`: {code} {text}", describe_exchange(.exchange))]
    Unroutable {
        /// AMQP reply code: 312 no route.
        code: u16,
        /// Reply text of the broker.
        text: String,
        /// Exchange that it was published to.
        exchange: String,
        /// Routing key.
        routing_key: String,
    },
    /// The broker did not accept the message (`basic.nack`), for example for a full queue.
    #[error(
        "the broker did not accept a message for exchange `{exchange}`, routing key `{routing_key}`; is a queue behind it full?"
    )]
    Nacked {
        /// Exchange that it was published to.
        exchange: String,
        /// Routing key.
        routing_key: String,
    },
    /// The broker refused the message and closed the channel (404 missing exchange, 403, 406, ...)
    /// or refused the connection (login, vhost, TLS), or AMQP cannot carry the message. An
    /// immediate retry does not help.
    #[error(transparent)]
    Refused(Error),
    /// No broker could be reached, or the connection was lost before the confirm. The message may
    /// or may not have arrived.
    #[error(transparent)]
    Lost(Error),
}

impl PublishError {
    /// Returns the AMQP reply code, if the broker sent one.
    pub fn reply_code(&self) -> Option<u16> {
        match self {
            PublishError::Unroutable { code, .. } => Some(*code),
            PublishError::Refused(error) | PublishError::Lost(error) => error.reply_code(),
            PublishError::Nacked { .. } => None,
        }
    }

    /// Returns whether a mandatory message was returned.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_different_declaration_is_explained_as_one() {
        let advised = |text| !advice(406, 40, 10, text).is_empty();
        assert!(advised(
            "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'x' in vhost '/': received 'direct' but current is 'topic'"
        ));
        // RabbitMQ 4 has the same code for it, RabbitMQ 3 has 503.
        assert!(!advised(
            "PRECONDITION_FAILED - unknown exchange type 'odd'"
        ));
    }

    #[test]
    fn the_limit_of_a_message_is_read_from_the_texts_of_rabbitmq() {
        for (text, limit) in [
            (
                "PRECONDITION_FAILED - message size 20000000 is larger than configured max size 16777216",
                Some(16_777_216),
            ),
            (
                "PRECONDITION_FAILED - message size 600000000 is larger than max size 536870912",
                Some(536_870_912),
            ),
            ("PRECONDITION_FAILED - unknown delivery tag 1", None),
        ] {
            assert_eq!(max_message_size(406, text), limit);
        }
        assert_eq!(
            max_message_size(404, "message size 2 is larger than 1"),
            None
        );
    }
}
