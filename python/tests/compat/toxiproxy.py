"""The subset of Toxiproxy used by upstream's tests, to interrupt connections to the broker.

Its HTTP API creates TCP proxies, enables and disables them, and blocks one direction of their data:
https://github.com/Shopify/toxiproxy#http-api
"""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import threading
from typing import Any


class Toxiproxy:
    """Serves on :attr:`port` of localhost until the process exits."""

    def __init__(self) -> None:
        self._proxies: dict[str, Proxy] = {}
        # The loop of all proxies.
        self._loop = asyncio.new_event_loop()
        toxiproxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                call = toxiproxy.call(self.command, self.path, json.loads(body) if body else {})
                asyncio.run_coroutine_threadsafe(call, toxiproxy._loop).result()
                self.send_response(200)
                self.end_headers()

            do_GET = do_POST = do_DELETE = answer

            def log_message(self, *args) -> None:
                """No access log."""

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port: int = server.server_address[1]
        for run in (self._loop.run_forever, server.serve_forever):
            threading.Thread(target=run, name="toxiproxy", daemon=True).start()

    async def call(self, method: str, path: str, body: Any) -> None:
        """Handles /proxies, /proxies/NAME, /proxies/NAME/toxics and /proxies/NAME/toxics/TOXIC."""
        names = path.strip("/").split("/")[1:]
        if method == "GET":
            return
        if not names:
            proxy = self._proxies[body["name"]] = Proxy(body["listen"], body["upstream"])
            await proxy.enable()
            return
        proxy = self._proxies[names[0]]
        if method == "POST" and len(names) == 1:
            await (proxy.enable() if body["enabled"] else proxy.disable())
        elif method == "POST":
            proxy.hold(body["stream"], body["attributes"]["timeout"] / 1000)
        elif len(names) == 1:
            await self._proxies.pop(names[0]).disable()
        else:
            proxy.release()


class Proxy:
    """A TCP proxy of the broker."""

    def __init__(self, listen: str, upstream: str) -> None:
        self._listen = _address(listen)
        self._upstream = _address(upstream)
        # None while disabled.
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        # The blocked stream, "upstream" or "downstream", and the seconds after which a connection
        # with blocked data is closed; 0 disables that.
        self._held: str | None = None
        self._timeout = 0.0

    async def enable(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._connected, *self._listen)

    async def disable(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for connection in list(self._connections):
            connection.cancel()

    def hold(self, stream: str, timeout: float) -> None:
        self._held, self._timeout = stream, timeout

    def release(self) -> None:
        self._held = None

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        self._connections.add(connection)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                broker_reader, broker_writer = await asyncio.open_connection(*self._upstream)
                try:
                    streams = {
                        asyncio.create_task(self._copy(reader, broker_writer, "upstream")),
                        asyncio.create_task(self._copy(broker_reader, writer, "downstream")),
                    }
                    try:
                        await asyncio.wait(streams, return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        for stream in streams:
                            stream.cancel()
                finally:
                    broker_writer.close()
        finally:
            self._connections.discard(connection)
            writer.close()

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: str
    ) -> None:
        """Copies data until the stream ends or has been blocked for too long."""
        while data := await reader.read(65536):
            if self._held == stream:
                if self._timeout:
                    await asyncio.sleep(self._timeout)
                    return
                continue
            writer.write(data)
            await writer.drain()


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)
