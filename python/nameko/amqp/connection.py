"""How to reach the broker: configuration, URI and connection options."""

from __future__ import annotations

import atexit
import functools
import logging
import threading
from typing import Any

from nameko import _nameko
from nameko._config import whole_number
from nameko._nameko import AmqpError, Broker, Options
from nameko.constants import (
    AMQP_SSL_CONFIG_KEY,
    AMQP_URI_CONFIG_KEY,
    DEFAULT_AMQP_URI,
    DEFAULT_HEARTBEAT,
    HEARTBEAT_CONFIG_KEY,
    LOGIN_METHOD_CONFIG_KEY,
)
from nameko.exceptions import ConfigurationError

# Options by what they were made from, since publishers are asked for them at every message.
# The settings of a process are few, so nothing is ever removed.
_options: dict[Any, Options] = {}

# Keeps a second broker from being made for ``memory://``.
_memory_lock = threading.Lock()


def amqp_uri(config: Any) -> str:
    """The configured broker, or the default one."""
    return config.get(AMQP_URI_CONFIG_KEY) or DEFAULT_AMQP_URI


def broker_uri(uri: str) -> str:
    """The URI to connect to: that of a broker in this process for kombu's ``memory://``."""
    if not uri.startswith("memory:"):
        return uri
    # Containers start at the same time.
    with _memory_lock:
        return _broker_in_memory().uri


@functools.cache
def _broker_in_memory() -> Broker:
    """Lives as long as the process."""
    return Broker()


def configured_heartbeat(config: Any) -> int | None:
    """Seconds; 0 or None for none. ConfigurationError where the value makes no sense."""
    if HEARTBEAT_CONFIG_KEY in config and config[HEARTBEAT_CONFIG_KEY] is None:
        return None
    return whole_number(config, HEARTBEAT_CONFIG_KEY, DEFAULT_HEARTBEAT)


def options(
    uri: str,
    ssl: Any = None,
    login_method: str | None = None,
    heartbeat: int | None = DEFAULT_HEARTBEAT,
    name: str | None = None,
) -> Options:
    """Connection options. ConfigurationError where the URI or a TLS setting makes no sense."""
    key = (uri, repr(ssl) if ssl else None, login_method, heartbeat, name)
    found = _options.get(key)
    if found is None:
        _prepare_process()
        try:
            found = Options(
                broker_uri(uri),
                heartbeat=heartbeat or 0,
                ssl=ssl or None,
                login_method=login_method,
                name=name,
            )
        except (AmqpError, ValueError, TypeError) as exc:
            raise ConfigurationError(str(exc))
        _options[key] = found
    return found


def configured_options(
    config: Any, heartbeat: int | None = DEFAULT_HEARTBEAT, name: str | None = None
) -> Options:
    """The options that a configuration asks for."""
    return options(
        amqp_uri(config),
        config.get(AMQP_SSL_CONFIG_KEY),
        config.get(LOGIN_METHOD_CONFIG_KEY),
        heartbeat,
        name,
    )


@functools.cache
def _prepare_process() -> None:
    """What the process needs once before the compiled half makes its first connection."""
    _nameko.on_log(_log_record, logging.INFO)
    atexit.register(_nameko.shutdown)


def _log_record(level: int, logger: str, text: str) -> None:
    logging.getLogger(logger).log(level, "%s", text)
