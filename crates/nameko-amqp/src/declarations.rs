//! Exchanges and queues that a publisher declares once per connection.

use std::sync::{Mutex, Weak};

use crate::{
    connection::Connection,
    connection_state::ConnectionState,
    error::Error,
    sync::lock,
    topology::{Exchange, Queue},
};

/// Exchanges and queues that a [`Publisher`](crate::Publisher) declares before it publishes, once
/// on each connection, so that they also exist on a broker that was restarted or replaced.
///
/// A queue that the broker may delete by itself (`auto_delete`, `x-expires`) is declared before
/// each message. So is an `auto_delete` exchange for unconfirmed messages; with confirms, a message
/// to a missing exchange fails and is published again after declaring it.
#[derive(Debug, Default)]
pub struct Declarations {
    exchanges: Vec<Exchange>,
    queues: Vec<Queue>,
    /// Connection of the last declaration.
    declared_on: Mutex<Weak<ConnectionState>>,
}

impl Declarations {
    /// Creates declarations of `exchanges`, then of `queues` with their bindings.
    pub fn new(exchanges: Vec<Exchange>, queues: Vec<Queue>) -> Self {
        Self {
            exchanges,
            queues,
            declared_on: Mutex::default(),
        }
    }

    /// Returns whether there is nothing to declare.
    pub(crate) fn is_empty(&self) -> bool {
        self.queues.is_empty() && !self.exchanges.iter().any(Exchange::is_declarable)
    }

    /// Returns whether a part may vanish without the publisher noticing, and is declared each time,
    /// as kombu does. A missing exchange is noticed by the reply to a `confirmed` message.
    pub(crate) fn can_vanish_unnoticed(&self, confirmed: bool) -> bool {
        let can_vanish = |queue: &Queue| queue.auto_delete || queue.arguments.contains("x-expires");
        self.queues.iter().any(can_vanish)
            || !confirmed && self.exchanges.iter().any(|exchange| exchange.auto_delete)
    }

    /// Returns whether they were declared on this connection.
    pub(crate) fn is_declared_on(&self, connection: &Connection) -> bool {
        lock(&self.declared_on).ptr_eq(&connection.identity())
    }

    /// Declares them and records the connection.
    pub(crate) async fn declare_on(&self, connection: &Connection) -> Result<(), Error> {
        declare(connection, &self.exchanges, &self.queues).await?;
        *lock(&self.declared_on) = connection.identity();
        Ok(())
    }

    /// Marks them as not declared.
    pub(crate) fn reset(&self) {
        *lock(&self.declared_on) = Weak::new();
    }
}

/// Declares exchanges and queues on a channel of its own, since a refusal closes the channel.
pub(crate) async fn declare(
    connection: &Connection,
    exchanges: &[Exchange],
    queues: &[Queue],
) -> Result<(), Error> {
    let channel = connection.channel().await?;
    for exchange in exchanges {
        channel.exchange_declare(exchange).await?;
    }
    for queue in queues {
        channel.declare_with_bindings(queue).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn declarations_that_can_vanish_unnoticed_are_declared_each_time() {
        let exchange = |exchange: Exchange| Declarations::new(vec![exchange], Vec::new());
        let queue = |queue: Queue| Declarations::new(Vec::new(), vec![queue]);
        let auto_delete = Exchange::topic("shop.events").auto_delete(true);
        let expiring = Queue::new("q").expires(Duration::from_secs(1));
        for (declarations, confirmed, vanishes) in [
            (exchange(Exchange::topic("shop.events")), false, false),
            (exchange(auto_delete.clone()), true, false),
            (exchange(auto_delete), false, true),
            (queue(Queue::new("q")), false, false),
            (queue(Queue::new("q").auto_delete(true)), true, true),
            (queue(expiring), true, true),
        ] {
            assert_eq!(
                declarations.can_vanish_unnoticed(confirmed),
                vanishes,
                "{declarations:?}"
            );
        }
    }
}
