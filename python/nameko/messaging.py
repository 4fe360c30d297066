"""Entrypoints for the messages of a queue, and dependencies that publish messages."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from logging import getLogger
from typing import TYPE_CHECKING, Any, NamedTuple

from amqp.exceptions import ConnectionError as ConnectionError
from kombu import Connection as Connection
from kombu import Exchange, Queue
from kombu.common import maybe_declare as maybe_declare
from kombu.mixins import ConsumerMixin as ConsumerMixin

from nameko import _nameko, serialization
from nameko._config import whole_number
from nameko.amqp import connection
from nameko.amqp.entities import queue_to_dict
from nameko.amqp.errors import translate
from nameko.amqp.message import Channel, Message
from nameko.amqp.publish import Producer, get_connection, publish_or_await
from nameko.amqp.publish import Publisher as PublisherCore
from nameko.call_context import CallContext, context_values
from nameko.constants import (
    AMQP_SSL_CONFIG_KEY,
    DEFAULT_HEARTBEAT,
    HEADER_PREFIX,
    HEARTBEAT_CONFIG_KEY,
    LOGIN_METHOD_CONFIG_KEY,
    PREFETCH_COUNT_CONFIG_KEY,
)
from nameko.constants import AMQP_URI_CONFIG_KEY as AMQP_URI_CONFIG_KEY
from nameko.constants import DEFAULT_TRANSPORT_OPTIONS as DEFAULT_TRANSPORT_OPTIONS
from nameko.constants import TRANSPORT_OPTIONS_CONFIG_KEY as TRANSPORT_OPTIONS_CONFIG_KEY
from nameko.exceptions import ConfigurationError, ContainerBeingKilled
from nameko.extensions import (
    DependencyProvider,
    Entrypoint,
    Method,
    ProviderCollector,
    SharedExtension,
)
from nameko.utils import sanitize_url
from nameko.utils.jobs import run_jobs
from nameko.utils.threads import Event as Event
from nameko.utils.threads import ThreadKilled
from nameko.workers import WorkerPool, is_nonblocking, nonblocking, offload

_log = getLogger(__name__)

# Seconds that the setup of a publisher waits for its declarations. Its start waits for the rest.
DECLARE_GRACE = 3.0


def encode_to_headers(
    context_data: Mapping[str, Any], prefix: str = HEADER_PREFIX
) -> dict[str, Any]:
    """Returns message headers for context data, without values of None."""
    return {
        "{}.{}".format(prefix, key): value
        for key, value in context_data.items()
        if value is not None
    }


def decode_from_headers(headers: Mapping[str, Any], prefix: str = HEADER_PREFIX) -> dict[str, Any]:
    """Returns context data from message headers. Headers without the prefix keep their names."""
    return _nameko.decode_from_headers(headers, prefix)


def warn_about_none_values(context_data: Any) -> None:
    """Warns about values of None, which cannot be sent in a header."""
    if isinstance(context_data, dict) and None in context_data.values():
        warnings.warn(
            "Attempted to publish unserialisable header value. "
            "Headers with a value of `None` will be dropped from "
            "the payload.",
            UserWarning,
            stacklevel=3,
        )


class HeaderEncoder:
    """Mixin that encodes a worker's context data into message headers."""

    header_prefix = HEADER_PREFIX

    def _get_header_name(self, key: str) -> str:
        return "{}.{}".format(self.header_prefix, key)

    def get_message_headers(self, worker_ctx: Any) -> dict[str, Any]:
        data = worker_ctx.context_data
        warn_about_none_values(data)
        return {
            self._get_header_name(key): value for key, value in data.items() if value is not None
        }


class HeaderDecoder:
    """Mixin that decodes context data from message headers.

    Headers without the prefix keep their names.
    """

    header_prefix = HEADER_PREFIX

    def _strip_header_name(self, key: str) -> str:
        return key.removeprefix(self.header_prefix + ".")

    def unpack_message_headers(self, message: Any) -> dict[str, Any]:
        if type(self)._strip_header_name is HeaderDecoder._strip_header_name:
            return decode_from_headers(message.headers, self.header_prefix)
        return {self._strip_header_name(key): value for key, value in message.headers.items()}


def warn_about_compat_attributes(extension: Any, place: str, options: dict[str, Any]) -> None:
    """Adds publisher options from class attributes, their place before version 2.7, and warns."""
    for name in ("retry", "retry_policy", "use_confirms"):
        if hasattr(extension, name):
            warnings.warn(
                "'{}' should be specified at {} time rather than as a class attribute. See "
                "CHANGES, version 2.7.0 for more details. This warning will be removed in "
                "version 2.9.0.".format(name, place),
                DeprecationWarning,
                stacklevel=3,
            )
            options[name] = getattr(extension, name)


