"""The load that a client makes itself, with the protocol of src/load.rs."""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

BODY = "x" * 98
SOURCE, EVENT = "bench_source", "happened"
EXCHANGE = "bench_source.events"
GREETING = "Hello, zq!"

# Starts a number of concurrent loops of one operation until a time, and returns all latencies.
Runner = Callable[[int, float], "list[float]"]


def arguments(*names: str) -> argparse.Namespace:
    """Parses the positional arguments of a client and those of the load."""
    parser = argparse.ArgumentParser()
    for name in names:
        parser.add_argument(name)
    parser.add_argument("--loads", type=lambda text: text.split(","), required=True)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--warm-up", type=float, default=0.3)
    return parser.parse_args()


def measure(options: argparse.Namespace, run: Runner) -> None:
    """Runs the measurements requested by run.py."""
    for load in start(options):
        concurrency = int(load.split(":")[1])
        run(concurrency, time.monotonic() + options.warm_up)
        cpu, begin = time.process_time(), time.monotonic()
        latencies = run(concurrency, begin + options.seconds)
        emit(load, latencies, time.monotonic() - begin, time.process_time() - cpu)
    sys.stdin.read()


def start(options: argparse.Namespace) -> Iterable[str]:
    line(ready=True)
    sys.stdin.readline()
    line(answered=True)
    return list(options.loads)


def emit(load: str, latencies: list[float], elapsed: float, cpu: float) -> None:
    latencies.sort()
    calls = len(latencies)
    line(
        load=load,
        calls_per_second=calls / elapsed,
        seconds=elapsed,
        p50_us=latencies[calls // 2] * 1e6,
        p99_us=latencies[calls * 99 // 100] * 1e6,
        cpu_us=cpu * 1e6 / calls,
        mib=int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20,
    )


def line(**values: Any) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def loop(operation: Callable[[], Any], end: float, latencies: list[float]) -> None:
    """Repeats an operation until the time `end`."""
    begin = time.monotonic()
    while begin < end:
        operation()
        now = time.monotonic()
        latencies.append(now - begin)
        begin = now


def in_threads(operation: Callable[[], Any]) -> Runner:
    """Returns a runner with one thread per loop, or none for one loop."""

    def run(concurrency: int, end: float) -> list[float]:
        latencies: list[float] = []
        if concurrency == 1:
            loop(operation, end, latencies)
            return latencies
        threads = [
            threading.Thread(target=loop, args=(operation, end, latencies))
            for _ in range(concurrency)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return latencies

    return run


async def measure_async(
    options: argparse.Namespace, operation: Callable[[], Awaitable[Any]]
) -> None:
    """Like `measure`, with one task per loop."""

    async def repeat(end: float, latencies: list[float]) -> None:
        begin = time.monotonic()
        while begin < end:
            await operation()
            now = time.monotonic()
            latencies.append(now - begin)
            begin = now

    async def run(concurrency: int, end: float) -> list[float]:
        latencies: list[float] = []
        await asyncio.gather(*(repeat(end, latencies) for _ in range(concurrency)))
        return latencies

    for load in start(options):
        concurrency = int(load.split(":")[1])
        await run(concurrency, time.monotonic() + options.warm_up)
        cpu, begin = time.process_time(), time.monotonic()
        latencies = await run(concurrency, begin + options.seconds)
        emit(load, latencies, time.monotonic() - begin, time.process_time() - cpu)
    sys.stdin.read()
