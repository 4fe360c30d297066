"""Fast path for RPC requests, taken when no hook is overridden or patched.

On the slow path a request passes every hook that an extension may override or a test may patch.
The fast path calls the stages behind these hooks back to back. A patch guard, built when a method
is first called, is checked for each request. Requests that do not fit (a serializer other than
JSON, wrong arguments) take the slow path, which reports the error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from nameko._nameko import Delivery, Options
from nameko.amqp.message import Channel, Message
from nameko.exceptions import ContainerBeingKilled
from nameko.messaging import decode_from_headers
from nameko.rpc.stages import encode_reply, request_arguments
from nameko.serialization import loads_json
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
        self._run = self.container.worker_pool.run
        # The methods called so far, by routing key.
        self._methods: dict[str, _Method] = {}

    def handle(self, delivery: Delivery) -> None:
        """Handles a request. Returns when the worker has ended or waits for a free slot."""
        container = self.container
        try:
            method = self._methods.get(delivery.routing_key) or self._bind(delivery.routing_key)
            text = delivery.json_text
            if (
                method is None
                or text is None
                or delivery.reply_to is None
                or not method.guard.intact()
            ):
                return self._slow_path(delivery)
            try:
                args, kwargs = request_arguments(loads_json(text))
            except Exception:
                return self._slow_path(delivery)
            if not method.accepts(args, kwargs):
                return self._slow_path(delivery)
            provider = method.provider
            try:
                context_data = decode_from_headers(delivery.headers, provider.header_prefix)
                worker_ctx = container.new_worker_context(provider, args, kwargs, context_data)
            except ContainerBeingKilled:
                return self._slow_path(delivery)
            except Exception:
                self.consumer._answer_error(self._message(delivery), sys.exc_info())
                return None
            self._run((worker_ctx, partial(self._send_reply, method, delivery)))
        except ThreadKilled:
            raise
        except BaseException:
            container.fail()
        return None

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
