"""Publishes events with aio-pika."""

import json

import aio_pika
import load
import uvloop


async def main() -> None:
    options = load.arguments("uri")
    connection = await aio_pika.connect_robust(options.uri)
    async with connection:
        channel = await connection.channel(publisher_confirms=True)
        exchange = await channel.get_exchange(load.EXCHANGE)

        async def publish() -> None:
            message = aio_pika.Message(
                json.dumps(load.BODY).encode(),
                content_type="application/json",
                content_encoding="utf-8",
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            )
            await exchange.publish(message, routing_key=load.EVENT, mandatory=False)

        await load.measure_async(options, publish)


uvloop.run(main())
