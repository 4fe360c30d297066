"""The entrypoint that serves RPC calls."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import partial
from logging import getLogger
from typing import Any, NamedTuple

from kombu import Exchange, Queue

from nameko._config import queue_arguments
from nameko._nameko import Delivery, Options, PatchGuard
from nameko.amqp import connection, publish
from nameko.amqp.message import Channel, Message
from nameko.constants import (
    AMQP_SSL_CONFIG_KEY,
    DEFAULT_SERIALIZER,
    LOGIN_METHOD_CONFIG_KEY,
    SERIALIZER_CONFIG_KEY,
)
from nameko.containers import ServiceContainer
from nameko.exceptions import ContainerBeingKilled, MalformedRequest, MethodNotFound
from nameko.extensions import Entrypoint, ProviderCollector, SharedExtension
from nameko.messaging import HeaderDecoder, QueueConsumer, take_consumer_options
from nameko.rpc.fastpath import FastPath
from nameko.rpc.responder import Responder
from nameko.rpc.stages import request_arguments
from nameko.rpc.topology import RPC_QUEUE_TEMPLATE, get_rpc_exchange
from nameko.serialization import JSON_CONTENT_TYPE
from nameko.utils.patch_guard import guarded_methods, methods_of
from nameko.utils.threads import Event
from nameko.workers import handle_result_is_nonblocking, nonblocking

_log = getLogger("nameko.rpc")


class ReplySettings(NamedTuple):
    """The broker and exchange for replies, and their default serializer."""

    amqp_uri: str
    exchange: Exchange
    serializer: str
    ssl: Any
    login_method: str | None
    heartbeat: connection.Heartbeat

    def connection_options(self) -> Options:
        """Returns the options of the publishing connection."""
        return connection.options(self.amqp_uri, self.ssl, self.login_method, self.heartbeat)


class RpcConsumer(SharedExtension, ProviderCollector):
    """Consumes the requests to a service and passes each to the entrypoint of its method.

    Options are the consumer options of :class:`nameko.messaging.Consumer`.
    """

    queue_consumer = QueueConsumer()

    def __init__(self, **consumer_options: Any) -> None:
        self.consumer_options = take_consumer_options(self, consumer_options)
        self._lock = threading.Lock()
        self._unregistering_providers: set[Any] = set()
        self._unregistered_from_queue_consumer = Event()
        self.queue: Queue | None = None
        # Read when the first reply is sent.
        self._reply_settings: ReplySettings | None = None
        super().__init__(**consumer_options)

    def setup(self) -> None:
        # The name in version 3.
        self.consumer = self.queue_consumer
        if self.queue is None:
            service_name = self.container.service_name
            self.queue = Queue(
                RPC_QUEUE_TEMPLATE.format(service_name),
                exchange=get_rpc_exchange(self.container.config),
                routing_key="{}.*".format(service_name),
                durable=True,
                queue_arguments=queue_arguments(self.container.config, "rpc") or None,
            )
            self.queue_consumer.register_provider(self)

    def stop(self) -> None:
        # Without providers. Else the last provider to leave unregisters.
        if not self._providers_registered:
            self._unregister_from_queue_consumer()

    def unregister_provider(self, provider: Any) -> None:
        """Returns when no further request is consumed, after all providers have left."""
        with self._lock:
            self._unregistering_providers.add(provider)
            last = not self._providers - self._unregistering_providers
        if last:
            self._unregister_from_queue_consumer()
        _log.debug("waiting for unregister from queue consumer %s", self)
        self._unregistered_from_queue_consumer.wait()
        super().unregister_provider(provider)

    def get_provider_for_method(self, routing_key: str) -> Any:
        """Returns the entrypoint for a request. Raises MethodNotFound."""
        prefix = self.container.service_name + "."
        if routing_key.startswith(prefix):
            method_name = routing_key[len(prefix) :]
            # Entrypoints that have left serve the requests received earlier.
            for providers in (self._providers, self._unregistering_providers):
                for provider in tuple(providers):
                    if provider.method_name == method_name:
                        return provider
        raise MethodNotFound(routing_key.split(".")[-1])

    @nonblocking
    def handle_message(self, body: Any, message: Any) -> None:
        if isinstance(message, Message):
            routing_key = message.delivery.routing_key
        else:
            routing_key = message.delivery_info["routing_key"]
        try:
            provider = self.get_provider_for_method(routing_key)
            provider.handle_message(body, message)
        except Exception:
            self._answer_error(message, sys.exc_info())

    def _answer_error(self, message: Any, exc_info: Any) -> None:
        """Replies with an error. Rejects a request that cannot be answered, because it would fail
        in every instance of the service."""
        try:
            self.handle_result(message, None, exc_info)
        except Exception:
            _log.error(
                "The error reply to a request could not be sent: its caller will not receive one",
                exc_info=True,
            )
            self.queue_consumer.reject_message(message)

    @nonblocking
    def handle_result(self, message: Any, result: Any, exc_info: Any) -> tuple[Any, Any]:
        """Sends the reply, then acknowledges the request."""
        uri, exchange, serializer, ssl, login_method, heartbeat = self.reply_settings
        responder = Responder(
            uri,
            exchange,
            serializer,
            message,
            ssl=ssl,
            login_method=login_method,
            heartbeat=heartbeat,
        )
        if isinstance(message, Message):
            message.reply_in_background = not self.container.has_result_hooks()
        result, exc_info = responder.send_response(result, exc_info)
        self.queue_consumer.ack_message(message)
        return result, exc_info

    @property
    def reply_settings(self) -> ReplySettings:
        """The settings for publishing replies."""
        if self._reply_settings is None:
            config = self.container.config
            self._reply_settings = ReplySettings(
                connection.amqp_uri(config),
                get_rpc_exchange(config),
                config.get(SERIALIZER_CONFIG_KEY, DEFAULT_SERIALIZER),
                config.get(AMQP_SSL_CONFIG_KEY),
                config.get(LOGIN_METHOD_CONFIG_KEY),
                connection.heartbeat_setting(config),
            )
        return self._reply_settings

    def fast_path(
        self,
        accept: frozenset[str],
        channel: Channel | None,
        slow_path: Callable[[Delivery], None],
    ) -> FastPath | None:
        """Returns the fast path of deliveries. None if requests in JSON are not accepted."""
        if JSON_CONTENT_TYPE not in accept:
            return None
        return FastPath(self, accept, channel, slow_path)

    def patch_guard(self, provider: Rpc) -> PatchGuard:
        """Returns the guard of the hooks and functions that a call of ``provider`` uses."""
        service_cls, method_name = self.container.service_cls, str(provider.method_name)
        return PatchGuard(
            [
                *_RESPONDER_HOOKS,
                *guarded_methods(self.container.interface, _CONTAINER_HOOKS),
                *guarded_methods(self.queue_consumer, _QUEUE_CONSUMER_HOOKS),
                *guarded_methods(self, _RPC_CONSUMER_HOOKS),
                *guarded_methods(provider, _RPC_HOOKS),
                (service_cls, method_name, getattr(service_cls, method_name)),
            ]
        )

    def handle_decode_error(self, message: Any, exc: Exception) -> None:
        """Replies that the request cannot be decoded."""
        if message.properties.get("reply_to"):
            error = MalformedRequest("Can't decode message body: {}".format(exc))
            self._answer_error(message, (MalformedRequest, error, None))

    def requeue_message(self, message: Any) -> None:
        self.queue_consumer.requeue_message(message)

    def _unregister_from_queue_consumer(self) -> None:
        _log.debug("unregistering from queueconsumer %s", self)
        self.queue_consumer.unregister_provider(self)
        _log.debug("unregistered from queueconsumer %s", self)
        self._unregistered_from_queue_consumer.send(True)


class Rpc(Entrypoint, HeaderDecoder):
    """Entrypoint for remote calls of a method."""

    rpc_consumer = RpcConsumer()

    def setup(self) -> None:
        self.rpc_consumer.register_provider(self)

    def stop(self) -> None:
        self.rpc_consumer.unregister_provider(self)

    @nonblocking
    def handle_message(self, body: Any, message: Any) -> None:
        args, kwargs = request_arguments(body)
        self.check_signature(args, kwargs)
        try:
            self.container.spawn_worker(
                self,
                args,
                kwargs,
                context_data=self.unpack_message_headers(message),
                handle_result=partial(self.handle_result, message),
            )
        except ContainerBeingKilled:
            self.rpc_consumer.requeue_message(message)

    @nonblocking
    def handle_result(
        self, message: Any, worker_ctx: Any, result: Any, exc_info: Any
    ) -> tuple[Any, Any]:
        consumer = self.rpc_consumer
        if isinstance(message, Message):
            message.reply_is_last = self.handle_result_is_nonblocking()
        return consumer.handle_result(message, result, exc_info)

    def handle_result_is_nonblocking(self) -> bool:
        """Whether an asyncio loop may call :meth:`handle_result`: only if it is not overridden."""
        return handle_result_is_nonblocking(self) and handle_result_is_nonblocking(
            self.rpc_consumer
        )


rpc = Rpc.decorator

# The hooks of the slow path as defined here, recorded before anything can patch them.
_CONTAINER_HOOKS = methods_of(ServiceContainer, "spawn_worker")
_QUEUE_CONSUMER_HOOKS = methods_of(QueueConsumer, "handle_message", "ack_message")
_RPC_CONSUMER_HOOKS = methods_of(
    RpcConsumer, "handle_message", "handle_result", "get_provider_for_method"
)
_RPC_HOOKS = methods_of(
    Rpc,
    "handle_message",
    "handle_result",
    "check_signature",
    "unpack_message_headers",
    "_strip_header_name",
)
_RESPONDER_HOOKS = [
    (globals(), "Responder", Responder),
    (Responder, "send_response", Responder.send_response),
    (Responder, "publisher_cls", Responder.publisher_cls),
    publish.PRODUCER_HOOK,
]
