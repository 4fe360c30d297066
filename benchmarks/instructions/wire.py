"""AMQP 0-9-1 frames, as far as the scripted broker needs them."""

from __future__ import annotations

import asyncio
import struct

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
FRAME_END = b"\xce"
# Content type, encoding, headers, delivery mode, priority, correlation id and reply-to.
REQUEST_PROPERTIES = 0b1111111 << 9


def short_string(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


def short_strings(payload: bytes, offset: int, count: int) -> list[bytes]:
    """Returns consecutive short strings of a payload, with their lengths."""
    strings = []
    for _ in range(count):
        end = offset + 1 + payload[offset]
        strings.append(payload[offset:end])
        offset = end
    return strings


def long_string(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


def table(**values: bytes) -> bytes:
    """Returns a field table of encoded values: `table(product=b"S" + long_string(b"x"))`."""
    return long_string(b"".join(short_string(name) + value for name, value in values.items()))


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + FRAME_END


def method(channel: int, class_id: int, method_id: int, arguments: bytes = b"") -> bytes:
    return frame(METHOD, channel, struct.pack(">HH", class_id, method_id) + arguments)


def content(channel: int, correlation_id: str, body: bytes) -> bytes:
    """Returns the header and the body of a request, with the properties of a Nameko client."""
    stack = long_string(b"S" + long_string(b"standalone.call.7d1f4c52-90ab-4f5e-8a7d-2b6e1c3f9a80"))
    properties = b"".join(
        (
            short_string("application/json"),
            short_string("utf-8"),
            long_string(short_string("nameko.call_id_stack") + b"A" + stack),
            bytes([2, 0]),
            short_string(correlation_id),
            short_string("6f2d8e9a-51c4-4b0c-9d0e-0c5f3a7b1d42"),
        )
    )
    header = struct.pack(">HHQH", 60, 0, len(body), REQUEST_PROPERTIES) + properties
    return frame(HEADER, channel, header) + frame(BODY, channel, body)


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, int, bytes]:
    """Returns the type, the channel and the payload of the next frame."""
    kind, channel, size = struct.unpack(">BHI", await reader.readexactly(7))
    payload = await reader.readexactly(size + 1)
    return kind, channel, payload[:-1]
