"""Where to look whether somebody has replaced a method, see :class:`nameko._nameko.PatchGuard`."""

from __future__ import annotations

from typing import Any


def guarded_methods(obj: Any, methods: dict[str, Any]) -> list[tuple[Any, str, Any]]:
    """The places of an object's methods, name -> function: on its class, while it has none of its
    own."""
    return [
        place
        for name, original in methods.items()
        for place in ((type(obj), name, original), (obj.__dict__, name, None))
    ]
