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
from kombu.pools import connections

from nameko import _nameko, loop, serialization
from nameko.amqp import connection
from nameko.amqp.entities import exchange_to_dict, queue_to_dict
from nameko.amqp.errors import BrokerUnreachable, UndeliverableMessage, translate
from nameko.constants import DEFAULT_RETRY_POLICY, DEFAULT_TRANSPORT_OPTIONS, PERSISTENT

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
    """A kombu connection from kombu's pool, for code that talks to the broker by itself.

    Nothing else in this package opens one.
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
) -> Iterator[Producer]:
    """A :class:`Producer` on the connection that the process shares for this broker.

    ``transport_options`` are taken for the signature's sake: the shared connection has its own
    way of reconnecting.
    """
    yield Producer(connection.options(amqp_uri, ssl, login_method), confirms)


class Outgoing(NamedTuple):
    """A message ready to be sent."""

    exchange: str
    routing_key: str
    body: bytes
    properties: dict[str, Any]


class Producer:
    """Publishes on the process's shared connection to one broker."""

    __slots__ = ("_options", "confirms", "publisher")

    # Options -> what is declared there already: publishing with `declare` asks the broker once.
    _declared: dict[_nameko.Options, set[Any]] = {}
    _publishers: dict[_nameko.Options, _nameko.Publisher] = {}

    def __init__(self, options: _nameko.Options, confirms: bool = True) -> None:
        self._options = options
        self.confirms = confirms
        publisher = self._publishers.get(options)
        if publisher is None:
            publisher = self._publishers.setdefault(options, _nameko.Publisher(options))
        # The compiled half, which knows how to connect, confirm and retry.
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
        """Send a message and wait until the broker has it, at most ``timeout`` seconds.

        ``options`` are those of :func:`prepare`. Exceptions are those of kombu and py-amqp;
        ``UndeliverableMessage`` where a mandatory message reached no queue.
        """
        if declare:
            self.declare(declare)
        message = self._outgoing(payload, mandatory, retry, retry_policy, options)
        try:
            return self.publisher.publish(**message, timeout=timeout)
        except _nameko.AmqpError as exc:
            if not self._is_to_declare_again(exc, declare):
                raise translate(exc, retried=retry) from None
        self.declare(declare)
        try:
            self.publisher.publish(**message, timeout=timeout)
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
        """As :meth:`publish`, on the running loop."""
        running = asyncio.get_running_loop()
        if declare and self._undeclared(declare):
            await running.run_in_executor(None, self.declare, declare)
        message = self._outgoing(payload, mandatory, retry, retry_policy, options)
        try:
            return await self._publish_on_loop(message, timeout)
        except _nameko.AmqpError as exc:
            if not self._is_to_declare_again(exc, declare):
                raise translate(exc, retried=retry) from None
        await running.run_in_executor(None, self.declare, declare)
        try:
            await self._publish_on_loop(message, timeout)
        except _nameko.AmqpError as exc:
            raise translate(exc, retried=retry) from None

    def declare(self, entities: Any) -> None:
        """Declare exchanges and queues that were not declared before."""
        new = self._undeclared(entities)
        if not new:
            return
        exchanges, queues = [], []
        for entity in new.values():
            if isinstance(entity, Queue):
                queues.append(queue_to_dict(entity))
            else:
                exchanges.append(exchange_to_dict(entity))
        try:
            self.publisher.declare(exchanges, queues)
        except _nameko.AmqpError as exc:
            raise translate(exc) from None
        self._declared.setdefault(self._options, set()).update(new)

    def _undeclared(self, entities: Any) -> dict[Any, Any]:
        """Those that were not declared before, by their keys."""
        declared = self._declared.get(self._options, ())
        keyed = {_entity_key(entity): entity for entity in entities}
        return {key: entity for key, entity in keyed.items() if key not in declared}

    def _is_to_declare_again(self, exc: _nameko.AmqpError, declare: Any) -> bool:
        """Whether a message may have failed because what was declared is gone."""
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
        """The arguments with which the compiled half publishes a message."""
        return {
            "message": prepare(payload, options),
            "retry": compiled_retry(retry, retry_policy),
            "mandatory": bool(mandatory),
            "confirm": bool(self.confirms),
        }

    async def _publish_on_loop(self, message: dict[str, Any], timeout: float | None) -> None:
        pending = self.publisher.start_publish(**message)
        try:
            await loop.wait_done(pending, timeout)
        except TimeoutError:
            raise BrokerUnreachable(
                "the broker has not taken the message within {} s".format(timeout)
            ) from None
        pending.wait()


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
    """Convert a kombu retry policy. ``max_retries`` of None retries forever."""
    if not retry:
        return _NO_RETRY
    if not retry_policy:
        return _DEFAULT_RETRY
    known = ("max_retries", "interval_start", "interval_step", "interval_max")
    return _nameko.Retry(**{name: retry_policy[name] for name in known if name in retry_policy})


