"""Finding the service classes that a command names, and telling what is wrong with them."""

from __future__ import annotations

import inspect
import os
import re
import sys
import traceback
from typing import Any

import nameko
from nameko.cli.output import show_traceback
from nameko.containers import get_service_name
from nameko.exceptions import CommandError
from nameko.extensions import ENTRYPOINT_EXTENSIONS_ATTR


def is_type(obj: Any) -> bool:
    return isinstance(obj, type)


def is_entrypoint(method: Any) -> bool:
    return hasattr(method, ENTRYPOINT_EXTENSIONS_ATTR)


def import_service(module_name: str) -> list[type]:
    """The service classes of ``module`` or ``module:Class``.

    CommandError where there is no such module or class; what the module raises is left alone.
    """
    module_name, _, class_name = module_name.partition(":")
    try:
        __import__(module_name)
    except ImportError as exc:
        if module_name.endswith(".py") and os.path.exists(module_name):
            raise CommandError(
                "Failed to find service, did you mean '{}'?".format(
                    os.path.normpath(module_name)[:-3].replace(os.sep, ".")
                )
            )
        # The module named, or a package it is in, as against one that the module imports.
        missing = getattr(exc, "name", None)
        if missing and (module_name + ".").startswith(missing + "."):
            raise CommandError(exc)
        raise
    except ValueError as exc:
        raise CommandError("{!r} is not the name of a module: {}".format(module_name, exc))
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
    """The service classes at all these paths, each once."""
    services: list[type] = []
    for path in paths:
        try:
            found = import_service(path)
        except CommandError:
            raise
        except Exception as exc:
            show_traceback(users_traceback(exc))
            raise CommandError("{!r} does not import, see above".format(path.partition(":")[0]))
        services.extend(service for service in found if service not in services)

    by_name: dict[str, type] = {}
    for service in services:
        other = by_name.setdefault(get_service_name(service), service)
        if other is not service:
            raise CommandError(
                "Two services are called {!r}: {}.{} and {}.{}; one process can run one of "
                "them".format(
                    get_service_name(service),
                    other.__module__,
                    other.__name__,
                    service.__module__,
                    service.__name__,
                )
            )
    return services


def describe(container: Any) -> str:
    """One line that says what a container serves."""
    entrypoints = sorted(
        "{} ({})".format(entrypoint.method_name, spelling(entrypoint))
        for entrypoint in container.entrypoints
    )
    return "{}: {}".format(container.service_name, ", ".join(entrypoints) or "nothing to call")


# Entrypoint classes whose decorators are not spelled as they are.
_DECORATORS = {"Consumer": "consume", "HttpRequestHandler": "http", "WebSocketRpc": "websocket_rpc"}


def spelling(entrypoint: Any) -> str:
    """An entrypoint as its decorator is spelled: event_handler, http GET /orders."""
    name = type(entrypoint).__name__
    spelled = _DECORATORS.get(name) or re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    method, url = getattr(entrypoint, "method", None), getattr(entrypoint, "url", None)
    if isinstance(method, str) and isinstance(url, str):
        return "{} {} {}".format(spelled, method, url)
    return spelled


def users_traceback(exc: BaseException) -> str:
    """The traceback without the frames of this package and of the import system at its top."""
    here = os.path.dirname(nameko.__file__) + os.sep
    tb = exc.__traceback__
    while tb is not None:
        filename = tb.tb_frame.f_code.co_filename
        if not filename.startswith((here, "<frozen importlib")):
            break
        tb = tb.tb_next
    if tb is None and not isinstance(exc, SyntaxError):
        tb = exc.__traceback__  # none is the user's: all of them are needed
    return "".join(traceback.format_exception(type(exc), exc, tb))
