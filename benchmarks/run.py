"""Measures the hello side by side: Nameko in Rust and in Python, upstream, and bare crates.

`make bench` runs it. It builds what it measures, uses the RabbitMQ at localhost, or else an
embedded broker, and writes results.md. Every service is started anew in each round, alone, and
called by the same load generator (src/load.rs). What is measured is in parts.py.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import parts
from measure import HERE, IN_FLIGHT, LOGS, PACKAGE, Part, measure, running, say
from report import ROOT, report, section

RABBITMQ = "amqp://guest:guest@127.0.0.1:5672/%2F"
# What to give for its URI to have a broker started even so.
EMBEDDED = "embedded"


def build() -> None:
    say("building")
    cargo = ["cargo", "build", "--release", "--quiet"]
    subprocess.run([*cargo, "--manifest-path", HERE / "Cargo.toml"], check=True)
    subprocess.run([*cargo, "--package", "nameko-py"], cwd=ROOT, check=True)
    shutil.rmtree(PACKAGE, ignore_errors=True)
    unwanted = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(ROOT / "python" / "nameko", PACKAGE / "nameko", ignore=unwanted)
    compiled = ROOT / "target" / "release" / "lib_nameko.so"
    shutil.copy(compiled, PACKAGE / "nameko" / "_nameko.abi3.so")


@contextlib.contextmanager
def broker(uri: str | None) -> Iterator[tuple[str, str]]:
    """The URI of the broker to measure on, and what it is."""
    found = "" if uri == EMBEDDED else introduction(uri or RABBITMQ)
    if found:
        parts = urlsplit(uri or RABBITMQ)
        # Clients disagree on what no path means.
        yield (
            urlunsplit(parts._replace(path="/%2F" if parts.path in ("", "/") else parts.path)),
            found,
        )
    elif uri not in (None, EMBEDDED):
        sys.exit("no broker answers at {}".format(uri))
    else:
        say("an embedded broker is started")
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


def introduction(uri: str) -> str:
    """What the broker calls itself; nothing where there is none."""
    import kombu

    try:
        with kombu.Connection(uri, connect_timeout=3) as connection:
            properties = connection.connection.server_properties
            return "{product} {version}".format(**properties)
    except OSError:
        return ""


def measure_all(part: Part, options: argparse.Namespace) -> None:
    chosen = [it for it in part.services if not options.only or it.name in options.only]
    for number in range(1, options.rounds + 1):
        for service in chosen:
            measure(service, options)
            latest = ", ".join(
                "{:,.0f}/s {:.1f} us CPU".format(
                    service.figures[c, "calls_per_second"][-1], service.figures[c, "cpu_us"][-1]
                )
                for c in IN_FLIGHT
            )
            say("round {}: {}: {}".format(number, service.name, latest))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--broker",
        metavar="URI",
        help="default: RabbitMQ at localhost:5672, if any, or else `embedded`",
    )
    parser.add_argument(
        "--part", choices=("rpc", "http"), help="only this one; it is shown, and not written"
    )
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--warm-up", type=float, default=0.3, help="seconds before each")
    parser.add_argument(
        "--only", metavar="SERVICE", action="append", help="only this one; no results"
    )
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if not parts.PEER.exists():
        sys.exit("{} is missing: make .venv/.peer".format(parts.PEER))
    build()
    LOGS.mkdir(parents=True, exist_ok=True)
    options.load = os.getloadavg()[0]
    measured, broker_name = [], "none"
    if options.part != "http":
        with broker(options.broker) as (uri, broker_name):
            say("measuring RPC on {}".format(broker_name))
            measured.append(parts.rpc(uri))
            measure_all(measured[-1], options)
    if options.part != "rpc":
        say("measuring HTTP")
        measured.append(parts.http())
        measure_all(measured[-1], options)
    if options.only:
        return
    if options.part:
        sys.stdout.write("\n\n".join(section(measured[0])) + "\n")
        return
    results = HERE / "results.md"
    results.write_text(report(measured, broker_name, options))
    say("written to {}".format(results))


if __name__ == "__main__":
    # So that what was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
