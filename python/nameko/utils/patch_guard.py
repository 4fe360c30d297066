"""Entries of a :class:`nameko._nameko.PatchGuard` for the methods of objects."""

from __future__ import annotations

from typing import Any


def methods_of(cls: type, *names: str) -> dict[str, Any]:
    """Returns methods of a class by name, for :func:`guarded_methods`."""
    return {name: getattr(cls, name) for name in names}


def guarded_methods(obj: Any, methods: dict[str, Any]) -> list[tuple[Any, str, Any]]:
    """Returns guard entries for ``methods``, on the class of ``obj`` and on ``obj`` itself."""
    return [
        entry
        for name, method in methods.items()
        for entry in ((type(obj), name, method), (obj.__dict__, name, None))
    ]
