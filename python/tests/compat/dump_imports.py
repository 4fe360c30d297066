"""Dumps the names that the modules of upstream Nameko let be imported, for test_imports.py.

    PYTHON python/tests/compat/dump_imports.py > python/tests/compat/imports.json

PYTHON is an interpreter with upstream and pytest. The format is {module: [names]}, with the names
that a module defines and those that it imports. Modules, future statements and names of the
language are not included: they belong to other packages.
"""

import __future__

import importlib
import inspect
import json
import pkgutil
import sys

import nameko


def names(module):
    for name, value in sorted(vars(module).items()):
        dunder = name.startswith("__") and name.endswith("__")
        if not (dunder or inspect.ismodule(value) or isinstance(value, __future__._Feature)):
            yield name


def main():
    modules = [nameko]
    for info in pkgutil.walk_packages(nameko.__path__, "nameko."):
        if not info.name.endswith("__main__"):
            modules.append(importlib.import_module(info.name))
    json.dump({module.__name__: list(names(module)) for module in modules}, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
