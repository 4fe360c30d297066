import reports
from kombu import Queue

from nameko.events import event_handler
from nameko.messaging import consume


class Messages:
    name = "bench_messages"

    @event_handler("bench_source", "happened")
    async def handle(self, text):
        reports.handled(text)

    @consume(Queue("bench_messages"))
    async def consume(self, text):
        reports.handled(text)
