"""An event dispatcher for programs that are not services."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kombu import Exchange

import nameko
from nameko import serialization
from nameko.amqp import connection
from nameko.amqp.publish import Publisher
from nameko.call_context import context_values
from nameko.constants import AMQP_SSL_CONFIG_KEY, LOGIN_METHOD_CONFIG_KEY, PERSISTENT
from nameko.constants import AMQP_URI_CONFIG_KEY as AMQP_URI_CONFIG_KEY
from nameko.messaging import encode_to_headers

if TYPE_CHECKING:
    from typing_extensions import Self


def get_event_exchange(service_name: str, config: Any = None) -> Exchange:
    """Returns the event exchange of a service. ``config`` defaults to ``nameko.config``."""
    config = nameko.config if config is None else config
    return Exchange(
        "{}.events".format(service_name),
        type="topic",
        durable=True,
        delivery_mode=PERSISTENT,
        auto_delete=bool(config.get("AUTO_DELETE_EVENT_EXCHANGES")),
        no_declare=config.get("DECLARE_EVENT_EXCHANGES") is False,
    )


class Dispatcher:
    """``dispatch(service_name, event_type, event_data)`` dispatches an event as a service."""

    def __init__(
        self, publisher: Publisher, config: Any, context_data: Mapping[str, Any] | None = None
    ) -> None:
        self._publisher = publisher
        self._config = config
        self._context_data = context_values(context_data, {})

    def __call__(self, service_name: str, event_type: str, event_data: Any) -> Any:
        self._send(service_name, event_type, event_data)

    def with_context(self, context_data: Mapping[str, Any] | None = None, /, **values: Any) -> Self:
        """Returns a dispatcher that sends these values in addition to the present context data.

        None removes a value. ``call_id_stack`` is the list of the ids of the callers.
        """
        merged = {**self._context_data, **context_values(context_data, values)}
        return type(self)(self._publisher, self._config, merged)

    def _send(self, service_name: str, event_type: str, event_data: Any) -> None:
        self._publisher.publish(
            event_data,
            exchange=get_event_exchange(service_name, self._config),
            routing_key=event_type,
            extra_headers=encode_to_headers(self._context_data),
        )


class AsyncDispatcher(Dispatcher):
    """:class:`Dispatcher` with awaitable calls."""

    async def __call__(self, service_name: str, event_type: str, event_data: Any) -> None:
        await asyncio.to_thread(self._send, service_name, event_type, event_data)


def event_dispatcher(
    nameko_config: Any = None,
    *,
    context_data: Mapping[str, Any] | None = None,
    **publisher_options: Any,
) -> Dispatcher:
    """Returns ``dispatch(service_name, event_type, event_data)``, which dispatches events as a
    service.

    It does not declare the exchange: ``amqp.exceptions.NotFound`` if neither the service nor a
    handler of its events has declared it. ``context_data`` is sent with every event, see
    :meth:`Dispatcher.with_context`. Options are those of :class:`nameko.amqp.publish.Publisher`,
    except for exchange and routing key, which are ignored. ``uri``, ``ssl`` and ``login_method``
    override the configured broker.
    """
    config = nameko.config if nameko_config is None else nameko_config
    return Dispatcher(_publisher(config, publisher_options), config, context_data)


def async_event_dispatcher(
    config: Any = None,
    *,
    context_data: Mapping[str, Any] | None = None,
    **publisher_options: Any,
) -> AsyncDispatcher:
    """:func:`event_dispatcher` for asyncio programs: ``await dispatch(...)`` returns once the
    broker has confirmed the event."""
    config = nameko.config if config is None else config
    return AsyncDispatcher(_publisher(config, publisher_options), config, context_data)


def _publisher(config: Any, options: dict[str, Any]) -> Publisher:
    serializer, _ = serialization.setup(config)
    serializer = options.pop("serializer", serializer)
    options.pop("exchange", None)
    options.pop("routing_key", None)
    return Publisher(
        options.pop("uri", None) or connection.amqp_uri(config),
        serializer=serializer,
        ssl=options.pop("ssl", config.get(AMQP_SSL_CONFIG_KEY)),
        login_method=options.pop("login_method", config.get(LOGIN_METHOD_CONFIG_KEY)),
        **{**connection.publisher_settings(config), **options},
    )
