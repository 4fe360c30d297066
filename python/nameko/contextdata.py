"""Dependency providers for well-known values of the context data."""

from __future__ import annotations

from typing import Any

from nameko.constants import (
    AUTH_TOKEN_CONTEXT_KEY,
    LANGUAGE_CONTEXT_KEY,
    USER_AGENT_CONTEXT_KEY,
    USER_ID_CONTEXT_KEY,
)
from nameko.extensions import DependencyProvider
from nameko.workers import nonblocking


class ContextDataProvider(DependencyProvider):
    """Injects ``worker_ctx.data[context_key]``, or None if the caller has not sent it."""

    context_key: str | None = None

    @nonblocking
    def get_dependency(self, worker_ctx: Any) -> Any:
        return worker_ctx.data.get(self.context_key)


class Language(ContextDataProvider):
    """The caller's language."""

    context_key = LANGUAGE_CONTEXT_KEY


class UserId(ContextDataProvider):
    """The id of the user that the call is made for."""

    context_key = USER_ID_CONTEXT_KEY


class UserAgent(ContextDataProvider):
    """The user agent of the user that the call is made for."""

    context_key = USER_AGENT_CONTEXT_KEY


class AuthToken(ContextDataProvider):
    """The caller's authentication token."""

    context_key = AUTH_TOKEN_CONTEXT_KEY