def prepare(payload: Any, options: dict[str, Any]) -> Outgoing:
    """Serialize and label a message. ``options`` is taken over.

    Options that mean something here are ``exchange`` (kombu's, or a name), ``routing_key``,
    ``headers``, ``serializer``, ``compression``, ``delivery_mode``, ``priority``, ``expiration``
    (seconds), ``content_type`` and ``content_encoding`` (the payload is sent as it is then). All
    others are properties of the message.
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
    """Publishes messages with options that are set once.

    Options given to :meth:`publish` win over those given to the constructor, which win over the
    class attributes.
    """

    # Wait for the broker to say that it has the message. Without, a message can be lost unseen.
    use_confirms: bool = True
    # Taken for the interface's sake; see :func:`get_producer`.
    transport_options: dict[str, Any] = DEFAULT_TRANSPORT_OPTIONS.copy()
    # Whether messages survive a restart of the broker.
    delivery_mode: Any = PERSISTENT
    # Raise UndeliverableMessage where the message reaches no queue. Needs confirms.
    mandatory: bool = False
    # For queues with priorities.
    priority: int = 0
    # Seconds after which the broker may drop the message.
    expiration: float | None = None
    # A name in kombu's serializer registry.
    serializer: str | None = "json"
    # A name in kombu's compression registry.
    compression: str | None = None
    # Publish again where the connection is lost, after `retry_policy`.
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
        **publish_kwargs: Any,
    ) -> None:
        self.amqp_uri = amqp_uri
        self.ssl = ssl
        self.login_method = login_method
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
        # Everything else goes with each message: exchange, routing_key, user_id, ...
        self.publish_kwargs = publish_kwargs

    def publish(self, payload: Any, **kwargs: Any) -> None:
        """Publish a message, with options for this one."""
        options = self.publish_options(kwargs)
        use_confirms = options.pop("use_confirms")
        transport_options = {**options.pop("transport_options"), "confirm_publish": use_confirms}

        with get_producer(
            self.amqp_uri, use_confirms, self.ssl, self.login_method, transport_options
        ) as producer:
            producer.publish(payload, **options)

        _warn_if_undetectable(options["mandatory"], use_confirms)

    async def publish_on_loop(self, payload: Any, **kwargs: Any) -> None:
        """As :meth:`publish`, on the running loop."""
        options = self.publish_options(kwargs)
        use_confirms = options.pop("use_confirms")
        del options["transport_options"]
        producer = Producer(
            connection.options(self.amqp_uri, self.ssl, self.login_method), use_confirms
        )
        await producer.publish_on_loop(payload, **options)
        _warn_if_undetectable(options["mandatory"], use_confirms)

    def publish_options(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The options of one message from all three levels. ``kwargs`` is taken over."""
        options = self.publish_kwargs.copy()
        # Headers add up; `extra_headers` always win.
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
    """Publish, or, where an asyncio loop runs, return what is to be awaited for it."""
    running = loop.running_loop()
    if running is None:
        return publisher.publish(payload, **options)
    if (
        getattr(type(publisher), "publish", None) is _publish
        and "publish" not in publisher.__dict__
        and get_producer is _get_producer
    ):
        return publisher.publish_on_loop(payload, **options)
    return running.run_in_executor(None, partial(publisher.publish, payload, **options))


# The originals: where a test or an extension has put something else, that is used.
_publish = Publisher.publish
_get_producer = get_producer


def _warn_if_undetectable(mandatory: bool, use_confirms: bool) -> None:
    if mandatory and not use_confirms:
        warnings.warn(
            "Mandatory delivery was requested, but unroutable messages cannot be detected "
            "without publish confirms enabled.",
            stacklevel=3,
        )
