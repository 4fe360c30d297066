"""Checks configuration files for misspelled and obsolete keys."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from nameko.cli.config import read_config_file
from nameko.cli.doctor.findings import Finding, Severity

# All known keys, including those that only services in Rust read.
KEYS = frozenset(
    {
        *("AMQP_URI", "AMQP_SSL", "LOGIN_METHOD", "HEARTBEAT"),
        *("serializer", "SERIALIZERS", "ACCEPT", "max_decompressed_size"),
        *("rpc_exchange", "rpc_timeout", "queue_arguments"),
        *("max_workers", "prefetch_count", "parent_calls_tracked", "stop_timeout"),
        *("AUTO_DELETE_EVENT_EXCHANGES", "DECLARE_EVENT_EXCHANGES", "SERVICE_CONTAINER_CLS"),
        *("LAYERS", "DATABASE_URL"),
        *("LOGGING", "LOG", "LOG_FORMAT"),
        *("WEB_SERVER_ADDRESS", "WEB_SERVER_REUSE_PORT", "WEB_SERVER_MAX_BODY"),
        *("WEB_SERVER_MAX_CONNECTIONS", "WEB_SERVER_TIMEOUT", "WEB_SERVER_KEEP_ALIVE"),
        *("WEB_SERVER_HEADER_TIMEOUT", "WEB_SERVER_BODY_TIMEOUT", "WEB_SERVER_SEND_TIMEOUT"),
    }
)


def check(path: str, read: set[str]) -> Iterator[Finding]:
    """Yields the findings in a configuration file. CommandError if it cannot be read.

    ``read`` holds the string literals of the project. A key among them belongs to the project.
    """
    config = read_config_file(path)
    for key in config:
        if key == "TRANSPORT_OPTIONS":
            yield Finding(
                Severity.DIFFERS,
                path,
                _line_of(path, key),
                "TRANSPORT_OPTIONS",
                "it configured kombu's connections, which are no longer used; lost connections are "
                "always retried",
                "remove it",
            )
            continue
        if not isinstance(key, str) or key in KEYS or key in read:
            continue
        meant = difflib.get_close_matches(key.lower(), {known.lower() for known in KEYS}, 1, 0.85)
        for known in KEYS:
            if meant == [known.lower()]:
                yield Finding(
                    Severity.DIFFERS,
                    path,
                    _line_of(path, key),
                    "unknown key {}".format(key),
                    "it is not read; it looks like {}".format(known),
                    "rename it to {}".format(known),
                )


def _line_of(path: str, key: str) -> int:
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip().strip("\"'").startswith(key):
                return number
    return 0
