"""A service that tells, and one that listens, of a mixed fleet: its twin in Rust lies beside it.

Instances of each kind are instances of one service.
"""

import os

from kombu import Exchange, Queue

from nameko.events import BROADCAST, SINGLETON, EventDispatcher, event_handler
from nameko.extensions import DependencyProvider
from nameko.messaging import Publisher, consume
from nameko.rpc import rpc

KIND = os.environ["FLEET"]
# Where listeners say what they have heard.
HEARD = Queue("heard_fleet")
LETTERS = Exchange("letters_fleet", type="direct")
TELLER = "teller_fleet"


class CurrentWorker(DependencyProvider):
    def get_dependency(self, worker_ctx):
        return worker_ctx


class Teller:
    name = TELLER

    dispatch = EventDispatcher()
    publish = Publisher(exchange=LETTERS, routing_key="letter")

    @rpc
    def tell(self, event_type, data):
        self.dispatch(event_type, data)

    @rpc
    def write(self, letter):
        self.publish(letter)


class Listener:
    name = "listener_fleet"

    worker = CurrentWorker()
    publish = Publisher(declare=[HEARD], routing_key=HEARD.name)

    def report(self, what, data):
        language = self.worker.data.get("language")
        self.publish({"kind": KIND, "what": what, "data": data, "language": language})

    @event_handler(TELLER, "pool")
    def on_pool(self, data):
        self.report("pool", data)

    @event_handler(TELLER, "singleton", handler_type=SINGLETON)
    def on_singleton(self, data):
        self.report("singleton", data)

    @event_handler(TELLER, "broadcast", handler_type=BROADCAST, reliable_delivery=False)
    def on_broadcast(self, data):
        self.report("broadcast", data)

    @event_handler(TELLER, "sort.*", reliable_delivery=False)
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
