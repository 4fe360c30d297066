"""Pending replies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from logging import getLogger
from typing import Any

from kombu.serialization import registry

from nameko import _nameko, loop, serialization
from nameko.amqp.errors import UndeliverableMessage, translate
from nameko.exceptions import RpcTimeout, UnknownService, deserialize
from nameko.utils import green
from nameko.utils.threads import Event

_log = getLogger("nameko.rpc")


class RpcReply:
    """A pending reply: ``await`` it, or call :meth:`result`."""

    resp_body: Any = None

    def __init__(
        self, reply_event: Any, service_name: str = "", correlation_id: str | None = None
    ) -> None:
        self.reply_event = reply_event
        self.service_name = service_name
        self.correlation_id = correlation_id

    def result(self) -> Any:
        """Waits for the reply. Returns the result of the method or raises its exception.

        May be called repeatedly.
        """
        if self.resp_body is None:
            self.resp_body = self.get_response()
        return self._result()

    def get_response(self) -> Any:
        """Waits for the reply and returns its body, a dict with `result` and `error`."""
        _log.debug("Waiting for RPC reply event %s", self)
        try:
            return self.reply_event.wait()
        except UndeliverableMessage:
            raise UnknownService(self.service_name) from None

    def __await__(self) -> Generator[Any, None, Any]:
        return self._wait_async().__await__()

    async def _wait_async(self) -> Any:
        if self.resp_body is None:
            if isinstance(self.reply_event, ReplyEvent):
                try:
                    self.resp_body = await self.reply_event.wait_async()
                except UndeliverableMessage:
                    raise UnknownService(self.service_name) from None
            else:
                running = asyncio.get_running_loop()
                self.resp_body = await running.run_in_executor(None, self.reply_event.wait)
        return self._result()

    def _result(self) -> Any:
        body = self.resp_body
        try:
            error = body.get("error")
            if not error:
                return body["result"]
        except (AttributeError, KeyError):
            raise ValueError(
                "the reply is not an object with `result` and `error`: {!r:.100}".format(body)
            ) from None
        raise deserialize(error)


class ReplyEvent:
    """A pending reply that the compiled half matches."""

    __slots__ = ("_accept", "pending", "timeout")

    def __init__(self, pending: _nameko.Pending, timeout: float | None, accept: Acceptable) -> None:
        self.pending = pending
        self.timeout = timeout
        self._accept = accept

    def ready(self) -> bool:
        return self.pending.done()

    def wait(self) -> Any:
        """Returns the body of the reply.

        Raises RpcTimeout after ``timeout`` seconds, and the exceptions of publishing if the request
        cannot be sent.
        """
        try:
            return self._body(self.pending.wait(green.wait(self.pending, self.timeout)))
        except TimeoutError:
            raise self._timed_out() from None
        except _nameko.AmqpError as exc:
            raise translate(exc) from None

    async def wait_async(self) -> Any:
        """Like :meth:`wait`, on the running loop."""
        try:
            await loop.wait_done(self.pending, self.timeout)
        except TimeoutError:
            raise self._timed_out() from None
        except asyncio.CancelledError:
            self.pending.cancel()
            raise
        return self.wait()

    def _timed_out(self) -> RpcTimeout:
        self.pending.cancel()
        return RpcTimeout(self.timeout)

    def _body(self, reply: Any) -> Any:
        return serialization.decode(reply, self._accept)


class HandledReply(Event):
    """A pending reply that ``ReplyListener.handle_message`` sends."""

    __slots__ = ("_forget", "timeout")

    def __init__(self, timeout: float | None, forget: Callable[[], object]) -> None:
        super().__init__()
        self.timeout = timeout
        # Called on a timeout.
        self._forget = forget

    def wait(self, timeout: float | None = None) -> Any:
        """Returns the body of the reply.

        Raises RpcTimeout after ``timeout`` seconds, by default the timeout of the listener.
        """
        timeout = self.timeout if timeout is None else timeout
        try:
            return super().wait(timeout)
        except TimeoutError:
            if self.ready():
                raise
            self._forget()
            raise RpcTimeout(timeout) from None


class Acceptable:
    """The accepted content types of replies: configured, or enabled in kombu's registry."""

    __slots__ = ("_configured",)

    def __init__(self, serializers: Any) -> None:
        self._configured = serialization.content_types(serializers)

    def __contains__(self, content_type: object) -> bool:
        return (
            content_type in self._configured or content_type not in registry._disabled_content_types
        )


# The name in version 3.
RpcCall = RpcReply
