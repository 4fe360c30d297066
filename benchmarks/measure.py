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

# Grace period of a process after SIGTERM.
STOP_TIMEOUT_SECONDS = 10


@dataclass
class Service:
    """A program under test and its samples, one per round."""

    name: str
    title: str
    # Without arguments of the load generator, the program measures itself and is its own load.
    command: list[Any]
    load: list[Any] = field(default_factory=list)
    # The process of a server that runs already, in place of a command.
    pid: int = 0
    # Whether the command starts one worker process, the one to measure.
    forks: bool = False
    # Differences from a Nameko service, for the report.
    difference: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    # A program that runs during the measurement, such as a called service.
    companion: list[Any] = field(default_factory=list)
    # Whether the program uses this project, apart from bare services on nameko-amqp.
    own: bool = False
    # Loads that this program cannot handle.
    without: tuple[str, ...] = ()
    # (load, metric) -> samples
    samples: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    start_ms: list[float] = field(default_factory=list)
    resident_mib: list[float] = field(default_factory=list)

    def add(self, line: dict[str, Any]) -> None:
        for metric, value in line.items():
            if metric != "load":
                self.samples.setdefault((line["load"], metric), []).append(value)

    def measured(self, load: str) -> bool:
        return (load, "cpu_us") in self.samples

    def median(self, load: str, metric: str) -> float:
        return statistics.median(self.samples[load, metric])

    def spread(self, load: str, metric: str) -> float:
        """Half the range of the samples, relative to the median."""
        values = self.samples[load, metric]
        return (max(values) - min(values)) / 2 / statistics.median(values)


@dataclass
class Ratio:
    """Comparison of one service with another, or with the best of several."""

    title: str
    service: str
    others: tuple[str, ...]
    target: str = ""


@dataclass
class Column:
    """A column of a part's table: one metric of one load."""

    title: str
    load: str
    metric: str = "cpu_us"
    template: str = "{:,.1f}"


@dataclass
class Part:
    """The same work in several implementations."""

    name: str
    title: str
    # The noun for a call.
    call: str
    # Titles by load, such as "10 in flight" by "hello:10".
    loads: dict[str, str]
    services: list[Service]
    # A description of the measurement, for the report.
    method: str
    # Columns of the table. Without them, each load has a table of its own, with latencies.
    columns: list[Column] = field(default_factory=list)
    # Comparisons of CPU per call, calls per second and start time.
    cpu: list[Ratio] = field(default_factory=list)
    speed: list[Ratio] = field(default_factory=list)
    start: list[Ratio] = field(default_factory=list)
    # Whether the report has a table of start and memory.
    starts: bool = False
    # Why this project is not the best, if it is not.
    reasons: str = ""
    # A limit of the rounds.
    max_rounds: int = 100

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


def measure(part: Part, service: Service, options: argparse.Namespace) -> None:
    """Measures one round of one service."""
    loads = [load for load in part.loads if load not in service.without]
    load = [BARE, *service.load] if service.load else [*service.command]
    load += ["--seconds", options.seconds]
    load += ["--warm-up", options.warm_up, "--loads", ",".join(loads)]
    environment = {**os.environ, **service.environment}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(open(LOGS / (service.name + ".log"), "w"))
        output: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
        if service.companion:
            stack.enter_context(running(*service.companion, **output))
        caller = stack.enter_context(running(*load, env=environment, **pipes))
        read_line(caller, "the load generator")
        began = time.monotonic()
        with contextlib.ExitStack() as services:
            pid = service.pid or caller.pid
            if service.load and not service.pid:
                process = running(*service.command, env=environment, **output)
                pid = services.enter_context(process).pid
                if service.forks:
                    pid = child(pid)
            write_line(caller, str(pid))
            read_line(caller, service.name)
            service.start_ms.append((time.monotonic() - began) * 1000)
            for _ in loads:
                service.add(read_line(caller, service.name))
            service.resident_mib.append(resident(pid))
        # On end of file the load generator deletes its queues and exits.
        assert caller.stdin is not None
        caller.stdin.close()
        caller.wait(STOP_TIMEOUT_SECONDS)


def child(pid: int) -> int:
    """Waits for the child process of a process and returns its id."""
    children = Path("/proc/{0}/task/{0}/children".format(pid))
    while not (ids := children.read_text().split()):
        time.sleep(0.001)
    return int(ids[0])


def write_line(caller: subprocess.Popen[Any], line: str) -> None:
    assert caller.stdin is not None
    caller.stdin.write(line + "\n")
    caller.stdin.flush()


def read_line(caller: subprocess.Popen[Any], subject: str) -> dict[str, Any]:
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
