"""SQLAlchemy sessions: one transaction per worker, committed before the reply.

Needs SQLAlchemy 2: ``pip install nameko[sqlalchemy]``, and a driver such as ``psycopg``.

::

    class Orders:
        name = "orders"
        session = DatabaseSession()

        @rpc
        def place(self, customer):
            order = Order(customer=customer)
            self.session.add(order)
            self.session.flush()
            return order.id

``DATABASE_URL`` in the configuration is the address of the database.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import itertools
import random
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from logging import getLogger
from typing import Any, TypeVar

from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from nameko import loop
from nameko.bridge import Bridge
from nameko.exceptions import ConfigurationError
from nameko.extensions import DependencyProvider
from nameko.outcome import Outcome, WorkerEnd

_log = getLogger(__name__)

Method = TypeVar("Method", bound=Callable[..., Any])

# Serialization failure and deadlock, the errors after which a transaction should run again.
RETRYABLE_SQLSTATES = frozenset({"40001", "40P01"})

# The longest pause before the first repetition of a transaction, in seconds. It doubles each time.
FIRST_RETRY_PAUSE = 0.02


class CommitOutcomeUnknown(Exception):
    """The connection was lost during the commit: the database may or may not have committed."""


class _SessionProvider(DependencyProvider):
    """The options and the engine of a session provider."""

    def __init__(
        self,
        url_key: str = "DATABASE_URL",
        *,
        engine_options: Mapping[str, Any] | None = None,
        session_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.url_key = url_key
        self.engine_options = dict(engine_options or {})
        self.session_options = dict(session_options or {})

    def _create(self, create: Callable[..., Any]) -> Any:
        """Returns a new engine. ConfigurationError if the URL is missing or invalid."""
        urls = self.container.config.get(self.url_key)
        service_name = self.container.service_name
        url = urls.get(service_name) if isinstance(urls, Mapping) else urls
        if not isinstance(url, str) or not url:
            raise ConfigurationError(
                "{} must be the URL of the database of `{}`, such as postgresql+psycopg://"
                "user:password@host/name, or a mapping of service names to URLs".format(
                    self.url_key, service_name
                )
            )
        try:
            return create(_with_driver(make_url(url)), **self.engine_options)
        except (ArgumentError, NoSuchModuleError, ImportError) as exc:
            raise ConfigurationError("{}: {}".format(self.url_key, exc)) from exc


def _with_driver(url: URL) -> URL:
    """Returns the URL with psycopg as the driver of PostgreSQL if it names none.

    SQLAlchemy 2.0 defaults to psycopg2, and does not know `postgres`, the scheme of other programs.
    """
    if url.drivername in ("postgres", "postgresql"):
        driver = "+psycopg" if find_spec("psycopg") else ""
        return url.set(drivername="postgresql" + driver)
    return url


class DatabaseSession(_SessionProvider):
    """Injects a SQLAlchemy ``Session``, with one transaction per worker.

    Before the reply the transaction is committed, or rolled back if the method has raised an
    exception. A failed commit is the error of the call. Declare the session after providers that
    may refuse a call in ``before_reply``, so that it is committed last. The connection returns to
    the pool at the end of the worker, also of a killed one.

    ``url_key`` is the configuration key of the URL, or of a mapping of service names to URLs. A
    ``postgresql://`` URL without a driver uses ``psycopg`` if it is installed. The options are
    those of ``sqlalchemy.create_engine`` and ``sqlalchemy.orm.Session``.
    """

    # Created by setup().
    engine: Engine

    def setup(self) -> None:
        self.engine = self._create(create_engine)

    def stop(self) -> None:
        self.engine.dispose()

    def kill(self) -> None:
        # Those of workers that still unwind are closed when they are returned.
        self.engine.dispose()

    def get_dependency(self, worker_ctx: Any) -> Session:
        session = worker_ctx.state[self] = Session(self.engine, **self.session_options)
        return session

    def before_reply(self, worker_ctx: Any, outcome: Outcome) -> None:
        session = worker_ctx.state[self]
        if outcome.exception is None:
            commit(session)
        else:
            session.rollback()

    def worker_teardown(self, worker_ctx: Any) -> None:
        session = worker_ctx.state[self]
        if worker_ctx.end is WorkerEnd.KILLED:
            # Interrupted at any place, so the state of its connection is unknown.
            session.invalidate()
        else:
            session.close()


class AsyncDatabaseSession(_SessionProvider):
    """Injects a SQLAlchemy ``AsyncSession`` for ``async def`` methods.

    Like :class:`DatabaseSession` otherwise. The URL names a driver with support for asyncio, such
    as ``postgresql+psycopg://`` or ``postgresql+asyncpg://``.
    """

    # Created by setup().
    engine: AsyncEngine

    def setup(self) -> None:
        self.engine = self._create(create_async_engine)

    def stop(self) -> None:
        # On the loop that the connections belong to.
        Bridge(self.engine.dispose()).run()

    def kill(self) -> None:
        asyncio.run_coroutine_threadsafe(self.engine.dispose(), loop.process_loop())

    def get_dependency(self, worker_ctx: Any) -> AsyncSession:
        session = worker_ctx.state[self] = AsyncSession(self.engine, **self.session_options)
        return session

    async def before_reply(self, worker_ctx: Any, outcome: Outcome) -> None:
        session = worker_ctx.state[self]
        if outcome.exception is None:
            await session.run_sync(commit)
        else:
            await session.rollback()

    async def worker_teardown(self, worker_ctx: Any) -> None:
        session = worker_ctx.state[self]
        if worker_ctx.end is WorkerEnd.KILLED:
            await session.invalidate()
        else:
            await session.close()


def commit(session: Session) -> None:
    """Commits the transaction of a session.

    Raises :class:`CommitOutcomeUnknown` if the connection is lost after the commit was sent.
    """
    # Errors of statements that are still pending have a known outcome: nothing is committed.
    session.flush()
    try:
        session.commit()
    except DBAPIError as exc:
        if exc.connection_invalidated:
            raise CommitOutcomeUnknown(
                "the connection was lost during the commit, so the transaction may or may not have "
                "been committed: {}".format(exc.orig)
            ) from exc
        raise


def is_retryable(exc: BaseException) -> bool:
    """Whether a transaction failed by a conflict with another one, so that it may run again."""
    if not isinstance(exc, DBAPIError):
        return False
    code = getattr(exc.orig, "sqlstate", None) or getattr(exc.orig, "pgcode", None)
    return code in RETRYABLE_SQLSTATES


def retry_conflicts(attempts: int = 3) -> Callable[[Method], Method]:
    """Runs a method again in a new transaction if a conflict with another one ends it.

    Conflicts are serialization failures and deadlocks of PostgreSQL. The method runs at most
    ``attempts`` times, after random pauses that grow. To notice conflicts at the commit, the method
    ends with the commit, before the other providers' ``before_reply``.

    Everything that the method does is repeated: calls, events and messages, too. Send them after
    the transaction, from the caller or another method. Place it between the entrypoint and the
    method::

        @rpc
        @retry_conflicts(attempts=5)
        def transfer(self, source, target, amount): ...
    """
    if isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 1:
        raise ValueError(
            "retry_conflicts(attempts) takes a positive number, not {!r}".format(attempts)
        )

    def decorate(method: Method) -> Method:
        def may_repeat(exc: DBAPIError, attempt: int) -> bool:
            if attempt == attempts or not is_retryable(exc):
                return False
            name = method.__qualname__
            _log.info("attempt %s of `%s` had a conflict: %s", attempt, name, exc.orig)
            return True

        @functools.wraps(method)
        def retrying(service: Any, *args: Any, **kwargs: Any) -> Any:
            session = _session_of(service, DatabaseSession)
            for attempt in itertools.count(1):
                try:
                    result = method(service, *args, **kwargs)
                    commit(session)
                    return result
                except DBAPIError as exc:
                    if not may_repeat(exc, attempt):
                        raise
                session.rollback()
                time.sleep(_pause(attempt))

        @functools.wraps(method)
        async def retrying_async(service: Any, *args: Any, **kwargs: Any) -> Any:
            session = _session_of(service, AsyncDatabaseSession)
            for attempt in itertools.count(1):
                try:
                    result = await method(service, *args, **kwargs)
                    await session.run_sync(commit)
                    return result
                except DBAPIError as exc:
                    if not may_repeat(exc, attempt):
                        raise
                await session.rollback()
                await asyncio.sleep(_pause(attempt))

        decorated: Any = retrying_async if inspect.iscoroutinefunction(method) else retrying
        return decorated

    return decorate


def _session_of(service: Any, provider_cls: type) -> Any:
    """Returns the only session of a service. TypeError if there is none, or more than one."""
    names = [
        name
        for name, _ in inspect.getmembers(
            type(service), lambda value: isinstance(value, provider_cls)
        )
    ]
    if len(names) != 1:
        raise TypeError(
            "retry_conflicts needs one dependency {} in `{}`, which has {}".format(
                provider_cls.__name__, type(service).__name__, len(names)
            )
        )
    return getattr(service, names[0])


def _pause(attempt: int) -> float:
    return random.uniform(0, FIRST_RETRY_PAUSE * 2 ** (attempt - 1))