class Sender:
    """The function injected by :class:`Publisher`: ``send(worker_ctx, ...)`` for one worker."""

    __slots__ = ("_send", "_worker_ctx")

    def __init__(self, send: Callable[..., Any], worker_ctx: Any) -> None:
        self._send = send
        self._worker_ctx = worker_ctx

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._send(self._worker_ctx, *args, **kwargs)

    def with_context(
        self, context_data: Mapping[str, Any] | None = None, /, **values: Any
    ) -> Sender:
        """Returns a function that sends these values in addition to the context of the worker.

        None removes a value.
        """
        values = context_values(context_data, values)
        return Sender(self._send, CallContext(self._worker_ctx, values))


class Publisher(DependencyProvider, HeaderEncoder):
    """Injects a function that publishes a message: ``self.publish(payload, **options)``.

    Messages are published to ``exchange``, by default to the default exchange. It is declared, as
    are the exchanges and queues in ``declare``. Options are those of
    :class:`nameko.amqp.publish.Publisher`, and ``uri``, ``ssl`` and ``login_method`` for another
    broker than the configured one. Inside ``async def`` methods the call is awaited.
    """

    publisher_cls = PublisherCore
    # Created by setup().
    publisher: PublisherCore

    stop_interrupts_start = True
    # Declares what waits for the broker.
    _producer: Producer
    _declaring: _nameko.Pending | None = None

    def __init__(
        self,
        exchange: Exchange | None = None,
        queue: Queue | None = None,
        declare: list[Any] | None = None,
        **options: Any,
    ) -> None:
        self.exchange = exchange
        self.options = options
        self.declare = list(declare) if declare is not None else []
        if self.exchange:
            self.declare.append(self.exchange)
        if queue is not None:
            warnings.warn(
                "The signature of `Publisher` has changed. The `queue` kwarg is now deprecated. "
                "You can use the `declare` kwarg to provide a list of Kombu queues to be declared. "
                "See CHANGES, version 2.7.0 for more details. This warning will be removed in "
                "version 2.9.0.",
                DeprecationWarning,
                stacklevel=2,
            )
            if exchange is None:
                self.exchange = queue.exchange
            self.declare.append(queue)
        warn_about_compat_attributes(self, "instantiation", self.options)

    @property
    def amqp_uri(self) -> str:
        return self.options.get("uri") or connection.amqp_uri(self.container.config)

    @property
    def serializer(self) -> str:
        """The default serializer."""
        return self.container.serializer

    def setup(self) -> None:
        config = self.container.config
        options = dict(self.options)
        options.pop("uri", None)
        ssl = options.pop("ssl", config.get(AMQP_SSL_CONFIG_KEY))
        login_method = options.pop("login_method", config.get(LOGIN_METHOD_CONFIG_KEY))
        options = {**connection.publisher_settings(config), **options}
        if self.declare:
            settings = connection.options(
                self.amqp_uri, ssl, login_method, options.get("heartbeat", connection.UNSET)
            )
            self._producer = Producer(settings)
            self._declaring = self._producer.start_declare(self.declare)
            self._wait_declared(DECLARE_GRACE)
        serializer = options.pop("serializer", self.serializer)
        self.publisher = self.publisher_cls(
            self.amqp_uri,
            serializer=serializer,
            exchange=self.exchange,
            declare=self.declare,
            ssl=ssl,
            login_method=login_method,
            **options,
        )

    def start(self) -> None:
        """Waits for the broker if it could not be reached at the setup."""
        self._wait_declared(None)

    def _wait_declared(self, timeout: float | None) -> None:
        declaring = self._declaring
        if declaring is None:
            return
        try:
            declaring.wait(timeout)
        except TimeoutError:
            return
        except _nameko.AmqpError as exc:
            raise translate(exc) from None
        except RuntimeError:
            # Cancelled by a stop, or the process ends.
            _log.debug("stopped before the broker could be reached: %s", self)
        else:
            self._producer.note_declared(self.declare)
        self._declaring = None

    def stop(self) -> None:
        declaring = self._declaring
        if declaring is not None:
            declaring.cancel()

    def kill(self) -> None:
        Publisher.stop(self)

    @nonblocking
    def get_dependency(self, worker_ctx: Any) -> Callable[..., Any]:
        warn_about_none_values(worker_ctx.data)
        return Sender(self._publish, worker_ctx)

    def _publish(self, worker_ctx: Any, msg: Any, **kwargs: Any) -> Any:
        # Computed for each message, because the worker may have changed its context data.
        headers = self.get_message_headers(worker_ctx)
        return publish_or_await(self.publisher, msg, extra_headers=headers, **kwargs)


