"""Attributes of modules that are imported on first use."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_attributes(module: str, sources: Mapping[str, str]) -> Callable[[str], Any]:
    """Returns a ``__getattr__`` for ``module``. ``sources`` has the modules of its attributes."""

    def __getattr__(name: str) -> Any:
        source = sources.get(name)
        if source is None:
            raise AttributeError("module {!r} has no attribute {!r}".format(module, name))
        value = getattr(importlib.import_module(source), name)
        # From now on it is found without this function.
        setattr(sys.modules[module], name, value)
        return value

    return __getattr__
