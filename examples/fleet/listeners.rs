//! A sender and a listener of a mixed fleet. `listeners.py` implements the same services in Python,
//! also for Nameko 2; instances in both languages belong to the same service.

use nameko::{amqp::Value as Field, prelude::*};
use serde_json::{Value, json};

/// The queue of the listeners' reports.
const REPORTS: &str = "reports_fleet";

fn letters() -> Exchange {
    Exchange::direct("letters_fleet")
}

#[derive(Dependencies)]
struct Sender {
    #[dependency(EventDispatcher::new())]
    events: Dispatcher,
    #[dependency(Publisher::new(letters()).routing_key("letter"))]
    letters: MessagePublisher,
}

#[service("sender_fleet")]
impl Sender {
    #[rpc]
    async fn dispatch(&self, event_type: String, data: Value) -> Result<()> {
        self.events.dispatch(event_type, &data).await
    }

    #[rpc]
    async fn publish(&self, letter: Value) -> Result<()> {
        self.letters.publish(&letter).await
    }
}

#[derive(Dependencies)]
struct Listener {
    #[dependency(CurrentWorker)]
    worker: WorkerContext,
    #[dependency(Publisher::to_queues().declare(REPORTS).routing_key(REPORTS))]
    reports: MessagePublisher,
}

impl Listener {
    async fn report(&self, handler: &str, data: Value) -> Result<()> {
        let language = match self.worker.get("language") {
            Some(Field::String(text)) => Some(text),
            _ => None,
        };
        let report =
            json!({"kind": "rust", "handler": handler, "data": data, "language": language});
        self.reports.publish(&report).await
    }
}

#[service("listener_fleet")]
impl Listener {
    #[event_handler("sender_fleet", "pool")]
    async fn on_pool(&self, data: Value) -> Result<()> {
        self.report("pool", data).await
    }

    #[event_handler("sender_fleet", "singleton", handler_type = singleton)]
    async fn on_singleton(&self, data: Value) -> Result<()> {
        self.report("singleton", data).await
    }

    #[event_handler("sender_fleet", "broadcast", handler_type = broadcast, reliable_delivery = false)]
    async fn on_broadcast(&self, data: Value) -> Result<()> {
        self.report("broadcast", data).await
    }

    #[event_handler("sender_fleet", "sort.*", reliable_delivery = false)]
    async fn on_sort(&self, data: Value) -> Result<()> {
        self.report("sort", data).await
    }

    #[consume(Queue::new("letters_fleet").bind(letters(), "letter").max_priority(5))]
    async fn read(&self, letter: Value) -> Result<()> {
        self.report("letter", letter).await
    }
}

fn main() -> ExitCode {
    nameko::main(services![Sender, Listener])
}
