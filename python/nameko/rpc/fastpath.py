"""Fast path for RPC requests, taken when no hook is overridden or patched.

On the slow path a request passes every hook that an extension may override or a test may patch.
The fast path calls the stages behind these hooks back to back. A patch guard, built when a method
is first called, is checked for each request. Requests that do not fit (a serializer other than
JSON, wrong arguments) take the slow path, which reports the error.

Requests for ``async def`` methods reach the loop without a worker thread, if nothing before their
coroutines may block. The replies of the coroutines that end in one iteration of the loop are sent
together, from its thread.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from nameko._nameko import Delivery, LoopDeliveries, Options, PatchGuard
from nameko.amqp.message import Channel, Message
from nameko.exceptions import ContainerBeingKilled
from nameko.loop import LoopReader
from nameko.rpc.stages import encode_reply, plain_reply, request_arguments
from nameko.serialization import JSON_CONTENT_ENCODING, JSON_CONTENT_TYPE, loads_json
from nameko.utils.threads import ThreadKilled
from nameko.workers import nonblocking


class FastPath:
    """Handles the deliveries of a request queue.

    ``consumer`` is an :class:`~nameko.rpc.server.RpcConsumer`, ``accept`` the accepted content
    types. ``slow_path(delivery)`` handles the deliveries that this does not.
    """

    def __init__(
        self,
        consumer: Any,
        accept: frozenset[str],
        channel: Channel | None,
        slow_path: Callable[[Delivery], None],
    ) -> None:
        self.consumer = consumer
        # The container itself, not an extension's weak proxy: worker contexts refer to it.
        self.container = consumer.container.interface
        self.channel = channel
        self.accept = accept
        self._slow_path = slow_path
        self._pool = self.container.worker_pool
        self._run = self._pool.run
        # The methods called so far, by routing key.
        self._methods: dict[str, _Method] = {}
        # Intact while workers can start on the loop.
        self._start_guard: PatchGuard | None = None
        self._reader: LoopReader | None = None

    def handle(self, delivery: Delivery) -> None:
        """Handles a request. Returns when the worker has ended, or is a coroutine, or waits for a
        free slot."""
        try:
            if not self._start_worker(delivery, on_loop=False):
                self._slow_path(delivery)
        except ThreadKilled:
            raise
        except BaseException:
            self.container.fail()

    def loop_deliveries(self) -> LoopDeliveries | None:
        """Returns the deliveries that the loop handles: those for ``async def`` methods, if nothing
        before their coroutines may block. Reads them until :meth:`close` or :meth:`discard`."""
        guard = self.container.inline_start_guard()
        routing_keys = {
            "{}.{}".format(self.container.service_name, entrypoint.method_name)
            for entrypoint in tuple(self.consumer._providers)
            if inspect.iscoroutinefunction(entrypoint.signature().fn)
        }
        if guard is None or not routing_keys:
            return None
        self._start_guard = guard
        deliveries = LoopDeliveries(routing_keys)
        self._reader = LoopReader(deliveries, self._handle_on_loop)
        return deliveries

    def close(self) -> None:
        """Returns when the loop has started the workers of all deliveries. No further ones may
        arrive."""
        if self._reader is not None:
            self._reader.drain()

    def discard(self) -> None:
        """Handles no further deliveries on the loop; those that have arrived are requeued."""
        if self._reader is not None:
            self._reader.close()

    def _handle_on_loop(self, delivery: Delivery) -> None:
        # Anything that was patched may block.
        guard = self._start_guard
        if guard is None or not guard.intact() or not self._start_worker(delivery, on_loop=True):
            try:
                self._pool.jobs.put(self.handle, delivery)
            except RuntimeError:
                delivery.reject(True)  # the pool was stopped

    def _start_worker(self, delivery: Delivery, on_loop: bool) -> bool:
        """Starts the worker of a request. Returns False if the slow path has to handle it, or a
        worker thread."""
        method = self._methods.get(delivery.routing_key) or self._bind(delivery.routing_key)
        text = delivery.json_text
        if method is None or text is None or delivery.reply_to is None or not method.guard.intact():
            return False
        try:
            args, kwargs = request_arguments(loads_json(text))
        except Exception:
            return False
        if not method.accepts(args, kwargs):
            return False
        provider = method.provider
        try:
            context_data = delivery.context_data(provider.header_prefix)
            worker_ctx = self.container.new_worker_context(provider, args, kwargs, context_data)
        except ContainerBeingKilled:
            return False
        except Exception:
            if on_loop:
                return False
            self.consumer._answer_error(self._message(delivery), sys.exc_info())
            return True
        self._run((worker_ctx, partial(self._send_reply, method, delivery)), on_loop)
        return True

    def _bind(self, routing_key: str) -> _Method | None:
        """Returns the method of a routing key, None if the slow path has to report an error."""
        try:
            provider = self.consumer.get_provider_for_method(routing_key)
            method = self._methods[routing_key] = _Method(self.consumer, provider)
        except Exception:
            return None
        return method

    @nonblocking
    def _send_reply(
        self, method: _Method, delivery: Delivery, worker_ctx: Any, result: Any, exc_info: Any
    ) -> tuple[Any, Any]:
        """The ``handle_result`` of a worker."""
        if worker_ctx._has_hooks and self.container.has_result_hooks():
            # They run after the broker's confirm.
            message = self._message(delivery)
            return method.provider.handle_result(message, worker_ctx, result, exc_info)
        content_type, content_encoding = JSON_CONTENT_TYPE, JSON_CONTENT_ENCODING
        body = None if exc_info is not None else plain_reply(result, "json")
        if body is None:
            result, exc_info, _, _, content_type, content_encoding, body = encode_reply(
                result, exc_info, "json"
            )
        # By position, which is faster: ack, do not wait, batch with the following replies.
        delivery.respond(
            method.options,
            method.exchange,
            body,
            content_type,
            content_encoding,
            True,
            False,
            True,
        )
        return result, exc_info

    def _message(self, delivery: Delivery) -> Message:
        """Returns a request for the hooks of the slow path."""
        return Message(delivery, self.channel, self.accept)


class _Method:
    """A method that the fast path can call while ``guard`` is intact."""

    __slots__ = ("accepts", "exchange", "guard", "options", "provider")

    def __init__(self, consumer: Any, provider: Any) -> None:
        self.provider = provider
        self.accepts = provider.signature().accepts
        self.guard = consumer.patch_guard(provider)
        self.options: Options = consumer.reply_settings.connection_options()
        self.exchange: str = consumer.reply_settings.exchange.name
