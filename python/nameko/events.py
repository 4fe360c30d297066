"""Events: messages from a service to all interested services, without waiting for them.

::

    class Shop:
        name = "shop"
        dispatch = EventDispatcher()

        @rpc
        def pay(self, order):
            self.dispatch("order_paid", order)


    class Warehouse:
        name = "warehouse"

        @event_handler("shop", "order_paid")
        def pack(self, order): ...
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from logging import getLogger
from typing import Any

from kombu import Queue

from nameko._config import queue_arguments
from nameko.amqp.publish import publish_or_await
from nameko.messaging import Consumer, Publisher, Sender, warn_about_none_values
from nameko.standalone.events import get_event_exchange
from nameko.workers import nonblocking

_log = getLogger(__name__)

# Handler types. One instance of each service receives an event:
SERVICE_POOL = "service_pool"
# One handler of all services receives it:
SINGLETON = "singleton"
# Every instance of every service receives it:
BROADCAST = "broadcast"


class EventHandlerConfigurationError(Exception):
    """The options of an event handler contradict each other."""


class EventDispatcher(Publisher):
    """Injects a function that dispatches an event: ``self.dispatch(event_type, event_data)``.

    Options are those of :class:`nameko.amqp.publish.Publisher`. The function returns when the
    broker has confirmed the event, even if no service handles it. Inside ``async def`` methods the
    call is awaited.
    """

    def setup(self) -> None:
        self.exchange = get_event_exchange(self.container.service_name, self.container.config)
        self.declare.append(self.exchange)
        super().setup()

    @nonblocking
    def get_dependency(self, worker_ctx: Any) -> Callable[..., Any]:
        warn_about_none_values(worker_ctx.data)
        return Sender(self._dispatch, worker_ctx)

    def _dispatch(self, worker_ctx: Any, event_type: str, event_data: Any) -> Any:
        return publish_or_await(
            self.publisher,
            event_data,
            exchange=self.exchange,
            routing_key=event_type,
            # Computed for each event, because the worker may have changed its context data.
            extra_headers=self.get_message_headers(worker_ctx),
        )


class EventHandler(Consumer):
    """Entrypoint for the events of a type that a service dispatches.

    ``event_type`` may be a pattern of words separated by dots: ``*`` matches one word, ``#`` any
    number.

    ``handler_type`` selects the receivers of an event: one instance of each service
    (``SERVICE_POOL``, the default), one handler of all services (``SINGLETON``), or every instance
    (``BROADCAST``).

    With ``reliable_delivery`` the queue stores events while no instance runs; without, it is
    deleted with its last consumer. ``queue_arguments`` are added to the configured arguments of
    event queues, which apply with ``reliable_delivery`` only. Other options are those of
    :class:`nameko.messaging.Consumer`.
    """

    def __init__(
        self,
        source_service: str,
        event_type: str,
        handler_type: str = SERVICE_POOL,
        reliable_delivery: bool = True,
        requeue_on_error: bool = False,
        *,
        queue_arguments: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.source_service = source_service
        self.event_type = event_type
        self.handler_type = handler_type
        self.reliable_delivery = reliable_delivery
        self.queue_arguments = queue_arguments or {}
        # Created by setup(), when the service's name is known.
        queue: Any = None
        super().__init__(queue, requeue_on_error, **kwargs)

    @property
    def broadcast_identifier(self) -> str | None:
        """The part of the queue's name that is unique to this instance, None for handlers of other
        types.

        The default is new at each start, so that no instance consumes an earlier queue. Combined
        with reliable delivery it raises EventHandlerConfigurationError when the container is
        created. For reliable broadcasts a subclass overrides it with an identifier that is stable
        and unique to the instance: a setting, or the host name if each host runs one instance. It
        is read for handlers of every type.
        """
        if self.handler_type != BROADCAST:
            return None
        if self.reliable_delivery:
            raise EventHandlerConfigurationError(
                "You are using the default broadcast identifier which is not compatible with "
                "reliable delivery: it is new at each start. Set `reliable_delivery=False`, or "
                "override `EventHandler.broadcast_identifier` with a stable identifier."
            )
        return uuid.uuid4().hex

    def setup(self) -> None:
        _log.debug("starting %s", self)
        config = self.container.config
        configured = queue_arguments(config, "events") if self.reliable_delivery else {}
        self.queue = Queue(
            self._queue_name(),
            exchange=get_event_exchange(self.source_service, config),
            routing_key=self.event_type,
            durable=True,
            auto_delete=not self.reliable_delivery,
            # The broker deletes an exclusive queue with its connection.
            exclusive=self.handler_type == BROADCAST and not self.reliable_delivery,
            queue_arguments={**configured, **self.queue_arguments} or None,
        )
        super().setup()

    def _queue_name(self) -> str:
        source = "evt-{}-{}".format(self.source_service, self.event_type)
        if self.handler_type == SINGLETON:
            return source
        name = "{}--{}.{}".format(source, self.container.service_name, self.method_name)
        if self.handler_type == SERVICE_POOL:
            return name
        if self.handler_type == BROADCAST:
            return "{}-{}".format(name, self.broadcast_identifier)
        raise EventHandlerConfigurationError(
            "`{}.{}` has the handler type {!r}, expected {!r}, {!r} or {!r}".format(
                self.container.service_name,
                self.method_name,
                self.handler_type,
                SERVICE_POOL,
                SINGLETON,
                BROADCAST,
            )
        )


event_handler = EventHandler.decorator
