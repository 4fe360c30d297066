"""Connection options of the broker: configuration and URI."""

from __future__ import annotations

import enum
import functools
import math
import threading
from typing import Any, Final, Literal

from nameko import _process
from nameko._config import number_of_seconds, whole_number
from nameko._nameko import AmqpError, Broker, Options
from nameko.constants import (
    AMQP_SSL_CONFIG_KEY,
    AMQP_URI_CONFIG_KEY,
    DEFAULT_AMQP_URI,
    DEFAULT_HEARTBEAT,
    HEARTBEAT_CONFIG_KEY,
    LOGIN_METHOD_CONFIG_KEY,
    PUBLISH_TIMEOUT_CONFIG_KEY,
)
from nameko.exceptions import ConfigurationError


class _Unset(enum.Enum):
    UNSET = "unset"


# A setting that is left to the parameters of the URI, and to its default.
UNSET: Final = _Unset.UNSET

Heartbeat = int | None | Literal[_Unset.UNSET]

# Cache of options by their settings, since publishers need them for every message. A process has
# few settings, so entries are never removed.
_options: dict[Any, Options] = {}

# Ensures that a single broker is started for ``memory://``.
_memory_lock = threading.Lock()


def amqp_uri(config: Any) -> str:
    """Returns the URI of the configured broker, or of the default one."""
    return config.get(AMQP_URI_CONFIG_KEY) or DEFAULT_AMQP_URI


def broker_uri(uri: str) -> str:
    """Returns the URI to connect to. kombu's ``memory://`` is an embedded broker in this
    process."""
    if not uri.startswith("memory:"):
        return uri
    # Containers start at the same time.
    with _memory_lock:
        return _broker_in_memory().uri


@functools.cache
def _broker_in_memory() -> Broker:
    """Starts the embedded broker, which lives as long as the process."""
    return Broker()


def configured_heartbeat(config: Any) -> int | None:
    """Returns the heartbeat in seconds; 0 or None disables it. ConfigurationError if it is
    invalid."""
    if HEARTBEAT_CONFIG_KEY in config and config[HEARTBEAT_CONFIG_KEY] is None:
        return None
    return whole_number(config, HEARTBEAT_CONFIG_KEY, DEFAULT_HEARTBEAT)


def heartbeat_setting(config: Any) -> Heartbeat:
    """Returns :func:`configured_heartbeat`, ``UNSET`` if it is not configured."""
    return configured_heartbeat(config) if HEARTBEAT_CONFIG_KEY in config else UNSET


def publisher_settings(config: Any) -> dict[str, Any]:
    """Returns the configured settings of a publisher's connection, as arguments of
    :class:`nameko.amqp.publish.Publisher`."""
    settings: dict[str, Any] = {}
    heartbeat = heartbeat_setting(config)
    if heartbeat is not UNSET:
        settings["heartbeat"] = heartbeat
    if PUBLISH_TIMEOUT_CONFIG_KEY in config:
        settings["timeout"] = number_of_seconds(config, PUBLISH_TIMEOUT_CONFIG_KEY, 0) or math.inf
    return settings


def options(
    uri: str,
    ssl: Any = None,
    login_method: str | None = None,
    heartbeat: Heartbeat = UNSET,
    name: str | None = None,
) -> Options:
    """Returns connection options. Settings that are not given are those of the URI's parameters.
    ConfigurationError if the URI, a parameter or a TLS setting is invalid."""
    key = (uri, None if ssl is None else repr(ssl), login_method, heartbeat, name)
    found = _options.get(key)
    if found is None:
        _process.set_up()
        try:
            found = Options(
                broker_uri(uri),
                heartbeat=None if heartbeat is UNSET else heartbeat or 0,
                ssl=ssl,
                login_method=login_method,
                name=name,
            )
        except (AmqpError, ValueError, TypeError) as exc:
            raise ConfigurationError(str(exc))
        _options[key] = found
    return found


def configured_options(config: Any, name: str | None = None) -> Options:
    """Returns the connection options of a configuration."""
    return options(
        amqp_uri(config),
        config.get(AMQP_SSL_CONFIG_KEY),
        config.get(LOGIN_METHOD_CONFIG_KEY),
        heartbeat_setting(config),
        name,
    )
