"""A sender and a listener of a mixed fleet, also for Nameko 2.

``listeners.rs`` implements the same services in Rust; instances in both languages belong to the
same service.
"""

import os

from kombu import Exchange, Queue

from nameko.events import BROADCAST, SINGLETON, EventDispatcher, event_handler
from nameko.extensions import DependencyProvider
from nameko.messaging import Publisher, consume
from nameko.rpc import rpc

KIND = os.environ["FLEET"]
# The queue of the listeners' reports.
REPORTS = Queue("reports_fleet")
LETTERS = Exchange("letters_fleet", type="direct")
SENDER = "sender_fleet"


class CurrentWorker(DependencyProvider):
    def get_dependency(self, worker_ctx):
        return worker_ctx


class Sender:
    name = SENDER

    dispatch_event = EventDispatcher()
    publish_letter = Publisher(exchange=LETTERS, routing_key="letter")

    @rpc
    def dispatch(self, event_type, data):
        self.dispatch_event(event_type, data)

    @rpc
    def publish(self, letter):
        self.publish_letter(letter)


class Listener:
    name = "listener_fleet"

    worker = CurrentWorker()
    publish = Publisher(declare=[REPORTS], routing_key=REPORTS.name)

    def report(self, handler, data):
        language = self.worker.data.get("language")
        self.publish({"kind": KIND, "handler": handler, "data": data, "language": language})

    @event_handler(SENDER, "pool")
    def on_pool(self, data):
        self.report("pool", data)

    @event_handler(SENDER, "singleton", handler_type=SINGLETON)
    def on_singleton(self, data):
        self.report("singleton", data)

    @event_handler(SENDER, "broadcast", handler_type=BROADCAST, reliable_delivery=False)
    def on_broadcast(self, data):
        self.report("broadcast", data)

    @event_handler(SENDER, "sort.*", reliable_delivery=False)
    def on_sort(self, data):
        self.report("sort", data)

    @consume(
        Queue(
            "letters_fleet",
            exchange=LETTERS,
            routing_key="letter",
            queue_arguments={"x-max-priority": 5},
        )
    )
    def read(self, letter):
        self.report("letter", letter)
