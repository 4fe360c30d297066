"""Finding and describing the service classes named on a command line."""

from __future__ import annotations

import inspect
import os
import re
import sys
import traceback
from typing import Any

import nameko
from nameko.cli.output import echo, show_traceback
from nameko.containers import get_service_name
from nameko.exceptions import CommandError
from nameko.extensions import ENTRYPOINT_EXTENSIONS_ATTR


def is_type(obj: Any) -> bool:
    return isinstance(obj, type)


def is_entrypoint(method: Any) -> bool:
    return hasattr(method, ENTRYPOINT_EXTENSIONS_ATTR)


def import_service(module_name: str) -> list[type]:
    """Returns the service classes of ``module`` or ``module:Class``.

    CommandError if there is no such module or class. Exceptions raised by the module propagate.
    """
    module_name, colon, class_name = module_name.partition(":")
    if not module_name or (colon and not class_name):
        raise CommandError(
            "{!r} names no {}, expected module or module:Class".format(
                module_name + colon + class_name, "class" if module_name else "module"
            )
        )
    try:
        __import__(module_name)
    except ImportError as exc:
        if module_name.endswith(".py") and os.path.exists(module_name):
            raise CommandError(
                "Failed to find service, did you mean '{}'?".format(
                    os.path.normpath(module_name)[:-3].replace(os.sep, ".")
                )
            )
        # Only if the named module or its package is missing, not a module imported by it.
        missing = getattr(exc, "name", None)
        if missing and (module_name + ".").startswith(missing + "."):
            raise CommandError(exc)
        raise
    except ValueError as exc:
        raise CommandError("{!r} is not a valid module name: {}".format(module_name, exc))
    module = sys.modules[module_name]

    if class_name:
        try:
            service_cls = getattr(module, class_name)
        except AttributeError:
            raise CommandError(
                "Failed to find service class {!r} in module {!r}".format(class_name, module_name)
            )
        if not isinstance(service_cls, type):
            raise CommandError("Service must be a class.")
        return [service_cls]

    found_services = [
        potential_service
        for _, potential_service in inspect.getmembers(module, is_type)
        if inspect.getmembers(potential_service, is_entrypoint)
    ]
    if not found_services:
        raise CommandError(
            "Failed to find anything that looks like a service in module {!r}".format(module_name)
        )
    return found_services


def find_services(paths: list[str]) -> list[type]:
    """Returns the service classes of all paths, without duplicates.

    Of several classes with one name, the last is returned, as in Nameko 2, and a line is printed
    about each of the others.
    """
    services: list[type] = []
    for path in paths:
        try:
            found = import_service(path)
        except CommandError:
            raise
        except Exception as exc:
            show_traceback(users_traceback(exc))
            raise CommandError("Cannot import {!r}, see above".format(path.partition(":")[0]))
        services.extend(service for service in found if service not in services)

    by_name: dict[str, type] = {}
    for service in services:
        name = get_service_name(service)
        left_out = by_name.get(name)
        if left_out is not None:
            echo(
                "{} is not run: {} has the same name, {!r}, and comes later; a process runs one "
                "service of a name".format(_path(left_out), _path(service), name)
            )
        by_name[name] = service
    return list(by_name.values())


def _path(service: type) -> str:
    return "{}.{}".format(service.__module__, service.__name__)


def describe(container: Any) -> str:
    """Describes a container and its entrypoints in one line."""
    entrypoints = sorted(
        "{} ({})".format(entrypoint.method_name, spelling(entrypoint))
        for entrypoint in container.entrypoints
    )
    return "{}: {}".format(container.service_name, ", ".join(entrypoints) or "no entrypoints")


# Decorators of entrypoint classes with another name.
_DECORATORS = {"Consumer": "consume", "HttpRequestHandler": "http", "WebSocketRpc": "websocket_rpc"}


def spelling(entrypoint: Any) -> str:
    """Returns the decorator name of an entrypoint: event_handler, http GET /orders."""
    name = type(entrypoint).__name__
    spelled = _DECORATORS.get(name) or re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    method, url = getattr(entrypoint, "method", None), getattr(entrypoint, "url", None)
    if isinstance(method, str) and isinstance(url, str):
        return "{} {} {}".format(spelled, method, url)
    return spelled


def users_traceback(exc: BaseException) -> str:
    """Formats a traceback without leading frames of this package and the import system."""
    here = os.path.dirname(nameko.__file__) + os.sep
    tb = exc.__traceback__
    while tb is not None:
        filename = tb.tb_frame.f_code.co_filename
        if not filename.startswith((here, "<frozen importlib")):
            break
        tb = tb.tb_next
    if tb is None and not isinstance(exc, SyntaxError):
        tb = exc.__traceback__  # no frame of the user: show all
    return "".join(traceback.format_exception(type(exc), exc, tb))
