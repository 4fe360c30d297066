"""A TLS gateway for brokers without TLS, with client certificates.

RabbitMQ requires a plugin and settings for logins by certificate (EXTERNAL). The gateway supports
them for any broker: it offers the mechanism, and logs in by password for clients with a
certificate.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
import threading
from pathlib import Path
from urllib.parse import urlsplit

import trustme

# AMQP 0-9-1 frame: type, channel, length, payload, and the frame-end octet 206.
_FRAME_HEADER = struct.Struct(">BHI")
_FRAME_END = b"\xce"


def write_certificates(folder: Path) -> ssl.SSLContext:
    """Writes the files of clients, named as upstream's plugin expects, and returns the server's
    context."""
    folder.mkdir(exist_ok=True)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "cacert.pem")
    client = authority.issue_cert("client@example.org")
    client.cert_chain_pems[0].write_to_path(folder / "clientcert.pem")
    client.private_key_pem.write_to_path(folder / "clientkey.pem")

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


class Gateway:
    """Listens on ``port`` of localhost until the process exits."""

    port: int

    def __init__(self, amqp_uri: str, context: ssl.SSLContext) -> None:
        uri = urlsplit(amqp_uri)
        self._broker = (uri.hostname, uri.port or 5672)
        self._login = "\0{}\0{}".format(uri.username or "guest", uri.password or "guest").encode()
        self._context = context
        listening = threading.Event()
        threading.Thread(
            target=lambda: asyncio.run(self._serve(listening)), name="tls-gateway", daemon=True
        ).start()
        listening.wait()

    async def _serve(self, listening: threading.Event) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self._context)
        self.port = server.sockets[0].getsockname()[1]
        listening.set()
        await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            from_broker, to_broker = await asyncio.open_connection(*self._broker)
            try:
                to_broker.write(await reader.readexactly(8))  # the protocol header
                writer.write(_offer_external(await _read_frame(from_broker)))
                start_ok = await _read_frame(reader)
                if writer.get_extra_info("peercert"):
                    start_ok = _log_in(start_ok, self._login)
                to_broker.write(start_ok)
                await asyncio.gather(_copy(reader, to_broker), _copy(from_broker, writer))
            finally:
                to_broker.close()
        writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    header = await reader.readexactly(_FRAME_HEADER.size)
    return header + await reader.readexactly(_FRAME_HEADER.unpack(header)[2] + 1)


def _offer_external(start: bytes) -> bytes:
    """Adds EXTERNAL to the mechanisms of connection.start."""
    # Payload: class, method, version, the server properties, the mechanisms.
    table = _FRAME_HEADER.size + 6
    mechanisms = table + 4 + struct.unpack_from(">I", start, table)[0]
    (length,) = struct.unpack_from(">I", start, mechanisms)
    names = start[mechanisms + 4 : mechanisms + 4 + length] + b" EXTERNAL"
    return _frame(
        start[:mechanisms] + _long(names) + start[mechanisms + 4 + length : -1],
    )


def _log_in(start_ok: bytes, login: bytes) -> bytes:
    """Replaces EXTERNAL by PLAIN in connection.start-ok."""
    # Payload: class, method, the client properties, the mechanism, its response.
    table = _FRAME_HEADER.size + 4
    mechanism = table + 4 + struct.unpack_from(">I", start_ok, table)[0]
    name_end = mechanism + 1 + start_ok[mechanism]
    if start_ok[mechanism + 1 : name_end] != b"EXTERNAL":
        return start_ok
    (length,) = struct.unpack_from(">I", start_ok, name_end)
    return _frame(
        start_ok[:mechanism] + b"\x05PLAIN" + _long(login) + start_ok[name_end + 4 + length : -1]
    )


def _long(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


def _frame(frame: bytes) -> bytes:
    """Completes a modified frame without its end: sets the length and appends the end."""
    kind, channel, _ = _FRAME_HEADER.unpack_from(frame)
    payload = frame[_FRAME_HEADER.size :]
    return _FRAME_HEADER.pack(kind, channel, len(payload)) + payload + _FRAME_END
