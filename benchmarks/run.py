"""Measures programs side by side: Nameko in Rust and in Python, upstream, other frameworks, crates.

Run by `make bench`. Builds the programs of parts/, uses the RabbitMQ at localhost or else an
embedded broker, and writes results.md. In each round, every program runs alone, started anew. The
same load generator (src/load.rs) calls all services; clients load themselves, by the same rules.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

from measure import HERE, LOGS, PACKAGE, Part, log, measure, running
from parts import PARTS
from parts.programs import FRAMEWORKS, UPSTREAM
from report import ROOT, report, section

RABBITMQ = "amqp://guest:guest@127.0.0.1:5672/%2F"
# In place of a URI: the embedded broker, even if RabbitMQ runs.
EMBEDDED = "embedded"


def build() -> None:
    log("building")
    cargo = ["cargo", "build", "--release", "--quiet"]
    subprocess.run([*cargo, "--manifest-path", HERE / "Cargo.toml"], check=True)
    subprocess.run([*cargo, "--package", "nameko-py"], cwd=ROOT, check=True)
    shutil.rmtree(PACKAGE, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(ROOT / "python" / "nameko", PACKAGE / "nameko", ignore=ignored)
    compiled = ROOT / "target" / "release" / "lib_nameko.so"
    shutil.copy(compiled, PACKAGE / "nameko" / "_nameko.abi3.so")
    # As pip does, which has installed the peers.
    compileall.compile_dir(PACKAGE, quiet=1)


@contextlib.contextmanager
def broker(uri: str | None) -> Iterator[tuple[str, str]]:
    """Yields the URI and the description of the broker for the measurements."""
    product = "" if uri == EMBEDDED else server_product(uri or RABBITMQ)
    if product:
        parts = urlsplit(uri or RABBITMQ)
        # Clients interpret an empty path differently.
        yield (
            urlunsplit(parts._replace(path="/%2F" if parts.path in ("", "/") else parts.path)),
            product,
        )
    elif uri not in (None, EMBEDDED):
        sys.exit("cannot connect to a broker at {}".format(uri))
    else:
        log("starting an embedded broker")
        script = (
            "import signal; from nameko._nameko import Broker; broker = Broker(); "
            "print(broker.uri, flush=True); signal.pause()"
        )
        environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
        with running(
            sys.executable, "-c", script, stdout=subprocess.PIPE, text=True, env=environment
        ) as process:
            assert process.stdout is not None
            parts = urlsplit(process.stdout.readline().strip())
            yield urlunsplit(parts._replace(path="/%2F")), "the embedded broker"


def server_product(uri: str) -> str:
    """Returns the product and version of the broker, or an empty string if there is none."""
    import kombu

    try:
        with kombu.Connection(uri, connect_timeout=3) as connection:
            properties = connection.connection.server_properties
            return "{product} {version}".format(**properties)
    except OSError:
        return ""


@contextlib.contextmanager
def event_exchange(uri: str) -> Iterator[None]:
    """Declares the exchange of the events, for dispatchers outside of services."""
    import kombu

    exchange = kombu.Exchange("bench_source.events", "topic", durable=True)
    with kombu.Connection(uri) as connection:
        exchange(connection.default_channel).declare()
    yield
    with kombu.Connection(uri) as connection:
        exchange(connection.default_channel).delete()


def measure_all(part: Part, options: argparse.Namespace) -> None:
    log("measuring {}".format(part.title))
    selected = [
        service for service in part.services if not options.only or service.name in options.only
    ]
    for round_number in range(1, min(options.rounds, part.max_rounds) + 1):
        for service in selected:
            measure(part, service, options)
            latest = ", ".join(
                "{:,.0f}/s {:.1f} us CPU".format(
                    service.samples[load, "calls_per_second"][-1],
                    service.samples[load, "cpu_us"][-1],
                )
                for load in part.loads
                if service.measured(load)
            )
            log("round {}: {}: {}".format(round_number, service.name, latest))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--broker",
        metavar="URI",
        help="default: RabbitMQ at localhost:5672 if it runs, else `embedded`",
    )
    parser.add_argument(
        "--part",
        choices=tuple(PARTS),
        action="append",
        help="measure one part and print it, without writing results.md; repeatable",
    )
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=1.0, help="duration of a measurement")
    parser.add_argument(
        "--warm-up", type=float, default=0.3, help="seconds before each measurement"
    )
    parser.add_argument(
        "--only",
        metavar="SERVICE",
        action="append",
        help="measure this program only, without a report; repeatable",
    )
    return parser.parse_args()


def main() -> None:
    options = arguments()
    for interpreter, target in ((UPSTREAM, ".peer"), (FRAMEWORKS, ".bench")):
        if not interpreter.exists():
            sys.exit("{} not found: run make .venv/{}".format(interpreter, target))
    build()
    LOGS.mkdir(parents=True, exist_ok=True)
    options.load = os.getloadavg()[0]
    began = time.monotonic()
    measured = []
    with broker(options.broker) as (uri, broker_name), event_exchange(uri):
        log("measuring on {}".format(broker_name))
        for name in options.part or PARTS:
            measured.append(PARTS[name](uri))
            measure_all(measured[-1], options)
    options.minutes = (time.monotonic() - began) / 60
    log("measured for {:.0f} minutes".format(options.minutes))
    if options.only:
        return
    if options.part:
        for part in measured:
            sys.stdout.write("\n\n".join(section(part)) + "\n\n")
        return
    results = HERE / "results.md"
    results.write_text(report(measured, broker_name, options))
    log("wrote {}".format(results))


if __name__ == "__main__":
    # Unwinds the context managers, which stop the processes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
