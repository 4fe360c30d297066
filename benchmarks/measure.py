"""Services to measure, and how one is measured."""

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
# The load generator and the bare services.
BARE = BINARIES / "nameko-benchmarks"
# The package with an optimised compiled half: the one that is installed for development has none.
PACKAGE = HERE / "target" / "python"
LOGS = HERE / "target" / "logs"
IN_FLIGHT = (1, 10, 50)

# How long a service may take to stop, and anything else to answer (s).
STOP_TIMEOUT = 10


@dataclass
class Service:
    """A service to measure, and what was measured, a value for each round."""

    name: str
    title: str
    command: list[Any]
    # What the load generator is told to do with it.
    load: list[str]
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


@dataclass
class Ratio:
    """How one service compares with another, or the best of several."""

    title: str
    service: str
    others: tuple[str, ...]
    target: str = ""


@dataclass
class Part:
    """A hello on one protocol, by services of several kinds."""

    name: str
    title: str
    # What a call is called.
    call: str
    # How many at once: `{} in flight`.
    at_once: str
    services: list[Service]
    # Of CPU per call, of calls/s, and of the start.
    cpu: list[Ratio]
    speed: Ratio
    start: Ratio
    # How it is measured.
    method: str

    def service(self, name: str) -> Service:
        return next(service for service in self.services if service.name == name)


def say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


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


def measure(service: Service, options: argparse.Namespace) -> None:
    """One round of one service."""
    load = [BARE, *service.load, "--seconds", options.seconds]
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
        # The end of its input has the load generator clean up.
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
