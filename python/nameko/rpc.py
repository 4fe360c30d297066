"""RPC: the entrypoint that serves calls, and the dependency that makes them."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import uuid
import warnings
from collections.abc import Callable
from functools import partial
from logging import getLogger
from typing import Any

from kombu import Exchange, Queue
from kombu.serialization import registry

import nameko
from nameko import _nameko, loop, serialization
from nameko._config import queue_arguments
from nameko.amqp import connection, publish
from nameko.amqp.entities import queue_to_dict
from nameko.amqp.message import Channel, Message
from nameko.amqp.publish import Publisher, UndeliverableMessage
from nameko.constants import (
    AMQP_SSL_CONFIG_KEY,
    DEFAULT_SERIALIZER,
    LOGIN_METHOD_CONFIG_KEY,
    RPC_EXCHANGE_CONFIG_KEY,
    SERIALIZER_CONFIG_KEY,
)
from nameko.exceptions import (
    ContainerBeingKilled,
    MalformedRequest,
    MethodNotFound,
    UnknownService,
    UnserializableValueError,
    serialize,
)
from nameko.extensions import DependencyProvider, Entrypoint, ProviderCollector, SharedExtension
from nameko.messaging import HeaderDecoder, HeaderEncoder, QueueConsumer, take_consumer_options
from nameko.replies import Acceptable, HandledReply, ReplyEvent, RpcReply
from nameko.utils.threads import Event
from nameko.workers import handle_result_is_nonblocking, nonblocking

_log = getLogger(__name__)

RPC_QUEUE_TEMPLATE = "rpc-{}"
RPC_REPLY_QUEUE_TEMPLATE = "rpc.reply-{}-{}"
# How long a reply queue outlives its last consumer (ms). Read whenever one is declared.
RPC_REPLY_QUEUE_TTL = 300000

_DEFAULT_RPC_EXCHANGE = "nameko-rpc"
# Name -> Exchange; kombu copies an exchange when it binds it, so one serves all.
_exchanges: dict[str, Exchange] = {}


def get_rpc_exchange(config: Any = None) -> Exchange:
    """The exchange of all requests and replies. Without ``config`` it takes ``nameko.config``."""
    config = nameko.config if config is None else config
    name = config.get(RPC_EXCHANGE_CONFIG_KEY, _DEFAULT_RPC_EXCHANGE)
    exchange = _exchanges.get(name)
    if exchange is None:
        exchange = _exchanges[name] = Exchange(name, durable=True, type="topic")
    return exchange


class RpcConsumer(SharedExtension, ProviderCollector):
    """Consumes the requests to a service and gives each to the entrypoint of its method.

    Options are the consumer options of :class:`nameko.messaging.Consumer`.
    """

    queue_consumer = QueueConsumer()

    def __init__(self, **consumer_options: Any) -> None:
        self.consumer_options = take_consumer_options(self, consumer_options)
        self._lock = threading.Lock()
        self._unregistering_providers: set[Any] = set()
        self._unregistered_from_queue_consumer = Event()
        self.queue: Queue | None = None
        # What the configuration says of replies; read when the first one is sent.
        self._reply_settings: tuple[Any, ...] | None = None
        super().__init__(**consumer_options)

    def setup(self) -> None:
        # The name that version 3 has for it.
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
        # The last provider to leave unregisters; where there was none, this does.
        if not self._providers_registered:
            self._unregister_from_queue_consumer()

    def unregister_provider(self, provider: Any) -> None:
        """Returns once no request is consumed any more, which takes all providers to leave."""
        with self._lock:
            self._unregistering_providers.add(provider)
            last = not self._providers - self._unregistering_providers
        if last:
            self._unregister_from_queue_consumer()
        _log.debug("waiting for unregister from queue consumer %s", self)
        self._unregistered_from_queue_consumer.wait()
        super().unregister_provider(provider)

    def get_provider_for_method(self, routing_key: str) -> Any:
        """The entrypoint that a request is for. MethodNotFound where there is none."""
        prefix = self.container.service_name + "."
        if routing_key.startswith(prefix):
            method_name = routing_key[len(prefix) :]
            # Those that left still serve the requests that came before they did.
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
            self.handle_result(message, None, sys.exc_info())

    @nonblocking
    def handle_result(self, message: Any, result: Any, exc_info: Any) -> tuple[Any, Any]:
        """Send the reply, then acknowledge the request."""
        uri, exchange, serializer, ssl, login_method = self.reply_settings()
        responder = Responder(
            uri, exchange, serializer, message, ssl=ssl, login_method=login_method
        )
        if isinstance(message, Message):
            message.reply_in_background = not self.container.has_result_hooks()
        result, exc_info = responder.send_response(result, exc_info)
        self.queue_consumer.ack_message(message)
        return result, exc_info

    def reply_settings(self) -> tuple[Any, ...]:
        """Where replies go and how: URI, exchange, serializer, TLS, login method."""
        if self._reply_settings is None:
            config = self.container.config
            self._reply_settings = (
                connection.amqp_uri(config),
                get_rpc_exchange(config),
                config.get(SERIALIZER_CONFIG_KEY, DEFAULT_SERIALIZER),
                config.get(AMQP_SSL_CONFIG_KEY),
                config.get(LOGIN_METHOD_CONFIG_KEY),
            )
        return self._reply_settings

    def fast_path_handler(
        self,
        accept: frozenset[str],
        channel: Channel | None,
        slow_path: Callable[[_nameko.Delivery], None],
    ) -> Callable[[_nameko.Delivery], None]:
        """What takes the deliveries in place of ``slow_path``, see :mod:`nameko.fastpath`."""
        if serialization.JSON_CONTENT_TYPE not in accept:
            return slow_path
        return FastPath(self, accept, channel, slow_path).handle

    def handle_decode_error(self, message: Any, exc: Exception) -> None:
        """Tell the caller that its request could not be read, where it wants to know."""
        if message.properties.get("reply_to"):
            error = MalformedRequest("Can't decode message body: {}".format(exc))
            self.handle_result(message, None, (MalformedRequest, error, None))

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
        try:
            args = body["args"]
            kwargs = body["kwargs"]
        except KeyError:
            raise MalformedRequest("Message missing `args` or `kwargs`")
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
        # Nothing that takes long comes after it where nobody has overridden anything.
        if isinstance(message, Message):
            message.reply_is_last = self.handle_result_is_nonblocking()
        return consumer.handle_result(message, result, exc_info)

    def handle_result_is_nonblocking(self) -> bool:
        """Whether its :meth:`handle_result` returns at once, so that an asyncio loop may call it:
        it does where nobody has put another in its place."""
        return handle_result_is_nonblocking(self) and handle_result_is_nonblocking(
            self.rpc_consumer
        )


rpc = Rpc.decorator


class Responder:
    """Sends the reply to one request."""

    publisher_cls = Publisher

    def __init__(
        self,
        amqp_uri: str,
        exchange: Exchange,
        serializer: str,
        message: Any,
        ssl: Any = None,
        login_method: str | None = None,
    ) -> None:
        self.amqp_uri = amqp_uri
        # Used where the request does not say how to serialize the reply.
        self.serializer = serializer
        self.message = message
        self.exchange = exchange
        self.ssl = ssl
        self.login_method = login_method

    def send_response(self, result: Any, exc_info: Any) -> tuple[Any, Any]:
        """Send what a method returned or raised; return what dependencies are to see of it.

        The reply is serialized as the request was. A result that cannot be is replaced by an error.
        """
        message = self.message
        direct = isinstance(message, Message) and self.publisher_cls is _Publisher
        content_type = message.content_type if direct else message.properties.get("content_type")
        serializer = registry.type_to_name.get(content_type)
        if serializer not in registry._encoders:
            serializer = self.serializer

        error = serialize(exc_info[1]) if exc_info is not None else None
        try:
            encoded = serialization.dumps({"result": result, "error": error}, serializer)
        except Exception:
            exc_info = sys.exc_info()
            error = serialize(UnserializableValueError(result))
            result = None
            encoded = None

        reply_to = message.delivery.reply_to if direct else message.properties.get("reply_to")
        if reply_to is None:
            _log.warning("A request has no reply_to: nobody will get its result (%s)", message)
        elif direct and publish.get_producer is _get_producer:
            if encoded is None:
                encoded = serialization.dumps({"result": None, "error": error}, serializer)
            self._respond(encoded)
        else:
            publisher = self.publisher_cls(
                self.amqp_uri, ssl=self.ssl, login_method=self.login_method
            )
            publisher.publish(
                {"result": result, "error": error},
                serializer=serializer,
                exchange=self.exchange,
                routing_key=reply_to,
                correlation_id=message.properties.get("correlation_id"),
            )
        return result, exc_info

    def _respond(self, encoded: tuple[str, str, bytes]) -> None:
        content_type, content_encoding, body = encoded
        message = self.message
        try:
            message.respond(
                connection.options(self.amqp_uri, self.ssl, self.login_method),
                self.exchange.name,
                body,
                content_type,
                content_encoding,
            )
        except _nameko.AmqpError as exc:
            # The broker was away for longer than was retried. The request is not done with: it
            # comes again, here or elsewhere, once the broker is back.
            lost = exc.kind in ("lost", "io", "timeout")
            _log.error(
                "The reply to `%s` could not be sent, %s: %s",
                message.delivery.routing_key,
                "the request goes back to its queue" if lost else "its caller will not get one",
                exc,
            )
            if lost and not message.acknowledged:
                message.requeue()


# The originals: where a test or an extension has put something else, that is used.
_Publisher = Publisher
_publish = Publisher.publish
_get_producer = publish.get_producer


class ReplyListener(SharedExtension):
    """Receives the replies to a container's calls.

    Replies are matched with their calls in the compiled half, so they never wait for a worker.
    Where :meth:`handle_message` is overridden or patched, replies come to it instead, one after
    the other: it must not wait for anything.

    Options are the consumer options of :class:`nameko.messaging.Consumer`.
    """

    queue_consumer = QueueConsumer()
    # Seconds to wait for a reply; None: for ever.
    timeout: float | None = None
    queue: Queue
    routing_key: str
    # What replies may be serialized with; set with _native.
    _acceptable: Acceptable

    def __init__(self, **consumer_options: Any) -> None:
        self.consumer_options = take_consumer_options(self, consumer_options)
        # Correlation id -> where the body of the reply is sent to, for replies that come through
        # handle_message.
        self._reply_events: dict[str | None, Any] = {}
        # The compiled half, once it consumes.
        self._native: _nameko.ReplyListener | None = None
        # The process that consumes.
        self._process: int | None = None
        super().__init__(**consumer_options)

    def setup(self) -> None:
        # The name that version 3 has for it.
        self.consumer = self.queue_consumer
        reply_queue_uuid = uuid.uuid4()
        self.routing_key = str(reply_queue_uuid)
        self.queue = Queue(
            RPC_REPLY_QUEUE_TEMPLATE.format(self.container.service_name, reply_queue_uuid),
            exchange=get_rpc_exchange(self.container.config),
            routing_key=self.routing_key,
            queue_arguments={"x-expires": RPC_REPLY_QUEUE_TTL},
        )
        self.queue_consumer.register_provider(self)

    def stop(self) -> None:
        self.queue_consumer.unregister_provider(self)
        super().stop()

    def attach(self, consumers: _nameko.Consumers, prefetch: int | None) -> Any:
        """Consume in the compiled half. What is not matched there comes to handle_message."""
        accept = self.consumer_options.get("accept") or self.container.accept
        self._acceptable = Acceptable(accept)
        self._process = os.getpid()
        self._native = _nameko.ReplyListener(consumers, queue_to_dict(self.queue), prefetch)
        self._native.on_unknown(self._handle_delivery)
        return self._native

    def get_reply_event(self, correlation_id: str) -> Any:
        """Where the reply to a call that is about to be made can be waited for.

        RuntimeError in a forked child, to which no reply would come.
        """
        if self._process is not None and self._process != os.getpid():
            raise RuntimeError(
                "this client was started in another process, which gets its replies: start a "
                "client in each process, after the fork (nameko.standalone.rpc.ClusterRpcProxy)"
            )
        if (
            self._native is not None
            and type(self).handle_message is _handle_reply
            and "handle_message" not in self.__dict__
        ):
            return ReplyEvent(self._native.expect(correlation_id), self.timeout, self._acceptable)
        forget = partial(self._reply_events.pop, correlation_id, None)
        reply_event = HandledReply(self.timeout, forget)
        self._reply_events[correlation_id] = reply_event
        return reply_event

    def handle_message(self, body: Any, message: Any) -> None:
        self.queue_consumer.ack_message(message)
        correlation_id = message.properties.get("correlation_id")
        client_event = self._reply_events.pop(correlation_id, None)
        if client_event is not None:
            client_event.send(body)
        else:
            self.on_unknown_reply(correlation_id)

    def _handle_delivery(self, delivery: _nameko.Delivery) -> None:
        message = Message(delivery, None, self._acceptable)
        try:
            self.handle_message(message.decode(), message)
        except Exception as exc:
            # For whoever waits for the reply; it is lost.
            client_event = self._reply_events.pop(delivery.correlation_id, None)
            if client_event is not None:
                client_event.send_exception(exc)
            else:
                _log.error("A reply that nobody waits for could not be handled", exc_info=True)

    def on_unknown_reply(self, correlation_id: str | None) -> None:
        """Called for a reply that nobody waits for, or waits for any more."""
        _log.debug("Unknown correlation id: %s", correlation_id)


# The original: where a test or an extension has put something else, that is used.
_handle_reply = ReplyListener.handle_message


class _Caller(DependencyProvider):
    """What the dependencies that make calls have in common."""

    rpc_reply_listener = ReplyListener()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Subclasses written for version 3 have theirs under this name.
        if "reply_listener" in cls.__dict__:
            cls.rpc_reply_listener = cls.__dict__["reply_listener"]


class RpcProxy(_Caller):
    """Injects a proxy of another service: ``self.<name>.<method>(*args, **kwargs)``.

    ``timeout`` is the seconds to wait for each reply, for ever without. Other options are those of
    :class:`nameko.amqp.publish.Publisher`, and ``uri``, ``ssl`` and ``login_method`` for sending
    requests over a connection other than the configured one. Inside ``async def`` methods calls
    are awaited.
    """

    def __init__(self, target_service: str, **options: Any) -> None:
        self.target_service = target_service
        self.options = options

    def get_dependency(self, worker_ctx: Any) -> Any:
        return ServiceProxy(
            worker_ctx, self.target_service, self.rpc_reply_listener, **self.options
        )


class ServiceProxy:
    """Another service, as seen by one worker. Its attributes are the methods."""

    def __init__(
        self, worker_ctx: Any, service_name: str, reply_listener: Any, **options: Any
    ) -> None:
        self.worker_ctx = worker_ctx
        self.service_name = service_name
        self.reply_listener = reply_listener
        self.options = options

    def __getattr__(self, name: str) -> MethodProxy:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)  # copy, pickle and consoles look for such names
        return MethodProxy(
            self.worker_ctx, self.service_name, name, self.reply_listener, **self.options
        )

    def __getitem__(self, name: str) -> MethodProxy:
        return getattr(self, name)

    def __repr__(self) -> str:
        return "<proxy service: {}>".format(self.service_name)


class ClusterRpc(_Caller):
    """Injects a proxy of all services: ``self.<name>.<service>.<method>(*args, **kwargs)``.

    Options are those of :class:`RpcProxy`.
    """

    def __init__(self, **options: Any) -> None:
        self.options = options

    def get_dependency(self, worker_ctx: Any) -> Any:
        return ClusterProxy(worker_ctx, self.rpc_reply_listener, **self.options)


class ClusterProxy:
    """All services. Its attributes are services; ``[name]`` takes any name."""

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


class MethodProxy(HeaderEncoder):
    """A method of another service. Calling it makes the call and waits for the reply.

    Called where an asyncio loop runs, it returns an awaitable instead.
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
        # Seconds to wait for the reply, where the proxy sets it.
        self.timeout: float | None = options.pop("timeout", None)

        # Class attributes of a subclass, where versions before 2.7 had these options.
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
            **options,
        )

    @property
    def container(self) -> Any:
        return self.worker_ctx.container

    @property
    def context_data(self) -> dict[str, Any]:
        """What goes with a call; what is set in it goes too."""
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
        """The serializer used where the options name none."""
        return self.container.config.get(SERIALIZER_CONFIG_KEY, DEFAULT_SERIALIZER)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if loop.running_loop() is not None:
            return self._call_on_loop(args, kwargs)
        return (self._start(args, kwargs) or self._call(*args, **kwargs)).result()

    def call_async(self, *args: Any, **kwargs: Any) -> RpcReply:
        """Make the call and do not wait for the reply.

        UnknownService is raised here; where an asyncio loop runs, when the reply is awaited.
        """
        if loop.running_loop() is not None:
            reply = self._start(args, kwargs)
            if reply is not None:
                return reply
        return self._call(*args, **kwargs)

    async def _call_on_loop(self, args: Any, kwargs: Any) -> Any:
        reply = self._start(args, kwargs)
        if reply is None:
            running = asyncio.get_running_loop()
            reply = await running.run_in_executor(None, partial(self._call, *args, **kwargs))
        return await reply

    def _call(self, *args: Any, **kwargs: Any) -> RpcReply:
        """Publish the request through the publisher, and wait until the broker has it."""
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
        """Hand the request to the compiled half and do not wait for anything: if it cannot be
        sent, its reply fails. None where something has replaced the ways of publishing."""
        publisher = self.publisher
        if (
            type(publisher) is not _Publisher
            or _Publisher.publish is not _publish
            or publish.get_producer is not _get_producer
            or not publisher.use_confirms
            or "publish" in publisher.__dict__
            or type(self)._call is not _call
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
        retry = publish.retry_arguments(options.pop("retry"), options.pop("retry_policy"))
        message = publish.prepare({"args": args, "kwargs": kwargs}, options)
        producer = publish.Producer(
            connection.options(publisher.amqp_uri, publisher.ssl, publisher.login_method)
        )
        producer.publisher.call(
            reply_event.pending,
            message.exchange,
            message.routing_key,
            message.body,
            message.properties,
            **retry,
        )
        return RpcReply(reply_event, self.service_name, correlation_id)

    def _expect(self, correlation_id: str) -> Any:
        reply_event = self.reply_listener.get_reply_event(correlation_id)
        if self.timeout is not None and isinstance(reply_event, (ReplyEvent, HandledReply)):
            reply_event.timeout = self.timeout
        return reply_event

    def _publish_arguments(self, correlation_id: str) -> dict[str, Any]:
        # Mandatory: the broker returns a request that no service consumes.
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


# The original, as above.
_call = MethodProxy._call

# The names that version 3 has for them.
ServiceRpc = RpcProxy
Client = MethodProxy
RpcCall = RpcReply


# It takes note of what is above.
from nameko.fastpath import FastPath  # noqa: E402
