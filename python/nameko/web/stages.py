"""The stages of an HTTP request, called by the hooks of :mod:`nameko.web.handlers` and by the fast
path. The others are those of a worker, and ``Routes.find``."""

from __future__ import annotations

from typing import Any


def response_parts(result: Any) -> tuple[Any, Any, str]:
    """Returns the status, the headers and the text of the result of a method.

    Raises TypeError if the text is not a string.
    """
    status: Any = 200
    headers = None
    payload = result
    if isinstance(result, tuple):
        if len(result) == 3:
            status, headers, payload = result
        else:
            status, payload = result

    if not isinstance(payload, str):
        raise TypeError("Payload must be a string. Got `{!r}`".format(payload))
    return status, headers, payload
