"""The short way of an RPC call, for when nobody has put anything of their own in between.

By the long way a request passes all the methods that an extension may override, or a test may
replace. The short way does what these do by themselves, in half the time. It looks at every request
whether they still are the ones that we wrote, and leaves whatever is out of the ordinary to the
long way: a serializer other than JSON, a request that does not fit, logs for debugging, a method
that raises.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

from kombu.serialization import registry

from nameko import containers, extensions, rpc, serialization
from nameko._nameko import Delivery, PatchGuard
from nameko.amqp import connection, publish
from nameko.amqp.message import Channel, Message
from nameko.containers import ServiceContainer
from nameko.messaging import QueueConsumer
from nameko.serialization import JSON_CONTENT_ENCODING, JSON_CONTENT_TYPE
from nameko.utils.patch_guard import guarded_methods
from nameko.utils.threads import ThreadKilled
from nameko.workers import nonblocking


class FastPath:
    """Takes the requests to a service, each by the way that it can go.

    ``slow_path(delivery)`` is the other one, ``accept`` the content types that may be decoded.
    """

    def __init__(
        self,
        consumer: rpc.RpcConsumer,
        accept: frozenset[str],
        channel: Channel | None,
        slow_path: Callable[[Delivery], None],
    ) -> None:
        self.consumer = consumer
        # Not the weak proxy that an extension has: workers are made with it.
        self.container = consumer.container.interface
        self.channel = channel
        self.accept = accept
        self._slow_path = slow_path
        self._run = consumer.container._worker_pool.run
        # By routing key; those that were called.
        self._methods: dict[str, _Method] = {}

    def handle(self, delivery: Delivery) -> None:
        """Have the request answered. Returns when the worker is over, or waits for its turn."""
        try:
            method = self._methods.get(delivery.routing_key) or self._find(delivery.routing_key)
            text = delivery.json_text
            if (
                method is None
                or text is None
                or delivery.reply_to is None
                or not method.originals.intact()
                or containers._log.isEnabledFor(logging.DEBUG)
                or self.container._being_killed
            ):
                return self._slow_path(delivery)
            try:
                body, end = serialization.scan_json(text, 0)
                args, kwargs = body["args"], body["kwargs"]
            except (ValueError, StopIteration, RecursionError, LookupError, TypeError):
                return self._slow_path(delivery)
            if end != len(text) or not method.accepts(args, kwargs):
                return self._slow_path(delivery)

            container, provider = self.container, method.provider
            reply = _Reply(self, method, delivery)
            try:
                service = container.service_cls()
            except Exception:
                self.consumer.handle_result(reply.message(), None, sys.exc_info())
                return None
            data = delivery.headers_without_prefix(method.prefix)
            worker_ctx = containers.WorkerContext(container, service, provider, args, kwargs, data)
            self._run((worker_ctx, reply.send))
        except ThreadKilled:
            raise
        except BaseException:
            self.container._fail()
        return None

    def _find(self, routing_key: str) -> _Method | None:
        try:
            provider = self.consumer.get_provider_for_method(routing_key)
            method = self._methods[routing_key] = _Method(self, provider)
        except Exception:
            # The long way says what is wrong.
            return None
        return method


class _Method:
    """A method that can be called by the short way, while its ``originals`` hold."""

    def __init__(self, fast_path: FastPath, provider: rpc.Rpc) -> None:
        container, consumer = fast_path.container, fast_path.consumer
        self.provider = provider
        self.prefix = provider.header_prefix + "."
        name = str(provider.method_name)
        fn = getattr(container.service_cls, name)
        self.accepts = extensions.Signature(fn).accepts
        self.originals = PatchGuard(
            [
                *_PARTS,
                *guarded_methods(container, _CONTAINER),
                *guarded_methods(consumer.queue_consumer, _QUEUE_CONSUMER),
                *guarded_methods(consumer, _RPC_CONSUMER),
                *guarded_methods(provider, _RPC),
                (type(provider), "header_prefix", type(provider).header_prefix),
                (container.service_cls, name, fn),
            ]
        )
        uri, exchange, _, ssl, login_method = consumer.reply_settings()
        self.options = connection.options(uri, ssl, login_method)
        self.exchange = exchange.name


class _Reply:
    """Answers the request that a worker was made for."""

    __slots__ = ("_delivery", "_fast_path", "_method")

    def __init__(self, fast_path: FastPath, method: _Method, delivery: Delivery) -> None:
        self._fast_path = fast_path
        self._method = method
        self._delivery = delivery

    @nonblocking
    def send(self, worker_ctx: Any, result: Any, exc_info: Any) -> tuple[Any, Any]:
        """What a worker calls as its ``handle_result``."""
        method = self._method
        if exc_info is None and not worker_ctx.container.has_result_hooks():
            try:
                value = "".join(serialization.encode_json(result, 0))
                body = ('{"result": ' + value + ', "error": null}').encode("ascii")
            except (TypeError, ValueError, RecursionError):
                pass  # there are other encoders, and a reply for what none of them takes
            else:
                # By position, which is faster: it is acknowledged, not waited for, and held back
                # for what is sent next.
                self._delivery.respond(
                    method.options,
                    method.exchange,
                    body,
                    JSON_CONTENT_TYPE,
                    JSON_CONTENT_ENCODING,
                    True,
                    False,
                    True,
                )
                return result, None
        return method.provider.handle_result(self.message(), worker_ctx, result, exc_info)

    def message(self) -> Message:
        """The request, for methods that want it whole."""
        return Message(self._delivery, self._fast_path.channel, self._fast_path.accept)


# The methods that a request passes by the long way, as we wrote them. They are noted before
# anybody can replace one.
_CONTAINER = {"spawn_worker": ServiceContainer.spawn_worker}
_QUEUE_CONSUMER = {
    "handle_message": QueueConsumer.handle_message,
    "ack_message": QueueConsumer.ack_message,
}
_RPC_CONSUMER = {
    "handle_message": rpc.RpcConsumer.handle_message,
    "handle_result": rpc.RpcConsumer.handle_result,
    "get_provider_for_method": rpc.RpcConsumer.get_provider_for_method,
}
_RPC = {
    "handle_message": rpc.Rpc.handle_message,
    "handle_result": rpc.Rpc.handle_result,
    "check_signature": rpc.Rpc.check_signature,
    "unpack_message_headers": rpc.Rpc.unpack_message_headers,
    "_strip_header_name": rpc.Rpc._strip_header_name,
}
_PARTS = [
    (rpc, "Responder", rpc.Responder),
    (rpc.Responder, "send_response", rpc.Responder.send_response),
    (rpc.Responder, "publisher_cls", publish.Publisher),
    (publish, "get_producer", publish.get_producer),
    (serialization, "dumps", serialization.dumps),
    (serialization, "loads", serialization.loads),
    (registry._encoders, "json", registry._encoders["json"]),
    (registry._decoders, JSON_CONTENT_TYPE, registry._decoders[JSON_CONTENT_TYPE]),
]
