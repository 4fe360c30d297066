"""Writes what upstream Nameko offers, for test_surface.py.

    PYTHON python/tests/compat/dump_surface.py > python/tests/compat/surface.json

PYTHON has upstream and pytest. What is written is {module: {name: null, a signature, or, for a
class, {method: null or a signature}}}; null is for what is no function.
"""

import __future__

import importlib
import inspect
import json
import pkgutil
import sys

import nameko.constants


def signature(function):
    """As in "self config timeout= *args **kwargs": those with = may be left out."""
    return " ".join(map(parameter_text, inspect.signature(function).parameters.values()))


def parameter_text(parameter):
    prefix = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    return prefix + parameter.name + ("" if parameter.default is parameter.empty else "=")


def describe(value):
    if inspect.isclass(value):
        return {name: describe_member(value, name) for name in members(value)}
    return signature(value) if inspect.isfunction(value) else None


def members(cls):
    """The public names of a class that come from nameko."""
    names = {}
    for base in cls.__mro__:
        if base.__module__.startswith("nameko"):
            names.update(dict.fromkeys(base.__dict__))
    return [name for name in names if name == "__init__" or not name.startswith("_")]


def describe_member(cls, name):
    value = inspect.getattr_static(cls, name)
    value = getattr(value, "__func__", value)
    return signature(value) if inspect.isfunction(value) else None


def own(module, value):
    """Whether the module made the value, and did not import it."""
    made_in = getattr(value, "__module__", None)
    if inspect.ismodule(value) or isinstance(value, __future__._Feature):
        return False
    if inspect.isclass(value) or inspect.isfunction(value):
        return made_in == module.__name__
    # Not what other modules made, but e.g. `rpc = Rpc.decorator`.
    return not any(value is other for other in vars(nameko.constants).values()) or (
        module is nameko.constants
    )


def main():
    surface = {}
    for info in pkgutil.walk_packages(nameko.__path__, "nameko."):
        if info.name.endswith("__main__"):
            continue
        module = importlib.import_module(info.name)
        names = {
            name: describe(value)
            for name, value in sorted(vars(module).items())
            if not name.startswith("_") and own(module, value)
        }
        surface[info.name] = names
    json.dump(surface, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
