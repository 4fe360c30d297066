"""Measures the RPC hello side by side: Nameko in Rust and in Python, upstream, and bare clients.

`make bench` runs it. It builds what it measures, uses the RabbitMQ at localhost, or else an
embedded broker, and writes results.md. Every service is started anew in each round, alone, and
called by the same load generator (src/load.rs).
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BINARIES = HERE / "target" / "release"
# The load generator and the bare services.
BARE = BINARIES / "nameko-benchmarks"
# The package with an optimised compiled half: the one that is installed for development has none.
PACKAGE = HERE / "target" / "python"
LOGS = HERE / "target" / "logs"
SERVICES = HERE / "services"
PEER = ROOT / ".venv" / "peer" / "bin" / "python"
RABBITMQ = "amqp://guest:guest@127.0.0.1:5672/%2F"
# What to give for its URI to have a broker started even so.
EMBEDDED = "embedded"
IN_FLIGHT = (1, 10, 50)

# How long a service may take to stop, and anything else to answer (s).
STOP_TIMEOUT = 10


@dataclass
class Service:
    """A service to measure, and what was measured, a value for each round."""

    name: str
    title: str
    command: list[Any]
    # What it does unlike a Nameko service; empty where nothing.
    unlike: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    # (calls in flight, figure) -> values
    figures: dict[tuple[int, str], list[float]] = field(default_factory=dict)
    start_ms: list[float] = field(default_factory=list)
    resident_mib: list[float] = field(default_factory=list)

    def add(self, line: dict[str, float]) -> None:
        for key in ("calls_per_second", "p50_us", "p99_us", "cpu_us"):
            self.figures.setdefault((int(line["in_flight"]), key), []).append(line[key])

    def median(self, in_flight: int, key: str) -> float:
        return statistics.median(self.figures[in_flight, key])

    def spread(self, in_flight: int, key: str) -> float:
        """Half the way from the lowest value to the highest, as a part of the median."""
        values = self.figures[in_flight, key]
        return (max(values) - min(values)) / 2 / statistics.median(values)


def services(uri: str) -> list[Service]:
    def bare(name: str, title: str, unlike: str = "") -> Service:
        service = "bench_bare_" + name
        return Service(service, title, [BARE, name, uri, service], unlike)

    def python(name: str, title: str, interpreter: Path, path: Path | None) -> Service:
        return Service(
            "bench_" + name,
            title,
            [interpreter, "-m", "nameko", "run", "hello_" + name, "--broker", uri],
            environment={"PYTHONPATH": os.pathsep.join(map(str, filter(None, (path, SERVICES))))},
        )

    one = "one connection where Nameko has two"
    own = Path(sys.executable)
    return [
        Service(
            "bench_nameko",
            "Nameko, Rust",
            [BINARIES / "nameko-service", "run", "--broker", uri],
        ),
        bare("client", "bare service on `nameko::amqp`"),
        bare("lapin", "bare service on lapin", one),
        bare("amqprs", "bare service on amqprs", one),
        bare("loop", "bare loop on amq-protocol", one + ", no runtime, no reconnecting"),
        python("python", "Nameko, Python", own, PACKAGE),
        python("python_async", "Nameko, Python, `async def`", own, PACKAGE),
        python("upstream", "upstream Nameko", PEER, None),
    ]


def say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


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
def running(*command: Any, **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A process that has ended when the block has, whatever ends the block."""
    process = subprocess.Popen(list(map(str, command)), start_new_session=True, **options)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


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


