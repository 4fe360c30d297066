"""Publishing messages."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from kombu import Connection, Queue
from kombu.compression import compress
from kombu.exceptions import ChannelError  # noqa: F401, imported from here in Nameko 2
from kombu.pools import connections, producers  # noqa: F401

from nameko import _nameko, loop, serialization
from nameko._nameko import PatchGuard
from nameko.amqp import connection
from nameko.amqp.entities import exchange_to_dict, may_be_deleted, queue_to_dict
from nameko.amqp.errors import UndeliverableMessage, translate
from nameko.constants import DEFAULT_RETRY_POLICY, DEFAULT_TRANSPORT_OPTIONS, PERSISTENT
from nameko.utils import green

__all__ = [
    "Outgoing",
    "Producer",
    "Publisher",
    "UndeliverableMessage",
    "get_connection",
    "get_producer",
]

_DELIVERY_MODES = {"transient": 1, "persistent": 2}


@contextmanager
def get_connection(
    amqp_uri: str,
    ssl: Any = None,
    login_method: str | None = None,
    transport_options: dict[str, Any] | None = None,
) -> Iterator[Connection]:
    """Yields a kombu connection from kombu's pool, for direct use by user code.

    This package opens no other kombu connections.
    """
    if not transport_options:
        transport_options = DEFAULT_TRANSPORT_OPTIONS.copy()
    conn = Connection(
        connection.broker_uri(amqp_uri),
        transport_options=transport_options,
        ssl=ssl,
        login_method=login_method,
    )
    with connections[conn].acquire(block=True) as pooled:
        yield pooled


@contextmanager
def get_producer(
    amqp_uri: str,
    confirms: bool = True,
    ssl: Any = None,
    login_method: str | None = None,
    transport_options: dict[str, Any] | None = None,
    heartbeat: connection.Heartbeat = connection.UNSET,
) -> Iterator[Producer]:
    """Yields a :class:`Producer` on the shared connection of the process to this broker.

    ``transport_options`` are ignored: the shared connection has its own reconnect policy.
    """
    yield Producer(connection.options(amqp_uri, ssl, login_method, heartbeat), confirms)


class Outgoing(NamedTuple):
    """A serialized message with its properties."""

    exchange: str
    routing_key: str
    body: bytes
    properties: dict[str, Any]


class Producer:
    """Publishes on the shared connection of the process to a broker."""

    __slots__ = ("_options", "confirms", "publisher")

    # Options -> entities declared there, so that `declare` reaches the broker only once.
    _declared: dict[_nameko.Options, set[Any]] = {}
    _publishers: dict[_nameko.Options, _nameko.Publisher] = {}

    def __init__(self, options: _nameko.Options, confirms: bool = True) -> None:
        self._options = options
        self.confirms = confirms
        publisher = self._publishers.get(options)
        if publisher is None:
            publisher = self._publishers.setdefault(options, _nameko.Publisher(options))
        # The compiled half, which connects, confirms and retries.
        self.publisher = publisher

    def publish(
        self,
        payload: Any,
        mandatory: bool = False,
        declare: Any = None,
        retry: bool = False,
        retry_policy: dict[str, Any] | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> None:
        """Publishes a message and waits for its confirm, at most ``timeout`` seconds with all
        retries; ``math.inf`` waits as long as the broker takes. The default is 20 seconds and the
        intervals of the retries, without limit for an unlimited number of retries.

        ``options`` are those of :func:`prepare`. Raises the exceptions of kombu and py-amqp,
        ``PublishTimeout`` with the reason if the broker takes longer, and ``UndeliverableMessage``
        if a mandatory message is not routed to any queue.
        """
        if declare:
            self.declare(declare)
        message = self._outgoing(payload, mandatory, retry, retry_policy, options)
        try:
            return green.run(self.publisher.publish, **message, timeout=timeout)
        except _nameko.AmqpError as exc:
            if not self._should_redeclare(exc, declare):
                raise translate(exc, retried=retry) from None
        self.declare(declare)
        try:
            green.run(self.publisher.publish, **message, timeout=timeout)
        except _nameko.AmqpError as exc:
            raise translate(exc, retried=retry) from None

    async def publish_on_loop(
        self,
        payload: Any,
        mandatory: bool = False,
        declare: Any = None,
        retry: bool = False,
        retry_policy: dict[str, Any] | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> None:
        """Like :meth:`publish`, awaitable on the running loop."""
        running = asyncio.get_running_loop()
        if declare and self._undeclared(declare):
            await running.run_in_executor(None, self.declare, declare)
        message = self._outgoing(payload, mandatory, retry, retry_policy, options)
        try:
            return await self._publish_on_loop(message, timeout)
        except _nameko.AmqpError as exc:
            if not self._should_redeclare(exc, declare):
                raise translate(exc, retried=retry) from None
        await running.run_in_executor(None, self.declare, declare)
        try:
            await self._publish_on_loop(message, timeout)
        except _nameko.AmqpError as exc:
            raise translate(exc, retried=retry) from None

    def declare(self, entities: Any) -> None:
        """Declares exchanges and queues that have not been declared before."""
        new = self._undeclared(entities)
        if not new:
            return
        try:
            green.run(self.publisher.declare, *_split(new.values()))
        except _nameko.AmqpError as exc:
            raise translate(exc) from None
        self._declared.setdefault(self._options, set()).update(new)

    def start_declare(self, entities: Any) -> _nameko.Pending | None:
        """Declares in the background, once the broker can be reached and accepts the login. None if
        everything has been declared before."""
        new = self._undeclared(entities)
        return self.publisher.start_declare(*_split(new.values())) if new else None

    def note_declared(self, entities: Any) -> None:
        """Records that entities have been declared."""
        self._declared.setdefault(self._options, set()).update(self._undeclared(entities))

    def _undeclared(self, entities: Any) -> dict[Any, Any]:
        """Returns the entities that have not been declared before, or may have been deleted by the
        broker since, by key."""
        declared = self._declared.get(self._options, ())
        keyed = {_entity_key(entity): entity for entity in entities}
        return {
            key: entity
            for key, entity in keyed.items()
            if key not in declared or self._can_vanish_unnoticed(entity)
        }

    def _can_vanish_unnoticed(self, entity: Any) -> bool:
        """Whether the broker may delete the entity without the publisher noticing. A missing
        exchange is noticed by the reply to a message with confirm."""
        if isinstance(entity, Queue):
            return may_be_deleted(entity)
        return bool(entity.auto_delete) and not self.confirms

    def _should_redeclare(self, exc: _nameko.AmqpError, declare: Any) -> bool:
        """Whether a message may have failed because a declared entity has been deleted."""
        if not declare or exc.kind == "unroutable":
            return False
        self._declared.pop(self._options, None)
        return exc.code == 404

    def _outgoing(
        self,
        payload: Any,
        mandatory: bool,
        retry: bool,
        retry_policy: dict[str, Any] | None,
        options: dict[str, Any],
    ) -> dict[str, Any]:
        """Returns the arguments of the compiled publisher for a message."""
        return {
            "message": prepare(payload, options),
            "retry": compiled_retry(retry, retry_policy),
            "mandatory": bool(mandatory),
            "confirm": bool(self.confirms),
        }

    async def _publish_on_loop(self, message: dict[str, Any], timeout: float | None) -> None:
        pending = self.publisher.start_publish(**message, timeout=timeout)
        await loop.wait_done(pending, None)
        pending.wait()


def _split(entities: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns exchanges and queues for the compiled half."""
    exchanges, queues = [], []
    for entity in entities:
        if isinstance(entity, Queue):
            queues.append(queue_to_dict(entity))
        else:
            exchanges.append(exchange_to_dict(entity))
    return exchanges, queues