class QueueConsumerStopped(Exception):
    """Raised in Nameko 2 by a consumer that was stopped while it started; not raised here."""


class ConnectionParameters(NamedTuple):
    """Parameters of a connection. ``heartbeat`` is in seconds, None or 0 for none."""

    amqp_uri: str
    heartbeat: int | None
    ssl: Any
    login_method: str | None


class QueueConsumer(SharedExtension, ProviderCollector):
    """Consumes from the queues of its providers over one connection with one channel.

    A provider has a kombu ``queue`` and ``handle_message(body, message)``, and optionally
    ``consumer_options``, see :class:`Consumer`. The compiled client keeps the connection alive. It
    reconnects and declares everything again.

    ``heartbeat`` in seconds replaces the configured one. Each value has a connection of its own.
    """

    # A stop does not wait for a start() that waits for the broker.
    stop_interrupts_start = True

    def __init__(self, heartbeat: int | None = None) -> None:
        self._heartbeat = heartbeat
        # Guards the attributes below and the start.
        self._lock = threading.Lock()
        # The compiled half, created by start().
        self._native: _nameko.Consumers | None = None
        # By provider: the number of its consumer in the compiled half, or the compiled object that
        # handles its messages.
        self._consumers: dict[Any, Any] = {}
        # By provider: the fast path that handles its messages.
        self._fast_paths: dict[Any, Any] = {}
        # Providers that are leaving or have left.
        self._unregistering: set[Any] = set()
        self._stopped = False
        self._channel: Channel | None = None
        # The job queue for a container without a worker pool.
        self._jobs: _nameko.Jobs | None = None
        super().__init__()

    @property
    def sharing_key(self) -> Any:
        return type(self) if self._heartbeat is None else (type(self), self._heartbeat)

    @property
    def heartbeat(self) -> int | None:
        """The heartbeat in seconds, None or 0 for none."""
        if self._heartbeat is None:
            return connection.configured_heartbeat(self.container.config)
        return connection.configured_heartbeat({HEARTBEAT_CONFIG_KEY: self._heartbeat})

    @property
    def amqp_uri(self) -> str:
        return connection.amqp_uri(self.container.config)

    @property
    def prefetch_count(self) -> int:
        """The limit of unacknowledged messages of each consumer."""
        max_workers = self.container.max_workers
        config = self.container.config
        # Version 3 spells the key in upper case.
        upper_case = whole_number(config, PREFETCH_COUNT_CONFIG_KEY.upper(), max_workers)
        return whole_number(config, PREFETCH_COUNT_CONFIG_KEY, upper_case) or max_workers

    @property
    def accept(self) -> Any:
        return self.container.accept

    @property
    def ssl(self) -> Any:
        return self.container.config.get(AMQP_SSL_CONFIG_KEY)

    @property
    def login_method(self) -> str | None:
        return self.container.config.get(LOGIN_METHOD_CONFIG_KEY)

    @property
    def queues(self) -> list[Queue]:
        """The queues of all providers."""
        return [provider.queue for provider in list(self._providers)]

    @property
    def consumer_options(self) -> dict[str, Any]:
        """The default consumer options of a provider."""
        return {"prefetch_count": self.prefetch_count, "accept": self.accept}

    @property
    def connection(self) -> ConnectionParameters:
        """The parameters of the connection."""
        return ConnectionParameters(self.amqp_uri, self.heartbeat, self.ssl, self.login_method)

    def establish_connection(self) -> AbstractContextManager[Any]:
        """Returns a kombu connection to the same broker, for use by subclasses."""
        parameters = self.connection
        return get_connection(parameters.amqp_uri, parameters.ssl, parameters.login_method)

    def start(self) -> None:
        """Connects and consumes. Waits for the broker until stop() or kill() is called."""
        with self._lock:
            if self._native is not None or self._stopped or not self._providers:
                return
            parameters = self.connection
            heartbeat: connection.Heartbeat = parameters.heartbeat
            if heartbeat == DEFAULT_HEARTBEAT and self._heartbeat is None:
                heartbeat = connection.heartbeat_setting(self.container.config)
            options = connection.options(
                parameters.amqp_uri,
                parameters.ssl,
                parameters.login_method,
                heartbeat,
                name=getattr(self.container, "service_name", None),
            )
            native = _nameko.Consumers(
                options, on_error=self._on_error, on_connected=self.on_connected
            )
            self._channel = Channel(native)
            # A stop may have begun.
            for provider in self._providers - self._unregistering:
                self._consumers[provider] = self._add(native, provider)
            self._native = native
        _log.debug("waiting for consumer ready %s", self)
        if native.start():
            _log.debug("started %s", self)
        else:
            _log.debug("consumer was stopped before it started %s", self)

    def stop(self) -> None:
        """Waits until the last provider has left, then closes the connection."""
        with self._lock:
            native, self._stopped = self._native, True
        if native is None:
            return
        if not native.connected:
            # Ends a start() that waits for the broker.
            native.stop()
        self.wait_for_providers()
        native.stop()
        super().stop()
        if self._jobs is not None:
            self._jobs.stop()
        _log.debug("stopped %s", self)

    def kill(self) -> None:
        """Drops the connection, so that the broker requeues unacknowledged messages."""
        with self._lock:
            native, self._stopped = self._native, True
        self._providers = set()
        self._last_provider_unregistered.send()
        while self._fast_paths:
            self._fast_paths.popitem()[1].discard()
        if native is not None:
            native.kill()
            if self._jobs is not None:
                self._jobs.stop(discard=True)
            _log.debug("killed %s", self)

    def unregister_provider(self, provider: Any) -> None:
        """Stops consuming for a provider. Returns when it can receive no further message."""
        with self._lock:
            native = self._native
            consumer = self._consumers.pop(provider, None)
            self._unregistering.add(provider)
        if native is not None and isinstance(consumer, int):
            _log.debug("cancelling consumer [%s]: %s", provider, consumer)
            native.cancel(consumer)
        fast_path = self._fast_paths.pop(provider, None)
        if fast_path is not None:
            fast_path.close()
        super().unregister_provider(provider)

    def ack_message(self, message: Any) -> None:
        """Acknowledges the message. No effect if it is settled or its connection is lost."""
        if not (isinstance(message, Message) and message.acknowledged):
            message.ack()

    def requeue_message(self, message: Any) -> None:
        """Requeues the message. No effect if it is settled or its connection is lost."""
        if not (isinstance(message, Message) and message.acknowledged):
            message.requeue()

    def reject_message(self, message: Any) -> None:
        """Rejects the message, which goes to the queue's dead-letter exchange, if it has one. No
        effect if it is settled or its connection is lost."""
        if not (isinstance(message, Message) and message.acknowledged):
            message.reject()

    @nonblocking
    def handle_message(self, provider: Any, body: Any, message: Any) -> None:
        """Called on a worker thread for each message."""
        provider.handle_message(body, message)

    def on_connection_error(self, exc: Exception, interval: float) -> None:
        """Called when connecting failed. The next attempt follows in ``interval`` seconds."""
        _log.warning(
            "Error connecting to broker at {} ({}).\nRetrying in {} seconds.".format(
                sanitize_url(self.amqp_uri), exc, round(interval, 1)
            )
        )

    def on_connected(self) -> None:
        """Called when all queues are declared and consumed, also after a reconnect."""

    def on_decode_error(self, provider: Any, message: Message, exc: Exception) -> None:
        """Called for a message whose body cannot be decoded or is not accepted. Acknowledges it,
        because no other consumer could decode it either."""
        _log.error(
            "Can't decode message body: %s (routing key: %r, content type: %r, encoding: %r)",
            exc,
            message.delivery_info["routing_key"],
            message.content_type,
            message.content_encoding,
        )
        handle_decode_error = getattr(provider, "handle_decode_error", None)
        if handle_decode_error is not None:
            handle_decode_error(message, exc)
        self.ack_message(message)

    def _add(self, native: _nameko.Consumers, provider: Any) -> Any:
        options = getattr(provider, "consumer_options", None) or {}
        prefetch_count = whole_number(options, "prefetch_count", self.prefetch_count)
        # A provider may handle its messages in the compiled half.
        attach = getattr(provider, "attach", None)
        if attach is not None:
            attached = attach(native, prefetch_count)
            if attached is not None:
                return attached
        accepted = serialization.content_types(options.get("accept") or self.accept)
        queue = queue_to_dict(provider.queue)
        handle, args = self._handle_delivery, (provider, accepted)
        pool = getattr(self.container, "worker_pool", None)
        if isinstance(pool, WorkerPool):
            deliver: Callable[[_nameko.Delivery], None] = partial(pool.handle, handle, *args)
            fast_path = self._fast_path(provider, accepted, deliver)
            if fast_path is None:
                return native.add(queue, deliver, pool.jobs, prefetch_count)
            on_loop = fast_path.loop_deliveries()
            self._fast_paths[provider] = fast_path
            return native.add(queue, fast_path.handle, pool.jobs, prefetch_count, on_loop)
        # Another kind of container, in tests for example: one thread handles its messages.
        if self._jobs is None:

            def spawn(jobs: _nameko.Jobs) -> None:
                self.container.spawn_managed_thread(partial(run_jobs, jobs), "run")

            self._jobs = _nameko.Jobs(1, spawn)
            spawn(self._jobs)
        return native.add(queue, partial(handle, *args), self._jobs, prefetch_count)

    def _fast_path(
        self,
        provider: Any,
        accepted: frozenset[str],
        slow_path: Callable[[_nameko.Delivery], None],
    ) -> Any:
        create = getattr(type(provider), "fast_path", None)
        return None if create is None else create(provider, accepted, self._channel, slow_path)

    def _handle_delivery(
        self, provider: Any, accepted: frozenset[str], delivery: _nameko.Delivery
    ) -> None:
        try:
            if not (is_nonblocking(self) and is_nonblocking(provider)):
                offload()
            message = Message(delivery, self._channel, accepted)
            try:
                body = message.decode()
            except Exception as exc:
                self.on_decode_error(provider, message, exc)
            else:
                self.handle_message(provider, body, message)
        except ThreadKilled:
            raise
        except BaseException:
            self.container.fail()

    def _on_error(self, exc: Exception, interval: float) -> None:
        if isinstance(exc, _nameko.AmqpError):
            exc = translate(exc)
        self.on_connection_error(exc, interval)


