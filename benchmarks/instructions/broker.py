"""A scripted broker: completes the start of one service, then sends it requests in rounds.

A round is one write of requests. The next one follows after all replies, their confirms, also one
write, and all acknowledgements. Unlike with a real broker, the reads of the service do not depend
on timing, nor do the instructions for them.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

import wire

ANSWERS = {
    # connection.start-ok -> tune: 2047 channels, frames of 128 KiB, no heartbeats.
    (10, 11): (10, 30, struct.pack(">HIH", 2047, 131072, 0)),
    (10, 31): None,
    (10, 40): (10, 41, wire.short_string("")),
    (10, 50): (10, 51, b""),
    (20, 10): (20, 11, wire.long_string(b"")),
    (20, 40): (20, 41, b""),
    (40, 10): (40, 11, b""),
    # queue.declare-ok: clients that named the queue ignore the name here.
    (50, 10): (50, 11, wire.short_string("rpc-instructions") + struct.pack(">II", 0, 0)),
    (50, 20): (50, 21, b""),
    (60, 10): (60, 11, b""),
    (85, 10): (85, 11, b""),
}
CONSUME, PUBLISH, ACK = (60, 20), (60, 40), (60, 80)
SUCCESS = b'"error":null'


class ScriptedBroker:
    """Serves the connections of one service."""

    def __init__(self) -> None:
        # The connection, the channel and the tag of the consumer.
        self.consumer: tuple[asyncio.StreamWriter, int, bytes] | None = None
        self.sent = 0
        self.acknowledged = 0
        # Replies on the latest publishing channel, all of them confirmed in batches.
        self.replied = 0
        self.changed = asyncio.Condition()
        self.failure = ""

    async def start(self) -> int:
        """Listens on a free port and returns it."""
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        return int(self.server.sockets[0].getsockname()[1])

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self.connection(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(b"AMQP\x00\x00\x09\x01"))
        flags = ("publisher_confirms", "basic.nack", "consumer_cancel_notify", "connection.blocked")
        capabilities = wire.table(**dict.fromkeys(flags, b"t\x01"))
        properties = wire.table(
            product=b"S" + wire.long_string(b"script"), capabilities=b"F" + capabilities
        )
        mechanisms = wire.long_string(b"PLAIN") + wire.long_string(b"en_US")
        writer.write(wire.method(0, 10, 10, b"\x00\x09" + properties + mechanisms))
        while True:
            kind, channel, payload = await wire.read_frame(reader)
            if kind == wire.METHOD:
                await self.method(writer, channel, payload)
            elif kind == wire.BODY:
                await self.reply(writer, channel, payload)

    async def method(self, writer: asyncio.StreamWriter, channel: int, payload: bytes) -> None:
        name = struct.unpack_from(">HH", payload)
        if name == ACK:
            tag, multiple = struct.unpack_from(">Q?", payload, 4)
            async with self.changed:
                self.acknowledged = tag if multiple else self.acknowledged + 1
                self.changed.notify_all()
        elif name in ANSWERS:
            answer = ANSWERS[name]
            if answer is not None:
                writer.write(wire.method(channel, *answer))
        elif name == CONSUME:
            # The arguments are a reserved number, the queue and the tag.
            _, tag = wire.short_strings(payload, 6, 2)
            writer.write(wire.method(channel, 60, 21, tag))
            async with self.changed:
                self.consumer = (writer, channel, tag)
                self.changed.notify_all()
        elif name != PUBLISH:
            await self.fail("unexpected method {} from the service".format(name))

    async def reply(self, writer: asyncio.StreamWriter, channel: int, body: bytes) -> None:
        if SUCCESS not in body.replace(b" ", b""):
            await self.fail("unexpected reply {!r} from the service".format(body))
        async with self.changed:
            self.replied += 1
            if self.replied == self.sent:
                confirm = struct.pack(">Q?", self.replied, True)
                writer.write(wire.method(channel, *ACK, confirm))

    async def fail(self, reason: str) -> None:
        async with self.changed:
            self.failure = reason
            self.changed.notify_all()

    async def ready(self) -> None:
        """Waits for the consumer of the service."""
        await self.until(lambda: self.consumer is not None)

    async def call(self, method: str, calls: int, in_flight: int = 1) -> None:
        """Calls a method of the service, in rounds of `in_flight` requests."""
        assert self.consumer is not None
        writer, channel, tag = self.consumer
        for _ in range(calls // in_flight):
            requests = [self.request(channel, tag, method) for _ in range(in_flight)]
            writer.write(b"".join(requests))
            await self.until(lambda: self.acknowledged == self.sent)

    def request(self, channel: int, tag: bytes, method: str) -> bytes:
        self.sent += 1
        deliver = (
            tag,
            struct.pack(">Q?", self.sent, False),
            wire.short_string("nameko-rpc"),
            wire.short_string("instructions." + method),
        )
        correlation_id = "5b0c9f3e-8d12-4c47-a0de-{:012x}".format(self.sent)
        body = b'{"args": [], "kwargs": {"name": "zq"}}'
        return wire.method(channel, 60, 60, b"".join(deliver)) + wire.content(
            channel, correlation_id, body
        )

    async def until(self, condition: Callable[[], bool]) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: self.failure or condition())
        if self.failure:
            raise RuntimeError(self.failure)
