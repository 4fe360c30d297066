"""The dependencies that make RPC calls."""

from __future__ import annotations

import asyncio
import uuid
import warnings
from collections.abc import Mapping
from functools import partial
from logging import getLogger
from typing import Any

from nameko import loop
from nameko._nameko import PatchGuard
from nameko.amqp import connection, publish
from nameko.amqp.publish import Publisher, UndeliverableMessage
from nameko.call_context import CallContext, context_values
from nameko.constants import (
    AMQP_SSL_CONFIG_KEY,
    DEFAULT_SERIALIZER,
    LOGIN_METHOD_CONFIG_KEY,
    SERIALIZER_CONFIG_KEY,
)
from nameko.exceptions import UnknownService
from nameko.extensions import DependencyProvider
from nameko.messaging import HeaderEncoder
from nameko.rpc.replies import HandledReply, ReplyEvent, RpcReply
from nameko.rpc.reply_listener import ReplyListener
from nameko.rpc.topology import get_rpc_exchange
from nameko.workers import nonblocking

_log = getLogger("nameko.rpc")


class _Caller(DependencyProvider):
    """Base of the dependencies that make calls."""

    rpc_reply_listener = ReplyListener()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # The name in subclasses written for version 3.
        if "reply_listener" in cls.__dict__:
            cls.rpc_reply_listener = cls.__dict__["reply_listener"]


class RpcProxy(_Caller):
    """Injects a proxy of another service: ``self.<name>.<method>(*args, **kwargs)``.

    ``timeout`` is the number of seconds to wait for each reply, without limit by default. Other
    options are those of :class:`nameko.amqp.publish.Publisher`, and ``uri``, ``ssl`` and
    ``login_method`` to send requests over another connection than the configured one. Inside
    ``async def`` methods calls are awaited.
    """

    def __init__(self, target_service: str, **options: Any) -> None:
        self.target_service = target_service
        self.options = options

    @nonblocking
    def get_dependency(self, worker_ctx: Any) -> Any:
        return ServiceProxy(
            worker_ctx, self.target_service, self.rpc_reply_listener, **self.options
        )


class ServiceProxy:
    """A client of one service for one worker. Its attributes are the methods."""

    def __init__(
        self, worker_ctx: Any, service_name: str, reply_listener: Any, **options: Any
    ) -> None:
        self.worker_ctx = worker_ctx
        self.service_name = service_name
        self.reply_listener = reply_listener
        self.options = options

    def __getattr__(self, name: str) -> MethodProxy:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)  # copy, pickle and consoles probe for such names
        return MethodProxy(
            self.worker_ctx, self.service_name, name, self.reply_listener, **self.options
        )

    def __getitem__(self, name: str) -> MethodProxy:
        """Returns the method of this name, also one with the name of an attribute."""
        method: MethodProxy = type(self).__getattr__(self, name)
        return method

    def with_context(
        self, context_data: Mapping[str, Any] | None = None, /, **values: Any
    ) -> ServiceProxy:
        """Returns a client that sends these values in addition to the present context data.

        None removes a value. A ``call_id_stack`` replaces the ids of the callers.
        """
        worker_ctx = CallContext(self.worker_ctx, context_values(context_data, values))
        return type(self)(worker_ctx, self.service_name, self.reply_listener, **self.options)

    def __repr__(self) -> str:
        return "<proxy service: {}>".format(self.service_name)


class ClusterRpc(_Caller):
    """Injects a proxy of all services: ``self.<name>.<service>.<method>(*args, **kwargs)``.

    Options are those of :class:`RpcProxy`.
    """

    def __init__(self, **options: Any) -> None:
        self.options = options

    @nonblocking
    def get_dependency(self, worker_ctx: Any) -> Any:
        return ClusterProxy(worker_ctx, self.rpc_reply_listener, **self.options)


