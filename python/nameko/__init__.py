"""Nameko: microservices from plain classes.

A service is a class with a ``name``; methods become entrypoints through decorators such as
:func:`nameko.rpc.rpc`, and what the class needs is declared as class attributes. ``nameko run``
hosts it, ``nameko shell`` calls it.
"""

from nameko._config import config

__version__ = "3.0.0"

__all__ = ["__version__", "config"]
