"""Utilities."""

from __future__ import annotations

import inspect
import re
from copy import deepcopy
from pydoc import locate
from typing import Any
from urllib.parse import urlparse

from nameko.utils import green

REDACTED = "********"


def get_redacted_args(entrypoint: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Returns the arguments of a call by name, with sensitive ones redacted.

    ``entrypoint.sensitive_arguments`` is a string or a tuple of strings. Each names an argument, or
    a part of one as ``argument.key[index].key``. Names that do not match the call are ignored, so
    verify them in a test.
    """
    sensitive_arguments = entrypoint.sensitive_arguments
    if isinstance(sensitive_arguments, str):
        sensitive_arguments = (sensitive_arguments,)

    method = getattr(entrypoint.container.service_cls, entrypoint.method_name)
    callargs = inspect.getcallargs(method, None, *args, **kwargs)
    del callargs["self"]
    # A copy, so that the caller's objects are not modified.
    callargs = deepcopy(callargs)

    def redact(data: Any, keys: list[Any]) -> None:
        key = keys[0]
        if len(keys) == 1:
            try:
                data[key] = REDACTED
            except (KeyError, IndexError, TypeError):
                pass
        elif key in data:
            redact(data[key], keys[1:])

    for variable in sensitive_arguments:
        keys: list[Any] = []
        for dict_key, list_index in re.findall(r"(\w+)|\[(\d+)\]", variable):
            if dict_key:
                keys.append(dict_key)
            elif list_index:
                keys.append(int(list_index))
        if keys and keys[0] in callargs:
            redact(callargs, keys)

    return callargs


def import_from_path(path: str | None) -> Any:
    """Returns the object at a dotted path, None for None. ImportError if it is missing."""
    if path is None:
        return None
    obj = locate(path)
    if obj is None:
        raise ImportError("`{}` could not be imported".format(path))
    return obj


def sanitize_url(url: str) -> str:
    """Redacts the password of a URL, or of each URL in a list separated by ``;``."""
    if ";" in url:
        return ";".join(map(sanitize_url, url.split(";")))
    parts = urlparse(url)
    if parts.password is None:
        return url
    host_info = parts.netloc.rsplit("@", 1)[-1]
    parts = parts._replace(netloc="{}:{}@{}".format(parts.username, REDACTED, host_info))
    return parts.geturl()


def eventlet_guard() -> None:
    """Raises RuntimeError if eventlet or gevent has patched threads: a service needs real ones."""
    name = green.library()
    if name is not None:
        call = {"eventlet": "monkey_patch()", "gevent": "monkey.patch_all()"}[name]
        raise RuntimeError(
            "This process called {0}.{1}, which replaces the threads that services run on. A "
            "service needs no {0} since version 3: remove the call to {1}. Standalone clients work "
            "in such a process.".format(name, call)
        )
