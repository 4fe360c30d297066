"""Extensions that run in the tests of this project, unchanged, and what is to be known of each.

``docs/migration/extensions.md`` tells the same in more words.
"""

from __future__ import annotations

from typing import NamedTuple

from nameko.cli.doctor.findings import Severity


class Note(NamedTuple):
    """Something that does not work, or not as it did. See :class:`nameko.cli.doctor.findings`."""

    severity: Severity
    what: str
    why: str
    fix: str


class Limit(NamedTuple):
    """Another package that it works with in some versions only."""

    package: str
    # As in a requirement: "<9".
    versions: str
    why: str


class Extension(NamedTuple):
    """What is known of one."""

    # Modules that it imports and its metadata says nothing of: they came along with Nameko 2.
    imports: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()
    limits: tuple[Limit, ...] = ()


# By name, as pip normalises it.
TRIED: dict[str, Extension] = {
    "nameko-amqp-retry": Extension(imports=("pkg_resources", "six", "wrapt")),
    "nameko-autocrud": Extension(),
    "nameko-chassis": Extension(
        notes=(
            Note(
                Severity.DIFFERS,
                "is_service_responsive(timeout=..)",
                "its time limit is eventlet's, which interrupts nothing now: it waits on",
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
                "a thread waits for a next client inside eventlet: stopping takes a second more",
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
                "it sends reports from greenlets, which do not run now: none arrives",
                "a subclass whose transport has threads, see docs/migration/extensions.md;"
                " or sentry-sdk",
            ),
        ),
    ),
    "nameko-sqlalchemy": Extension(
        imports=("wrapt",),
        limits=(
            Limit(
                "pytest",
                "<9",
                "its pytest plugin calls pytest.yield_fixture, which is gone: no test starts",
            ),
        ),
    ),
    "nameko-tracer": Extension(imports=("six",)),
    "opentelemetry-instrumentation-nameko": Extension(),
}
