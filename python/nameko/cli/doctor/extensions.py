"""Community extensions that this project tests unmodified, and their known issues.

See ``docs/migration/extensions.md`` for the details.
"""

from __future__ import annotations

from typing import NamedTuple

from nameko.cli.doctor.findings import Severity


class Note(NamedTuple):
    """A known issue, with the fields of :class:`nameko.cli.doctor.findings.Finding`."""

    severity: Severity
    what: str
    why: str
    fix: str


class Limit(NamedTuple):
    """A package of which only some versions work with the extension."""

    package: str
    # A version specifier such as "<9".
    versions: str
    why: str


class Extension(NamedTuple):
    """Known facts of an extension."""

    # Imported modules missing from its metadata. They were dependencies of Nameko 2.
    imports: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()
    limits: tuple[Limit, ...] = ()


# By normalised name.
TESTED: dict[str, Extension] = {
    "nameko-amqp-retry": Extension(imports=("pkg_resources", "six", "wrapt")),
    "nameko-autocrud": Extension(),
    "nameko-chassis": Extension(
        notes=(
            Note(
                Severity.DIFFERS,
                "is_service_responsive(timeout=..)",
                "its timeout is eventlet's, which no longer interrupts anything: it keeps waiting",
                "RpcProxy(name, timeout=5), which raises nameko.exceptions.RpcTimeout",
            ),
        ),
    ),
    "nameko-grpc": Extension(
        imports=("eventlet", "mock"),
        notes=(
            Note(
                Severity.DIFFERS,
                "GrpcServer.stop()",
                "a thread waits for a client inside eventlet: stopping takes a second longer",
                "",
            ),
        ),
    ),
    "nameko-prometheus": Extension(),
    "nameko-redis": Extension(),
    "nameko-sentry": Extension(
        imports=("eventlet", "six"),
        notes=(
            Note(
                Severity.BREAKS,
                "SentryReporter",
                "it sends reports from greenlets, which no longer run: reports are lost",
                "a subclass with a threaded transport, see docs/migration/extensions.md, or "
                "sentry-sdk",
            ),
        ),
    ),
    "nameko-sqlalchemy": Extension(
        imports=("wrapt",),
        limits=(
            Limit(
                "pytest",
                "<9",
                "its pytest plugin calls pytest.yield_fixture, which pytest 9 removed",
            ),
        ),
    ),
    "nameko-tracer": Extension(imports=("six",)),
    "opentelemetry-instrumentation-nameko": Extension(),
}
