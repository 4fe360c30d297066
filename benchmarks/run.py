"""Measures hello services side by side: Nameko in Rust and in Python, upstream, and bare crates.

Run by `make bench`. Builds the services of parts.py, uses the RabbitMQ at localhost or else an
embedded broker, and writes results.md. In each round, every service runs alone, started anew and
called by the same load generator (src/load.rs).
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
from measure import HERE, IN_FLIGHT, LOGS, PACKAGE, Part, log, measure, running
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


def measure_all(part: Part, options: argparse.Namespace) -> None:
    selected = [
        service for service in part.services if not options.only or service.name in options.only
    ]
    for round_number in range(1, options.rounds + 1):
        for service in selected:
            measure(service, options)
            latest = ", ".join(
                "{:,.0f}/s {:.1f} us CPU".format(
                    service.samples[number, "calls_per_second"][-1],
                    service.samples[number, "cpu_us"][-1],
                )
                for number in IN_FLIGHT
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
        choices=("rpc", "http"),
        help="measure one part and print it, without writing results.md",
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
        help="measure this service only, without a report",
    )
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if not parts.PEER.exists():
        sys.exit("{} not found: run make .venv/.peer".format(parts.PEER))
    build()
    LOGS.mkdir(parents=True, exist_ok=True)
    options.load = os.getloadavg()[0]
    measured, broker_name = [], "none"
    if options.part != "http":
        with broker(options.broker) as (uri, broker_name):
            log("measuring RPC on {}".format(broker_name))
            measured.append(parts.rpc(uri))
            measure_all(measured[-1], options)
    if options.part != "rpc":
        log("measuring HTTP")
        measured.append(parts.http())
        measure_all(measured[-1], options)
    if options.only:
        return
    if options.part:
        sys.stdout.write("\n\n".join(section(measured[0])) + "\n")
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
