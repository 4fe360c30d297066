//! A service that tells, and one that listens, of a mixed fleet: its twin in Python runs on Nameko 2. Instances of each kind
//! are instances of one service.

use nameko::{amqp::Value as Field, prelude::*};
use serde_json::{Value, json};

/// Where listeners say what they have heard.
const HEARD: &str = "heard_fleet";

fn letters() -> Exchange {
    Exchange::direct("letters_fleet")
}

#[derive(Dependencies)]
struct Teller {
    #[dependency(EventDispatcher::new())]
    events: Dispatcher,
    #[dependency(Publisher::new(letters()).routing_key("letter"))]
    letters: MessagePublisher,
}

#[service("teller_fleet")]
impl Teller {
    #[rpc]
    async fn tell(&self, event_type: String, data: Value) -> Result<()> {
        self.events.dispatch(event_type, &data).await
    }

    #[rpc]
    async fn write(&self, letter: Value) -> Result<()> {
        self.letters.publish(&letter).await
    }
}

#[derive(Dependencies)]
struct Listener {
    #[dependency(CurrentWorker)]
    worker: WorkerContext,
    #[dependency(Publisher::to_queues().declare(HEARD).routing_key(HEARD))]
    heard: MessagePublisher,
}

impl Listener {
    async fn report(&self, what: &str, data: Value) -> Result<()> {
        let language = match self.worker.get("language") {
            Some(Field::String(text)) => Some(text),
            _ => None,
        };
        let report = json!({"kind": "rust", "what": what, "data": data, "language": language});
        self.heard.publish(&report).await
    }
}

#[service("listener_fleet")]
impl Listener {
    #[event_handler("teller_fleet", "pool")]
    async fn on_pool(&self, data: Value) -> Result<()> {
        self.report("pool", data).await
    }

    #[event_handler("teller_fleet", "singleton", handler_type = singleton)]
    async fn on_singleton(&self, data: Value) -> Result<()> {
        self.report("singleton", data).await
    }

    #[event_handler("teller_fleet", "broadcast", handler_type = broadcast, reliable_delivery = false)]
    async fn on_broadcast(&self, data: Value) -> Result<()> {
        self.report("broadcast", data).await
    }

    #[event_handler("teller_fleet", "sort.*", reliable_delivery = false)]
    async fn on_sort(&self, data: Value) -> Result<()> {
        self.report("sort", data).await
    }

    #[consume(Queue::new("letters_fleet").bind(letters(), "letter").max_priority(5))]
    async fn read(&self, letter: Value) -> Result<()> {
        self.report("letter", letter).await
    }
}

fn main() -> ExitCode {
    nameko::main(services![Teller, Listener])
}
