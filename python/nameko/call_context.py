"""Context data for some calls of a client, see ``with_context`` of the clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nameko.constants import (
    CALL_ID_STACK_CONTEXT_KEY,
    DEFAULT_PARENT_CALLS_TRACKED,
    PARENT_CALLS_CONFIG_KEY,
)


class CallContext:
    """A worker context with other context data for the calls of one client.

    Has the attributes of ``worker_ctx``. ``values`` are added to its context data at each call.
    """

    def __init__(self, worker_ctx: Any, values: Mapping[str, Any]) -> None:
        self._worker_ctx = worker_ctx
        self._values = values

    def __getattr__(self, name: str) -> Any:
        if name == "_worker_ctx" or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(name)  # of a copy that is not initialised yet
        return getattr(self._worker_ctx, name)

    @property
    def data(self) -> dict[str, Any]:
        return self._merged(self._worker_ctx.data)

    @property
    def context_data(self) -> dict[str, Any]:
        """The context data to send. Changes to it are not kept."""
        data = self._merged(self._worker_ctx.context_data)
        callers = self._values.get(CALL_ID_STACK_CONTEXT_KEY)
        if callers is not None:
            # The trace of the callers, before the id of this client or worker.
            own = self._worker_ctx.context_data.get(CALL_ID_STACK_CONTEXT_KEY, ())[-1:]
            tracked = self._worker_ctx.config.get(
                PARENT_CALLS_CONFIG_KEY, DEFAULT_PARENT_CALLS_TRACKED
            )
            data[CALL_ID_STACK_CONTEXT_KEY] = [*callers, *own][-(tracked + 1) :]
        return data

    def _merged(self, data: Mapping[str, Any]) -> dict[str, Any]:
        merged = {**data, **self._values}
        return {key: value for key, value in merged.items() if value is not None}


def context_values(
    context_data: Mapping[str, Any] | None, values: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the context data of a call of ``with_context``. TypeError if it is none."""
    if context_data is not None and not isinstance(context_data, Mapping):
        raise TypeError(
            "with_context takes a mapping or keyword arguments, not {!r}".format(context_data)
        )
    merged = {**(context_data or {}), **values}
    for key in merged:
        if not isinstance(key, str) or not key:
            raise TypeError("the keys of context data are strings, not {!r}".format(key))
    stack = merged.get(CALL_ID_STACK_CONTEXT_KEY)
    if stack is not None and not isinstance(stack, (list, tuple)):
        raise TypeError(
            "{} is a list of call ids, not {!r}".format(CALL_ID_STACK_CONTEXT_KEY, stack)
        )
    return merged
