"""Calls a service with FastStream."""

import load
import uvloop
from faststream.rabbit import ExchangeType, RabbitBroker, RabbitExchange

REQUEST = {"args": ["zq"], "kwargs": {}}


async def main() -> None:
    options = load.arguments("uri", "service")
    broker = RabbitBroker(options.uri, logger=None)
    exchange = RabbitExchange("nameko-rpc", type=ExchangeType.TOPIC, durable=True)
    publisher = broker.publisher(
        exchange=exchange, routing_key=options.service + ".hello", persist=True
    )
    await broker.start()

    async def call() -> None:
        reply = await publisher.request(REQUEST, timeout=10)
        assert (await reply.decode())["result"] == load.GREETING

    await load.measure_async(options, call)
    await broker.stop()


uvloop.run(main())
