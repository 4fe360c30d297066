"""The outcome of a worker, and how it ended."""

from __future__ import annotations

import enum
from types import TracebackType
from typing import Any

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


class WorkerEnd(str, enum.Enum):
    """How a worker ended: ``worker_ctx.end``, in ``worker_teardown``."""

    # The entrypoint has handled the outcome.
    COMPLETED = "completed"
    # Likewise, but the coroutine of the method was cancelled.
    CANCELLED = "cancelled"
    # Without an outcome: the container was killed, or a hook failed that kills it.
    KILLED = "killed"


class Outcome:
    """The result or the exception of a worker, before the reply is sent.

    ``before_reply`` hooks change it by setting :attr:`result` or :attr:`exception`.
    """

    __slots__ = ("_exc_info", "_result")

    def __init__(self, result: Any = None, exc_info: ExcInfo | None = None) -> None:
        self._result = result
        self._exc_info = exc_info

    @property
    def result(self) -> Any:
        """The result, None if there is an exception. Setting it removes the exception."""
        return self._result

    @result.setter
    def result(self, result: Any) -> None:
        self._result, self._exc_info = result, None

    @property
    def exception(self) -> BaseException | None:
        """The exception, or None. Setting it removes the result."""
        return None if self._exc_info is None else self._exc_info[1]

    @exception.setter
    def exception(self, exc: BaseException | None) -> None:
        if exc is None:
            self._exc_info = None
            return
        if not isinstance(exc, BaseException):
            raise TypeError(
                "the exception of an outcome must be an exception instance, not {!r}".format(exc)
            )
        self._result, self._exc_info = None, (type(exc), exc, exc.__traceback__)

    @property
    def exc_info(self) -> ExcInfo | None:
        """The exception as a tuple of type, value and traceback, or None."""
        return self._exc_info

    def __repr__(self) -> str:
        if self._exc_info is not None:
            return "<Outcome exception={!r}>".format(self._exc_info[1])
        return "<Outcome result={!r}>".format(self._result)