def _entity_key(entity: Any) -> Any:
    if isinstance(entity, Queue):
        return repr(queue_to_dict(entity))
    return (
        entity.name,
        entity.type,
        entity.durable,
        entity.auto_delete,
        entity.no_declare,
        repr(entity.arguments) if entity.arguments else None,
    )


_NO_RETRY = _nameko.Retry(max_retries=0)
_DEFAULT_RETRY = _nameko.Retry()


def compiled_retry(retry: bool, retry_policy: dict[str, Any] | None) -> _nameko.Retry:
    """Converts a kombu retry policy. ``max_retries`` of None retries forever."""
    if not retry:
        return _NO_RETRY
    if not retry_policy:
        return _DEFAULT_RETRY
    known = ("max_retries", "interval_start", "interval_step", "interval_max")
    return _nameko.Retry(**{name: retry_policy[name] for name in known if name in retry_policy})


def prepare(payload: Any, options: dict[str, Any]) -> Outgoing:
    """Serializes a message and sets its properties. ``options`` is modified.

    Supported options are ``exchange`` (a kombu exchange or a name), ``routing_key``, ``headers``,
    ``serializer``, ``compression``, ``delivery_mode``, ``priority``, ``expiration`` (seconds),
    ``content_type`` and ``content_encoding``. With ``content_type``, the payload is not serialized.
    All others are properties of the message.
    """
    exchange = options.pop("exchange", None)
    routing_key = options.pop("routing_key", None)
    headers = options.pop("headers", None)
    if headers is None:
        headers = {}
    serializer = options.pop("serializer", None)
    compression = options.pop("compression", None)
    content_type = options.get("content_type")
    if content_type:
        content_encoding = options.get("content_encoding")
        body = payload
        if isinstance(body, str):
            content_encoding = content_encoding or "utf-8"
            body = body.encode(content_encoding)
        options["content_encoding"] = content_encoding or "binary"
    else:
        options["content_type"], options["content_encoding"], body = serialization.dumps(
            payload, serializer
        )
    if compression:
        body, headers["compression"] = compress(body, compression)
    options["application_headers"] = headers

    delivery_mode = options.get("delivery_mode")
    if exchange is None or isinstance(exchange, str):
        exchange_name = exchange or ""
    else:
        exchange_name = exchange.name or ""
        delivery_mode = options["delivery_mode"] = delivery_mode or exchange.delivery_mode
    if isinstance(delivery_mode, str):
        options["delivery_mode"] = _DELIVERY_MODES.get(delivery_mode, delivery_mode)
    expiration = options.get("expiration")
    if expiration is not None:
        options["expiration"] = str(int(expiration * 1000))
    reply_to = options.get("reply_to")
    if isinstance(reply_to, Queue):
        options["reply_to"] = reply_to.name
    options.setdefault("priority", 0)
    return Outgoing(exchange_name, routing_key or "", body, options)


