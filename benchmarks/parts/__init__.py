"""The measured parts, in the order of the report."""

from __future__ import annotations

from collections.abc import Callable

from measure import Part

from . import brokers, chain, clients, events, http, lifetime, messages, rpc, scale

# Parts by name. Each is created with the URI of the broker.
PARTS: dict[str, Callable[[str], Part]] = {
    "rpc": rpc.part,
    "http": http.part,
    "events": events.part,
    "messages": messages.part,
    "fan-out": messages.fan_out,
    "clients": clients.part,
    "chain": chain.part,
    "brokers": brokers.part,
    "lifetime": lifetime.part,
    "entrypoints": scale.entrypoints,
    "services": scale.services,
    "processes": scale.processes,
}
