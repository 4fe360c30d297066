"""Publishes events with FastStream."""

import load
import uvloop
from faststream.rabbit import ExchangeType, RabbitBroker, RabbitExchange


async def main() -> None:
    options = load.arguments("uri")
    broker = RabbitBroker(options.uri, logger=None)
    await broker.connect()
    exchange = RabbitExchange(load.EXCHANGE, type=ExchangeType.TOPIC, durable=True)
    publish = broker.publisher(
        exchange=exchange, routing_key=load.EVENT, persist=True, mandatory=False
    )
    await broker.start()
    await load.measure_async(options, lambda: publish.publish(load.BODY))
    await broker.stop()


uvloop.run(main())
