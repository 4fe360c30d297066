"""A package that stands for its modules, for code that patches it by name."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any


class _Facade(ModuleType):
    """A package that presents the global names of its modules as its own.

    Nameko 2 has one module where this project has a package. ``patch("nameko.rpc.Responder")``
    reaches the modules that use the name.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        for module in self.__dict__["_modules"]:
            if name in vars(module):
                setattr(module, name, value)
        super().__setattr__(name, value)


def install_facade(package_name: str, modules: Iterable[ModuleType]) -> None:
    """Makes a package a facade of ``modules``. Names that the package defines stay."""
    package = sys.modules[package_name]
    modules = tuple(modules)
    for module in modules:
        for name, value in vars(module).items():
            if not (name.startswith("__") and name.endswith("__")):
                vars(package).setdefault(name, value)
    vars(package)["_modules"] = modules
    package.__class__ = _Facade
