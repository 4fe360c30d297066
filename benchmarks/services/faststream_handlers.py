import asyncio
import sys

import reports
import uvloop
from faststream.rabbit import Channel, ExchangeType, RabbitBroker, RabbitExchange, RabbitQueue


async def main():
    uri, *queues = sys.argv[1:]
    broker = RabbitBroker(uri, default_channel=Channel(prefetch_count=10), logger=None)
    exchange = RabbitExchange("bench_source.events", type=ExchangeType.TOPIC, durable=True)

    async def handle(text: str):
        reports.handled(text)

    for queue in queues:
        durable = RabbitQueue(queue, durable=True, routing_key="happened")
        broker.subscriber(durable, exchange)(handle)
    await broker.start()
    await asyncio.Event().wait()


uvloop.run(main())