def measure(service: Service, uri: str, options: argparse.Namespace) -> None:
    """One round of one service."""
    load = [BARE, "load", uri, service.name, "--seconds", options.seconds]
    load += ["--warm-up", options.warm_up, "--in-flight", ",".join(map(str, IN_FLIGHT))]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(open(LOGS / (service.name + ".log"), "w"))
        caller = stack.enter_context(running(*load, **pipes))
        answer(caller, "the load generator")
        began = time.monotonic()
        with running(
            *service.command,
            env={**os.environ, **service.environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        ) as process:
            say_to(caller, str(process.pid))
            answer(caller, service.name)
            service.start_ms.append((time.monotonic() - began) * 1000)
            for _ in IN_FLIGHT:
                service.add(answer(caller, service.name))
            service.resident_mib.append(resident(process.pid))
        # The end of its input has the load generator delete the queues.
        assert caller.stdin is not None
        caller.stdin.close()
        caller.wait(STOP_TIMEOUT)


def say_to(caller: subprocess.Popen[Any], line: str) -> None:
    assert caller.stdin is not None
    caller.stdin.write(line + "\n")
    caller.stdin.flush()


def answer(caller: subprocess.Popen[Any], about: str) -> dict[str, float]:
    assert caller.stdout is not None
    line = caller.stdout.readline()
    if not line:
        sys.exit("{} failed; its log is in {}".format(about, LOGS))
    return dict(json.loads(line))


def resident(pid: int) -> float:
    """The memory of a process, in MiB."""
    status = Path("/proc/{}/status".format(pid)).read_text()
    kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    return int(kib) / 1024


def report(measured: list[Service], broker_name: str, options: argparse.Namespace) -> str:
    by_name = {service.name: service for service in measured}
    parts = [
        "# RPC hello, side by side",
        "Written by `make bench`, which runs all of it again on your machine. "
        "It takes some three minutes once everything is built.",
        "\n".join("* {}: {}".format(*item) for item in circumstances(broker_name, options)),
        "## Targets",
        ratios(by_name),
    ]
    for in_flight in IN_FLIGHT:
        parts.append("## {} in flight".format("1 call" if in_flight == 1 else f"{in_flight} calls"))
        parts.append(table(measured, in_flight))
    parts += ["## Start and memory", starts(measured), "## How it is measured", METHOD]
    notes = ["* {}: {}.".format(it.title, it.unlike) for it in measured if it.unlike]
    return "\n\n".join([*parts, "\n".join(notes)]) + "\n"


METHOD = """\
A request is `{"args": [], "kwargs": {"name": "zq"}}`, mandatory, persistent, with the headers \
of a Nameko client; the reply is `{"result": "Hello, zq!", "error": null}`. Every service takes \
at most 10 requests at a time (prefetch), publishes each reply persistently, waits for the \
broker's confirm, and acknowledges the request then. The load generator is one blocking \
connection without confirms and takes replies without acknowledging them; it is the same for \
all. CPU is the processor time of the service process alone, user and system, over the calls \
measured. The broker, the load generator and the service share the machine: calls per second say \
how the three get along, CPU per call says what the service costs.

Each round starts every service anew, one after the other, and warms it up before each \
measurement. A figure is the median of the rounds; the spread is half the way from the lowest to \
the highest, of CPU per call. Start is the time from starting the process to its first answer, \
memory what is resident after the calls.

Unlike Nameko:"""


def circumstances(broker_name: str, options: argparse.Namespace) -> list[tuple[str, str]]:
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    lock = (HERE / "Cargo.lock").read_text().split("[[package]]")
    crates = []
    for name in ("lapin", "amqprs", "amq-protocol"):
        package = next(it for it in lock if '\nname = "{}"\n'.format(name) in it)
        crates.append("{} {}".format(name, package.split('version = "')[1].split('"')[0]))
    peer = "from importlib.metadata import version as v; print(*(n + ' ' + v(n) for n in ("
    peer += "'nameko', 'eventlet', 'kombu', 'amqp')), sep=', ')"
    commit = output("git", "-C", ROOT, "rev-parse", "--short", "HEAD")
    return [
        ("date", datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")),
        (
            "machine",
            "{}, {} cores, {} {}".format(cpu, os.cpu_count(), os.uname()[0], os.uname()[2]),
        ),
        ("load average when it began", "{:.2f} (figures are noisy above 0.5)".format(options.load)),
        ("broker", broker_name),
        ("this project", "commit {}".format(commit or "unknown")),
        ("upstream", output(PEER, "-c", peer)),
        ("crates", ", ".join(crates)),
        (
            "languages",
            "Python {}, {}".format(platform.python_version(), output("rustc", "--version")),
        ),
        (
            "rounds",
            "{} of {} s for each number of calls in flight".format(options.rounds, options.seconds),
        ),
    ]


def output(*command: Any) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=ROOT)
    return done.stdout.strip()


def ratios(by_name: dict[str, Service]) -> str:
    def better(in_flight: int) -> float:
        crates = (by_name["bench_bare_lapin"], by_name["bench_bare_amqprs"])
        return min(it.median(in_flight, "cpu_us") for it in crates)

    def of(name: str, in_flight: int) -> float:
        return by_name[name].median(in_flight, "cpu_us")

    rows = [
        (
            "Rust service / bare service on the same client",
            lambda c: of("bench_nameko", c) / of("bench_bare_client", c),
            "at most 1.3",
        ),
        (
            "Rust service / the better of the bare crates",
            lambda c: of("bench_nameko", c) / better(c),
            "",
        ),
        (
            "Python service / upstream",
            lambda c: of("bench_python", c) / of("bench_upstream", c),
            "at most 0.125",
        ),
        (
            "Python service, `async def` / upstream",
            lambda c: of("bench_python_async", c) / of("bench_upstream", c),
            "at most 0.2",
        ),
    ]
    return "\n\n".join([ratio_table("CPU per call", rows, "{:.3f}"), python_ratios(by_name)])


def python_ratios(by_name: dict[str, Service]) -> str:
    """Besides the CPU: how the Python service compares with upstream."""
    python, upstream = by_name["bench_python"], by_name["bench_upstream"]

    def calls(c: int) -> float:
        return python.median(c, "calls_per_second") / upstream.median(c, "calls_per_second")

    start = statistics.median(python.start_ms) / statistics.median(upstream.start_ms)
    rows = [("Python service / upstream", calls, "at least 4")]
    return "{}\n\nStart to first answer, Python service / upstream: {:.2f} (at most 0.5).".format(
        ratio_table("calls/s", rows, "{:.1f}"), start
    )


def ratio_table(what: str, rows: list[tuple[str, Any, str]], form: str) -> str:
    lines = [
        "| {} | {} | target |".format(
            what, " | ".join("{} in flight".format(c) for c in IN_FLIGHT)
        ),
        "|---" + "|--:" * len(IN_FLIGHT) + "|---|",
    ]
    for title, ratio, target in rows:
        cells = " | ".join(form.format(ratio(c)) for c in IN_FLIGHT)
        lines.append("| {} | {} | {} |".format(title, cells, target))
    return "\n".join(lines)


def table(measured: list[Service], in_flight: int) -> str:
    lines = [
        "| service | calls/s | p50 us | p99 us | CPU us per call | spread |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for service in measured:
        lines.append(
            "| {} | {:,.0f} | {:,.0f} | {:,.0f} | {:,.1f} | ±{:.0%} |".format(
                service.title,
                service.median(in_flight, "calls_per_second"),
                service.median(in_flight, "p50_us"),
                service.median(in_flight, "p99_us"),
                service.median(in_flight, "cpu_us"),
                service.spread(in_flight, "cpu_us"),
            )
        )
    return "\n".join(lines)


def starts(measured: list[Service]) -> str:
    lines = ["| service | start to first answer, ms | memory, MiB |", "|---|--:|--:|"]
    for service in measured:
        start, memory = map(statistics.median, (service.start_ms, service.resident_mib))
        lines.append("| {} | {:,.0f} | {:.1f} |".format(service.title, start, memory))
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--broker",
        metavar="URI",
        help="default: RabbitMQ at localhost:5672, if any, or else `embedded`",
    )
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--warm-up", type=float, default=0.3, help="seconds before each")
    parser.add_argument(
        "--only", metavar="NAME", action="append", help="no results are written then"
    )
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if not PEER.exists():
        sys.exit("{} is missing: make .venv/.peer".format(PEER))
    build()
    LOGS.mkdir(parents=True, exist_ok=True)
    options.load = os.getloadavg()[0]
    with broker(options.broker) as (uri, broker_name):
        say("measuring on {}".format(broker_name))
        measured = [it for it in services(uri) if not options.only or it.name in options.only]
        for number in range(1, options.rounds + 1):
            for service in measured:
                measure(service, uri, options)
                latest = ", ".join(
                    "{:,.0f}/s {:.1f} us CPU".format(
                        service.figures[c, "calls_per_second"][-1], service.figures[c, "cpu_us"][-1]
                    )
                    for c in IN_FLIGHT
                )
                say("round {}: {}: {}".format(number, service.name, latest))
    if not options.only:
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
