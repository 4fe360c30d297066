"""Nameko: microservices from plain classes.

A service is a class with a ``name``. Decorators such as :func:`nameko.rpc.rpc` turn methods into
entrypoints, and class attributes declare dependencies. ``nameko run`` hosts the service, ``nameko
shell`` calls it.
"""

from nameko._config import config

__version__ = "3.0.0"

__all__ = ["__version__", "config"]
