"""Requests that read the WSGI environ only when a service looks at them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from werkzeug import wrappers

from nameko._nameko import HttpRequest

# Held while a request is initialized, which takes its body: two threads may share a request.
_lock = threading.RLock()


class Request(wrappers.Request):
    """A werkzeug request that is initialized on the first access to one of its attributes.

    ``make_environ(http)`` returns the WSGI environ. For ``shallow`` see werkzeug.
    """

    # The values of the variables of the rule.
    path_values: Any

    def __init__(
        self,
        http: HttpRequest,
        make_environ: Callable[[HttpRequest], dict[str, Any]],
        shallow: bool,
    ) -> None:
        self._source = http, make_environ
        self.shallow = shallow

    def __getattr__(self, name: str) -> Any:
        # Called for absent attributes, and if a property raises AttributeError.
        self._initialize()
        return object.__getattribute__(self, name)

    def _initialize(self) -> None:
        if "_source" not in self.__dict__:
            return
        with _lock:
            if "_source" not in self.__dict__:
                return
            http, make_environ = self._source
            # Attributes that were set before are kept.
            own = dict(self.__dict__)
            super().__init__(make_environ(http), populate_request=False, shallow=self.shallow)
            self.__dict__.update(own)
            del self._source

    def __getstate__(self) -> dict[str, Any]:
        # Copies must not be initialized, since the body can be taken only once.
        self._initialize()
        return self.__dict__
