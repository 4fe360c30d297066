"""Calls a service with aio-pika: a reply queue and a table of waiting calls."""

import asyncio
import json
import uuid

import aio_pika
import load
import uvloop

REQUEST = {"args": ["zq"], "kwargs": {}}


async def main() -> None:
    options = load.arguments("uri", "service")
    connection = await aio_pika.connect_robust(options.uri)
    async with connection:
        channel = await connection.channel(publisher_confirms=False)
        exchange = await channel.declare_exchange("nameko-rpc", "topic", durable=True)
        replies = await channel.declare_queue(exclusive=True)
        await replies.bind(exchange, replies.name)
        waiting: dict[str, asyncio.Future] = {}

        def on_reply(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            waiting.pop(message.correlation_id).set_result(json.loads(message.body))

        await replies.consume(on_reply, no_ack=True)

        async def call() -> None:
            correlation_id = str(uuid.uuid4())
            reply = waiting[correlation_id] = asyncio.get_running_loop().create_future()
            message = aio_pika.Message(
                json.dumps(REQUEST).encode(),
                content_type="application/json",
                content_encoding="utf-8",
                correlation_id=correlation_id,
                reply_to=replies.name,
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            )
            await exchange.publish(message, routing_key=options.service + ".hello")
            assert (await reply)["result"] == load.GREETING

        await load.measure_async(options, call)


uvloop.run(main())
