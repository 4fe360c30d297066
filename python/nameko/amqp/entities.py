"""Conversion of kombu's Exchange and Queue to the dictionaries of the compiled client."""

from __future__ import annotations

from typing import Any

from kombu.entity import binding


def exchange_to_dict(exchange: Any) -> dict[str, Any]:
    name = exchange.name or ""
    return {
        "name": name,
        "type": exchange.type or "direct",
        "durable": bool(exchange.durable),
        "auto_delete": bool(exchange.auto_delete),
        "passive": bool(exchange.passive),
        # The default exchange and those named amq.* are predeclared by the broker.
        "no_declare": bool(exchange.no_declare) or not name or name.startswith("amq."),
        "arguments": exchange.arguments or {},
    }


def queue_to_dict(queue: Any) -> dict[str, Any]:
    """Converts a queue with its exchange and bindings, as declared by kombu."""
    return {
        "name": queue.name or "",
        "durable": bool(queue.durable),
        "exclusive": bool(queue.exclusive),
        "auto_delete": bool(queue.auto_delete),
        "passive": False,
        "no_declare": bool(queue.no_declare),
        "arguments": _queue_arguments(queue),
        "bindings": _bindings(queue),
    }


def may_be_deleted(queue: Any) -> bool:
    """Whether the broker deletes the queue by itself: after its last consumer, or unused for a
    time."""
    arguments = queue.queue_arguments or {}
    return bool(queue.auto_delete) or queue.expires is not None or "x-expires" in arguments


def _queue_arguments(queue: Any) -> dict[str, Any]:
    arguments = dict(queue.queue_arguments or {})
    # Attributes in kombu, with seconds instead of the milliseconds of the broker.
    for name, value, factor in (
        ("x-expires", queue.expires, 1000),
        ("x-message-ttl", queue.message_ttl, 1000),
        ("x-max-length", queue.max_length, 1),
        ("x-max-length-bytes", queue.max_length_bytes, 1),
        ("x-max-priority", queue.max_priority, 1),
    ):
        if value is not None:
            arguments[name] = int(value * factor)
    return arguments


def _bindings(queue: Any) -> list[dict[str, Any]]:
    bindings = []
    if queue.exchange and queue.exchange.name:
        bindings.append((queue.exchange, queue.routing_key, queue.binding_arguments))
    for extra in queue.bindings or ():
        if isinstance(extra, binding):
            exchange = extra.exchange if extra.exchange is not None else queue.exchange
            bindings.append((exchange, extra.routing_key, extra.arguments))
    return [
        {
            "exchange": exchange_to_dict(exchange),
            "routing_key": routing_key or "",
            "arguments": arguments or {},
        }
        for exchange, routing_key, arguments in bindings
        if exchange is not None and exchange.name
    ]
