"""An event dispatcher for programs that are not services."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from kombu import Exchange

import nameko
from nameko import serialization
from nameko.amqp import connection
from nameko.amqp.publish import Publisher
from nameko.constants import AMQP_SSL_CONFIG_KEY, LOGIN_METHOD_CONFIG_KEY, PERSISTENT
from nameko.constants import AMQP_URI_CONFIG_KEY as AMQP_URI_CONFIG_KEY


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


def event_dispatcher(nameko_config: Any = None, **publisher_options: Any) -> Callable[..., None]:
    """Returns ``dispatch(service_name, event_type, event_data)``, which dispatches events as a
    service.

    It does not declare the exchange: ``amqp.exceptions.NotFound`` if neither the service nor a
    handler of its events has declared it. Options are those of
    :class:`nameko.amqp.publish.Publisher`, except for exchange and routing key, which are ignored.
    ``uri``, ``ssl`` and ``login_method`` override the configured broker.
    """
    config = nameko.config if nameko_config is None else nameko_config
    serializer, _ = serialization.setup(config)
    serializer = publisher_options.pop("serializer", serializer)
    publisher_options.pop("exchange", None)
    publisher_options.pop("routing_key", None)
    publisher = Publisher(
        publisher_options.pop("uri", None) or connection.amqp_uri(config),
        serializer=serializer,
        ssl=publisher_options.pop("ssl", config.get(AMQP_SSL_CONFIG_KEY)),
        login_method=publisher_options.pop("login_method", config.get(LOGIN_METHOD_CONFIG_KEY)),
        **publisher_options,
    )

    def dispatch(service_name: str, event_type: str, event_data: Any) -> None:
        publisher.publish(
            event_data, exchange=get_event_exchange(service_name, config), routing_key=event_type
        )

    return dispatch


def async_event_dispatcher(
    config: Any = None, **publisher_options: Any
) -> Callable[..., Awaitable[None]]:
    """:func:`event_dispatcher` for asyncio programs: ``await dispatch(...)`` returns once the
    broker has confirmed the event."""
    send = event_dispatcher(config, **publisher_options)

    async def dispatch(service_name: str, event_type: str, event_data: Any) -> None:
        await asyncio.to_thread(send, service_name, event_type, event_data)

    return dispatch
