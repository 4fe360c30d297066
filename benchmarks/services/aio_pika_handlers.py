import asyncio
import json
import sys

import aio_pika
import reports
import uvloop


async def handle(message):
    async with message.process():
        reports.handled(json.loads(message.body))


async def main():
    uri, *queues = sys.argv[1:]
    connection = await aio_pika.connect_robust(uri)
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=10)
    exchange = await channel.declare_exchange("bench_source.events", "topic", durable=True)
    for name in queues:
        queue = await channel.declare_queue(name, durable=True)
        await queue.bind(exchange, "happened")
        await queue.consume(handle)
    await asyncio.Event().wait()


uvloop.run(main())
