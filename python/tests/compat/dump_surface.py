"""Dumps the public API of upstream Nameko, for test_surface.py.

    PYTHON python/tests/compat/dump_surface.py > python/tests/compat/surface.json

PYTHON is an interpreter with upstream and pytest. The format is {module: {name: API}}, where the
API of a function is its signature, that of a class {attribute: null or a signature}, and otherwise
null.
"""

import __future__

import importlib
import inspect
import json
import pkgutil
import sys

import nameko.constants


def signature(function):
    """Returns a signature like "self config timeout= *args **kwargs", with = for optional ones."""
    return " ".join(map(parameter_text, inspect.signature(function).parameters.values()))


def parameter_text(parameter):
    prefix = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    return prefix + parameter.name + ("" if parameter.default is parameter.empty else "=")


def describe(value):
    if inspect.isclass(value):
        return {name: describe_member(value, name) for name in members(value)}
    return signature(value) if inspect.isfunction(value) else None


def members(cls):
    """Returns the public attributes of a class that are defined in nameko."""
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
    """Whether the value is defined in the module, not imported."""
    defined_in = getattr(value, "__module__", None)
    if inspect.ismodule(value) or isinstance(value, __future__._Feature):
        return False
    if inspect.isclass(value) or inspect.isfunction(value):
        return defined_in == module.__name__
    # Includes aliases such as `rpc = Rpc.decorator`, but not imported constants.
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