class ClusterProxy:
    """A client of all services. Its attributes are services; ``[name]`` accepts any name."""

    def __init__(self, worker_ctx: Any, reply_listener: Any, **options: Any) -> None:
        self._worker_ctx = worker_ctx
        self._reply_listener = reply_listener
        self._options = options
        self._proxies: dict[str, ServiceProxy] = {}

    def __getattr__(self, name: str) -> ServiceProxy:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, name: str) -> ServiceProxy:
        proxy = self._proxies.get(name)
        if proxy is None:
            proxy = self._proxies[name] = ServiceProxy(
                self._worker_ctx, name, self._reply_listener, **self._options
            )
        return proxy

    def with_context(
        self, context_data: Mapping[str, Any] | None = None, /, **values: Any
    ) -> ClusterProxy:
        """Returns a client like :meth:`ServiceProxy.with_context`, of all services."""
        worker_ctx = CallContext(self._worker_ctx, context_values(context_data, values))
        return type(self)(worker_ctx, self._reply_listener, **self._options)


class MethodProxy(HeaderEncoder):
    """A method of another service. Calling it sends a request and waits for the reply.

    In an ``async def`` method and with an asyncio client, calling it returns an awaitable.
    """

    publisher_cls = Publisher

    def __init__(
        self,
        worker_ctx: Any,
        service_name: str,
        method_name: str,
        reply_listener: Any,
        **options: Any,
    ) -> None:
        self.worker_ctx = worker_ctx
        self.service_name = service_name
        self.method_name = method_name
        self.reply_listener = reply_listener
        # Seconds to wait for the reply, None for the timeout of the listener.
        self.timeout: float | None = options.pop("timeout", None)

        # Versions before 2.7 had these options as class attributes of a subclass.
        for compat_attr in ("retry", "retry_policy", "use_confirms"):
            if hasattr(type(self), compat_attr):
                warnings.warn(
                    "'{}' should be specified at RpcProxy instantiation time rather than as a "
                    "class attribute. See CHANGES, version 2.7.0 for more details. This warning "
                    "will be removed in version 2.9.0.".format(compat_attr),
                    DeprecationWarning,
                    stacklevel=2,
                )
                options[compat_attr] = getattr(self, compat_attr)

        self.publisher = self.publisher_cls(
            options.pop("uri", None) or self.amqp_uri,
            serializer=options.pop("serializer", self.serializer),
            ssl=options.pop("ssl", self.ssl),
            login_method=options.pop("login_method", self.login_method),
            **{**connection.publisher_settings(self.container.config), **options},
        )

    @property
    def container(self) -> Any:
        """The container of the provider, or else of the worker, which a test may mock."""
        listener = self.reply_listener
        if isinstance(listener, ReplyListener) and listener.container is not None:
            return listener.container
        return self.worker_ctx.container

    @property
    def context_data(self) -> dict[str, Any]:
        """The context data sent with a call. Changes to it are sent, too."""
        data: dict[str, Any] = self.worker_ctx.context_data
        return data

    @property
    def identifier(self) -> str:
        """``service.method``."""
        return "{}.{}".format(self.service_name, self.method_name)

    @property
    def amqp_uri(self) -> str:
        return connection.amqp_uri(self.container.config)

    @property
    def ssl(self) -> Any:
        return self.container.config.get(AMQP_SSL_CONFIG_KEY)

    @property
    def login_method(self) -> str | None:
        return self.container.config.get(LOGIN_METHOD_CONFIG_KEY)

    @property
    def serializer(self) -> str:
        """The default serializer."""
        return self.container.config.get(SERIALIZER_CONFIG_KEY, DEFAULT_SERIALIZER)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if loop.awaiting_loop(self._is_asynchronous()) is not None:
            call = self._call_on_loop(args, kwargs)
            # For Python's warning about a call that was never awaited.
            call.__qualname__ = self.identifier  # type: ignore[attr-defined]
            return call
        return (self._start(args, kwargs) or self._call(*args, **kwargs)).result()

    def call_async(self, *args: Any, **kwargs: Any) -> RpcReply:
        """Sends a request and returns without waiting for the reply.

        Raises UnknownService. Where calls are awaited, awaiting the reply raises it.
        """
        if loop.awaiting_loop(self._is_asynchronous()) is not None:
            reply = self._start(args, kwargs)
            if reply is not None:
                return reply
        return self._call(*args, **kwargs)

    def _is_asynchronous(self) -> bool:
        """Whether this belongs to an asyncio client."""
        return getattr(self.reply_listener, "asynchronous", None) is True

    async def _call_on_loop(self, args: Any, kwargs: Any) -> Any:
        reply = self._start(args, kwargs)
        if reply is None:
            running = asyncio.get_running_loop()
            reply = await running.run_in_executor(None, partial(self._call, *args, **kwargs))
        return await reply

    def _call(self, *args: Any, **kwargs: Any) -> RpcReply:
        """Publishes the request through the publisher and waits for the broker's confirm."""
        _log.debug("invoking %s", self)
        correlation_id = str(uuid.uuid4())
        reply_event = self._expect(correlation_id)
        try:
            self.publisher.publish(
                {"args": args, "kwargs": kwargs}, **self._publish_arguments(correlation_id)
            )
        except UndeliverableMessage:
            raise UnknownService(self.service_name) from None
        return RpcReply(reply_event, self.service_name, correlation_id)

    def _start(self, args: Any, kwargs: Any) -> RpcReply | None:
        """Sends the request through the compiled half without waiting. If it cannot be sent, its
        reply fails. Returns None if publishing is overridden or patched."""
        publisher = self.publisher
        if (
            type(publisher) is not publish.Publisher
            or type(self)._call is not MethodProxy._call
            or "publish" in publisher.__dict__
            or not publisher.use_confirms
            or not _publishing_guard.intact()
        ):
            return None
        correlation_id = str(uuid.uuid4())
        options = publisher.publish_options(self._publish_arguments(correlation_id))
        if not options.pop("use_confirms") or options.pop("declare"):
            return None
        reply_event = self._expect(correlation_id)
        if not isinstance(reply_event, ReplyEvent):
            self.reply_listener._reply_events.pop(correlation_id, None)
            return None
        del options["transport_options"], options["mandatory"]
        retry = publish.compiled_retry(options.pop("retry"), options.pop("retry_policy"))
        timeout = options.pop("timeout", None)
        message = publish.prepare({"args": args, "kwargs": kwargs}, options)
        producer = publish.Producer(publisher.connection_options())
        producer.publisher.call(reply_event.pending, message, retry, timeout=timeout)
        return RpcReply(reply_event, self.service_name, correlation_id)

    def _expect(self, correlation_id: str) -> Any:
        reply_event = self.reply_listener.get_reply_event(correlation_id)
        if self.timeout is not None and isinstance(reply_event, (ReplyEvent, HandledReply)):
            reply_event.timeout = self.timeout
        return reply_event

    def _publish_arguments(self, correlation_id: str) -> dict[str, Any]:
        # Mandatory, so that the broker returns a request without a consuming service.
        return {
            "exchange": get_rpc_exchange(self.container.config),
            "routing_key": "{}.{}".format(self.service_name, self.method_name),
            "mandatory": True,
            "reply_to": self.reply_listener.routing_key,
            "correlation_id": correlation_id,
            "extra_headers": self.get_message_headers(self.worker_ctx),
        }

    def __repr__(self) -> str:
        return "<proxy method: {}.{}>".format(self.service_name, self.method_name)


# While it is intact, requests are published by the compiled half.
_publishing_guard = PatchGuard(
    [
        (publish, "Publisher", Publisher),
        publish.PRODUCER_HOOK,
        (Publisher, "publish", Publisher.publish),
        (MethodProxy, "_call", MethodProxy._call),
    ]
)

# The names in version 3.
ServiceRpc = RpcProxy
Client = MethodProxy