def take_consumer_options(provider: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Removes the options of a :class:`Consumer` from a provider's keyword arguments and returns
    them. A heartbeat gives the provider a queue consumer of its own."""
    names = ("prefetch_count", "accept", "heartbeat")
    taken = {name: options.pop(name) for name in names if name in options}
    if taken.get("heartbeat") is not None:
        provider.queue_consumer = type(provider.queue_consumer)(heartbeat=taken["heartbeat"])
    return taken


class Consumer(Entrypoint, HeaderDecoder):
    """Entrypoint for the messages of a queue. The method receives the decoded body.

    The message is acknowledged when the method returns or raises. If it raises, the message is
    requeued with ``requeue_on_error``, after a pause that grows with each failure of it; with
    ``reject_on_error`` it goes to the queue's dead-letter
    exchange, or is dropped if the queue has none.

    Options that replace configured ones for this queue: ``prefetch_count``, the limit of
    unacknowledged messages, 0 for no limit; ``accept``, a list of serializers; ``heartbeat`` in
    seconds, which needs a connection of its own.
    """

    queue_consumer = QueueConsumer()

    if TYPE_CHECKING:
        # It always has arguments: a Queue is callable, but not a method.
        @classmethod
        def decorator(  # type: ignore[override]
            cls, *args: Any, **kwargs: Any
        ) -> Callable[[Method], Method]: ...

    # Default for subclasses that do not call this __init__.
    reject_on_error = False

    def __init__(
        self,
        queue: Queue,
        requeue_on_error: bool = False,
        *,
        reject_on_error: bool = False,
        **kwargs: Any,
    ) -> None:
        if requeue_on_error and reject_on_error:
            raise ConfigurationError("`requeue_on_error` and `reject_on_error` exclude each other")
        self.queue = queue
        self.requeue_on_error = requeue_on_error
        self.reject_on_error = reject_on_error
        self.consumer_options = take_consumer_options(self, kwargs)
        super().__init__(**kwargs)

    def setup(self) -> None:
        # The name in version 3.
        self.consumer = self.queue_consumer
        self.queue_consumer.register_provider(self)

    def stop(self) -> None:
        self.queue_consumer.unregister_provider(self)

    @nonblocking
    def handle_message(self, body: Any, message: Any) -> None:
        try:
            self.container.spawn_worker(
                self,
                (body,),
                {},
                context_data=self.unpack_message_headers(message),
                handle_result=partial(self.handle_result, message),
            )
        except ContainerBeingKilled:
            self.queue_consumer.requeue_message(message)

    def handle_result(
        self, message: Any, worker_ctx: Any, result: Any = None, exc_info: Any = None
    ) -> tuple[Any, Any]:
        self.handle_message_processed(message, result, exc_info)
        return result, exc_info

    def handle_message_processed(
        self, message: Any, result: Any = None, exc_info: Any = None
    ) -> None:
        if exc_info is not None and self.requeue_on_error:
            if isinstance(message, Message):
                message.failed_in = self.queue.name
            self.queue_consumer.requeue_message(message)
        elif exc_info is not None and self.reject_on_error:
            self.queue_consumer.reject_message(message)
        else:
            self.queue_consumer.ack_message(message)


consume = Consumer.decorator
