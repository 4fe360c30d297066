"""Counts the instructions per RPC call of both fronts and compares them with baseline.json.

Run by `make bench-check`. A service runs under valgrind and serves a fixed script of requests from
broker.py. Unlike times, instruction counts do not depend on the load of the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker import ScriptedBroker

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BASELINE = HERE / "baseline.json"
PROFILE = "instructions"
BINARIES = ROOT / "target" / PROFILE
# The Python package with the compiled module of this profile, and the profiles of callgrind.
OUTPUT = ROOT / "target" / "bench-check"
PACKAGE = OUTPUT / "python"

# Allowed increase over the baseline.
BAND = 0.05
# The number of counts of a front, of which the lowest applies: threads that take turns under
# valgrind sometimes hand requests over that they otherwise handle themselves. Further counts are
# made only while a path is above the band.
MAX_COUNTS = 6
WARM_UP_CALLS = 100
CALLS = 400
# Seconds for one service under valgrind, which is about fifty times slower.
TIMEOUT_SECONDS = 300

# One thread per role, and the same hashes in each run. The allocator of glibc has one arena, so
# that the thread of an allocation does not matter.
ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONPATH": os.pathsep.join(map(str, (PACKAGE, HERE))),
    "TOKIO_WORKER_THREADS": "1",
}

ADVICE = """\
Profiles by function: `callgrind_annotate {}/rust.callgrind.2`, one file per line of the table.
If the increase is intended, or the machine is another one: `make bench-check ACCEPT=1` writes
benchmarks/instructions/baseline.json; commit it with the reason.""".format(
    OUTPUT.relative_to(ROOT)
)


class CountFailed(Exception):
    """A service did not complete the script."""


@dataclass
class Segment:
    """Calls of one method, between two calls of `mark`."""

    title: str
    method: str
    in_flight: int


@dataclass
class Front:
    """A service under valgrind."""

    name: str
    command: list[Any]
    segments: list[Segment]


def fronts(port: int) -> list[Front]:
    uri = "amqp://guest:guest@127.0.0.1:{}".format(port)
    return [
        Front(
            "rust",
            [BINARIES / "nameko-instructions", uri],
            [
                Segment("Rust, 1 in flight", "hello", 1),
                Segment("Rust, 10 in flight", "hello", 10),
            ],
        ),
        Front(
            "python",
            [sys.executable, "-m", "nameko", "run", "service", "--broker", uri],
            [
                Segment("Python, 1 in flight", "hello", 1),
                Segment("Python, 10 in flight", "hello", 10),
                Segment("Python, `async def`, 1 in flight", "hello_async", 1),
                Segment("Python, `async def`, 10 in flight", "hello_async", 10),
            ],
        ),
    ]


def build() -> None:
    packages = ["--package", "nameko-py", "--package", "nameko-instructions"]
    began = time.monotonic()
    subprocess.run(["cargo", "build", "--profile", PROFILE, *packages], cwd=ROOT, check=True)
    log("built with the profile `{}` in {:.0f} s".format(PROFILE, time.monotonic() - began))
    shutil.rmtree(OUTPUT, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(ROOT / "python" / "nameko", PACKAGE / "nameko", ignore=ignored)
    shutil.copy(BINARIES / "lib_nameko.so", PACKAGE / "nameko" / "_nameko.abi3.so")


async def count(name: str) -> dict[str, int]:
    """Returns the instructions per call of each segment of a front."""
    broker = ScriptedBroker()
    port = await broker.start()
    front = next(front for front in fronts(port) if front.name == name)
    valgrind = ["valgrind", "--tool=callgrind", "--fair-sched=yes", "--dump-before=getppid"]
    valgrind.append("--callgrind-out-file={}".format(OUTPUT / (front.name + ".callgrind")))
    with open(OUTPUT / (front.name + ".log"), "w") as log_file:
        process = await asyncio.create_subprocess_exec(
            *valgrind,
            *map(str, front.command),
            env={**os.environ, **ENVIRONMENT},
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=log_file,
        )
        try:
            script = asyncio.ensure_future(run_script(broker, front.segments))
            ended = asyncio.ensure_future(process.wait())
            await asyncio.wait(
                (script, ended), timeout=TIMEOUT_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if not script.done():
                script.cancel()
                raise CountFailed("no answer from the service, see {}".format(log_file.name))
            script.result()
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
    return {
        segment.title: instructions(front, number) // CALLS
        for number, segment in enumerate(front.segments, start=2)
    }


async def run_script(broker: ScriptedBroker, segments: list[Segment]) -> None:
    await broker.ready()
    for segment in segments:
        await broker.call(segment.method, WARM_UP_CALLS, segment.in_flight)
    await broker.call("mark", 1)
    for segment in segments:
        await broker.call(segment.method, CALLS, segment.in_flight)
        await broker.call("mark", 1)


def instructions(front: Front, dump: int) -> int:
    """Returns the instructions in a dump of callgrind, of all threads."""
    lines = (OUTPUT / "{}.callgrind.{}".format(front.name, dump)).read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("summary:"))


def environment(name: str) -> str:
    """Describes the parts of the machine that instruction counts depend on."""
    rustc = subprocess.check_output(["rustc", "--version"], cwd=ROOT, text=True).split()[1]
    parts = [platform.machine(), " ".join(platform.libc_ver()), "rustc " + rustc]
    if name == "python":
        parts.append("Python " + platform.python_version())
    return ", ".join(parts)


def read_baselines() -> dict[str, dict[str, int]]:
    """Returns the accepted counts of each environment."""
    return dict(json.loads(BASELINE.read_text())) if BASELINE.exists() else {}


def above_band(now: int, baseline: int | None) -> bool:
    return baseline is not None and now > baseline * (1 + BAND)


def check(counts: dict[str, dict[str, int]]) -> list[str]:
    """Logs a table of all paths and returns the failures."""
    baselines = read_baselines()
    failures = []
    log("{:36} {:>10} {:>10} {:>8}".format("instructions per call", "baseline", "now", "change"))
    for machine, paths in counts.items():
        for path, now in paths.items():
            baseline = baselines.get(machine, {}).get(path)
            if baseline is None:
                log("{:36} {:>10} {:>10,}".format(path, "none", now))
                failures.append("{}: no baseline for {}".format(path, machine))
                continue
            change = now / baseline - 1
            log("{:36} {:>10,} {:>10,} {:>+8.1%}".format(path, baseline, now, change))
            if above_band(now, baseline):
                failures.append(
                    "{}: {:,} instructions per call, {:.1%} above the baseline of {:,} "
                    "(allowed: {:.0%})".format(path, now, change, baseline, BAND)
                )
            elif change < -BAND:
                log("  improved: keep it with `make bench-check ACCEPT=1`")
    return failures


def accept(counts: dict[str, dict[str, int]]) -> None:
    BASELINE.write_text(json.dumps({**read_baselines(), **counts}, indent=2) + "\n")
    log("wrote {}, commit it".format(BASELINE.relative_to(ROOT)))


async def count_all(repeat: bool) -> dict[str, dict[str, int]]:
    """Returns the counts of each front by the description of its environment.

    ``repeat``: counts again what is above the band.
    """
    # One after the other: on few CPUs they would slow down each other's threads.
    return {environment(name): await lowest_count(name, repeat) for name in ("rust", "python")}


async def lowest_count(name: str, repeat: bool) -> dict[str, int]:
    baseline = read_baselines().get(environment(name), {}) if repeat else {}
    lowest = await count(name)
    for _ in range(1, MAX_COUNTS):
        if not any(above_band(now, baseline.get(path)) for path, now in lowest.items()):
            break
        counted = await count(name)
        lowest = {path: min(now, counted[path]) for path, now in lowest.items()}
    return lowest


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--accept", action="store_true", help="write the counts to baseline.json")
    options = parser.parse_args()
    if platform.system() != "Linux":
        log("SKIPPED: instructions are counted on Linux only, with valgrind")
        return 0
    build()
    try:
        counts = asyncio.run(count_all(repeat=not options.accept))
    except CountFailed as error:
        log("bench-check failed: {}".format(error))
        return 1
    if options.accept:
        accept(counts)
    failures = check(counts)
    for failure in failures:
        log("FAILED: " + failure)
    if failures:
        log(ADVICE)
    return int(bool(failures))


def log(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
