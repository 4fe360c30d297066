"""Measurement of one service: starts it, runs the load generator, collects samples."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BINARIES = HERE / "target" / "release"
# The load generator, and the services without a framework.
BARE = BINARIES / "nameko-benchmarks"
# The Python package with an optimized extension module; the development install has a debug build.
PACKAGE = HERE / "target" / "python"
LOGS = HERE / "target" / "logs"
IN_FLIGHT = (1, 10, 50)

# Grace period of a process after SIGTERM.
STOP_TIMEOUT_SECONDS = 10


@dataclass
class Service:
    """A service under test and its samples, one per round."""

    name: str
    title: str
    command: list[Any]
    # Arguments of the load generator.
    load: list[str]
    # Differences from a Nameko service, for the report.
    difference: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    # (calls in flight, metric) -> samples
    samples: dict[tuple[int, str], list[float]] = field(default_factory=dict)
    start_ms: list[float] = field(default_factory=list)
    resident_mib: list[float] = field(default_factory=list)

    def add(self, line: dict[str, float]) -> None:
        for key in ("calls_per_second", "p50_us", "p99_us", "cpu_us"):
            self.samples.setdefault((int(line["in_flight"]), key), []).append(line[key])

    def median(self, in_flight: int, key: str) -> float:
        return statistics.median(self.samples[in_flight, key])

    def spread(self, in_flight: int, key: str) -> float:
        """Half the range of the samples, relative to the median."""
        values = self.samples[in_flight, key]
        return (max(values) - min(values)) / 2 / statistics.median(values)


@dataclass
class Ratio:
    """Comparison of one service with another, or with the best of several."""

    title: str
    service: str
    others: tuple[str, ...]
    target: str = ""


@dataclass
class Part:
    """The hello service on one protocol, in several implementations."""

    name: str
    title: str
    # The noun for a call.
    call: str
    # A template for the concurrency: `{} in flight`.
    concurrency: str
    services: list[Service]
    # Comparisons of CPU per call, calls per second and start time.
    cpu: list[Ratio]
    speed: Ratio
    start: Ratio
    # A description of the measurement, for the report.
    method: str

    def service(self, name: str) -> Service:
        return next(service for service in self.services if service.name == name)


def log(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


@contextlib.contextmanager
def running(*command: Any, **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Runs a process for the duration of the block, also if the block raises."""
    process = subprocess.Popen(list(map(str, command)), start_new_session=True, **options)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def measure(service: Service, options: argparse.Namespace) -> None:
    """Measures one round of one service."""
    load = [BARE, *service.load, "--seconds", options.seconds]
    load += ["--warm-up", options.warm_up, "--in-flight", ",".join(map(str, IN_FLIGHT))]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(open(LOGS / (service.name + ".log"), "w"))
        caller = stack.enter_context(running(*load, **pipes))
        read_line(caller, "the load generator")
        began = time.monotonic()
        with running(
            *service.command,
            env={**os.environ, **service.environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        ) as process:
            write_line(caller, str(process.pid))
            read_line(caller, service.name)
            service.start_ms.append((time.monotonic() - began) * 1000)
            for _ in IN_FLIGHT:
                service.add(read_line(caller, service.name))
            service.resident_mib.append(resident(process.pid))
        # On end of file the load generator deletes its queues and exits.
        assert caller.stdin is not None
        caller.stdin.close()
        caller.wait(STOP_TIMEOUT_SECONDS)


def write_line(caller: subprocess.Popen[Any], line: str) -> None:
    assert caller.stdin is not None
    caller.stdin.write(line + "\n")
    caller.stdin.flush()


def read_line(caller: subprocess.Popen[Any], subject: str) -> dict[str, float]:
    assert caller.stdout is not None
    line = caller.stdout.readline()
    if not line:
        sys.exit("{} failed, see its log in {}".format(subject, LOGS))
    return dict(json.loads(line))


def resident(pid: int) -> float:
    """Returns the resident memory of a process in MiB."""
    status = Path("/proc/{}/status".format(pid)).read_text()
    kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    return int(kib) / 1024