class Publisher:
    """Publishes messages with preset options.

    Options of :meth:`publish` override those of the constructor, which override the class
    attributes.
    """

    # Wait for the confirm of the broker. Without it, messages can be lost silently.
    use_confirms: bool = True
    # Ignored, see :func:`get_producer`.
    transport_options: dict[str, Any] = DEFAULT_TRANSPORT_OPTIONS.copy()
    # Persistent messages survive a restart of the broker.
    delivery_mode: Any = PERSISTENT
    # Raise UndeliverableMessage if the message is not routed to any queue. Requires confirms.
    mandatory: bool = False
    # Priority, for priority queues.
    priority: int = 0
    # Seconds after which the broker may drop the message.
    expiration: float | None = None
    # A name in kombu's serializer registry.
    serializer: str | None = "json"
    # A name in kombu's compression registry.
    compression: str | None = None
    # Publish again after the loss of the connection, by `retry_policy`.
    retry: bool = True
    retry_policy: dict[str, Any] | None = DEFAULT_RETRY_POLICY
    # kombu Exchanges and Queues to declare before publishing.
    declare: list[Any] = []

    def __init__(
        self,
        amqp_uri: str,
        use_confirms: bool | None = None,
        serializer: str | None = None,
        compression: str | None = None,
        delivery_mode: Any = None,
        mandatory: bool | None = None,
        priority: int | None = None,
        expiration: float | None = None,
        declare: list[Any] | None = None,
        retry: bool | None = None,
        retry_policy: dict[str, Any] | None = None,
        ssl: Any = None,
        login_method: str | None = None,
        heartbeat: connection.Heartbeat = connection.UNSET,
        **publish_kwargs: Any,
    ) -> None:
        self.amqp_uri = amqp_uri
        self.ssl = ssl
        self.login_method = login_method
        # In seconds; None or 0 for none. By default that of the URI, else 60 s.
        self.heartbeat = heartbeat
        if use_confirms is not None:
            self.use_confirms = use_confirms
        if delivery_mode is not None:
            self.delivery_mode = delivery_mode
        if mandatory is not None:
            self.mandatory = mandatory
        if priority is not None:
            self.priority = priority
        if expiration is not None:
            self.expiration = expiration
        if serializer is not None:
            self.serializer = serializer
        if compression is not None:
            self.compression = compression
        if retry is not None:
            self.retry = retry
        if retry_policy is not None:
            self.retry_policy = retry_policy
        if declare is not None:
            self.declare = declare
        # Further options of each message: exchange, routing_key, user_id, ...
        self.publish_kwargs = publish_kwargs

    def connection_options(self) -> _nameko.Options:
        """Returns the options of the connection."""
        return connection.options(self.amqp_uri, self.ssl, self.login_method, self.heartbeat)

    def publish(self, payload: Any, **kwargs: Any) -> None:
        """Publishes a message, with options for this message."""
        options = self.publish_options(kwargs)
        use_confirms = options.pop("use_confirms")
        transport_options = {**options.pop("transport_options"), "confirm_publish": use_confirms}

        # Not passed by default, for replacements of `get_producer` with upstream's signature.
        heartbeat: dict[str, Any] = (
            {} if self.heartbeat is connection.UNSET else {"heartbeat": self.heartbeat}
        )
        with get_producer(
            self.amqp_uri,
            use_confirms,
            self.ssl,
            self.login_method,
            transport_options,
            **heartbeat,
        ) as producer:
            producer.publish(payload, **options)

        _warn_if_undetectable(options["mandatory"], use_confirms)

    async def publish_on_loop(self, payload: Any, **kwargs: Any) -> None:
        """Like :meth:`publish`, awaitable on the running loop."""
        options = self.publish_options(kwargs)
        use_confirms = options.pop("use_confirms")
        del options["transport_options"]
        producer = Producer(self.connection_options(), use_confirms)
        await producer.publish_on_loop(payload, **options)
        _warn_if_undetectable(options["mandatory"], use_confirms)

    def publish_options(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Returns the options of a message, merged from all three levels. ``kwargs`` is
        modified."""
        options = self.publish_kwargs.copy()
        # Headers are merged; `extra_headers` take precedence.
        headers = {**options.pop("headers", {}), **kwargs.pop("headers", {})}
        headers.update(kwargs.pop("extra_headers", {}))
        declare = [*self.declare, *kwargs.pop("declare", ())]
        options.update(
            headers=headers,
            declare=declare,
            use_confirms=self.use_confirms,
            transport_options=self.transport_options,
            delivery_mode=self.delivery_mode,
            mandatory=self.mandatory,
            priority=self.priority,
            expiration=self.expiration,
            serializer=self.serializer,
            compression=self.compression,
            retry=self.retry,
            retry_policy=self.retry_policy,
        )
        options.update(kwargs)
        return options


def publish_or_await(publisher: Any, payload: Any, **options: Any) -> Any:
    """Publishes a message; on the loop of ``async def`` methods, returns an awaitable instead."""
    running = loop.awaiting_loop()
    if running is None:
        return publisher.publish(payload, **options)
    if (
        getattr(type(publisher), "publish", None) is _publish
        and "publish" not in publisher.__dict__
        and producer_guard.intact()
    ):
        return publisher.publish_on_loop(payload, **options)
    return running.run_in_executor(None, partial(publisher.publish, payload, **options))


# The original function, to detect a class that overrides it.
_publish = Publisher.publish
# For guards of what is published by the compiled half instead of a producer.
PRODUCER_HOOK = (globals(), "get_producer", get_producer)
producer_guard = PatchGuard([PRODUCER_HOOK])


def _warn_if_undetectable(mandatory: bool, use_confirms: bool) -> None:
    if mandatory and not use_confirms:
        warnings.warn(
            "Mandatory delivery was requested, but unroutable messages cannot be detected "
            "without publish confirms enabled.",
            stacklevel=3,
        )
