"""What results.md says."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import HERE, IN_FLIGHT, Part, Ratio, Service
from parts import PEER

ROOT = HERE.parent


def report(parts: list[Part], broker: str, options: argparse.Namespace) -> str:
    sections = [
        "# Hello, side by side",
        "Written by `make bench`, which runs all of it again on your machine. "
        "It takes some five minutes once everything is built.",
        "\n".join("* {}: {}".format(*item) for item in circumstances(broker, options)),
    ]
    for part in parts:
        sections += section(part)
    return "\n\n".join([*sections, "## How it is measured", METHOD]) + "\n"


METHOD = """\
CPU is the processor time of the service process alone, user and system, over the calls measured. \
Each round starts every service anew, one after the other, and warms it up before each \
measurement. A figure is the median of the rounds; the spread is half the way from the lowest to \
the highest, of CPU per call. Start is the time from starting the process to its first answer, \
memory what is resident after the calls."""


def section(part: Part) -> list[str]:
    """A part of the report, on its own."""
    paragraphs = ["## " + part.title, part.method]
    unlike = ["* {}: {}.".format(it.title, it.unlike) for it in part.services if it.unlike]
    if unlike:
        paragraphs += ["Unlike Nameko:", "\n".join(unlike)]
    paragraphs += [
        ratio_table(part, "CPU per " + part.call, part.cpu, "cpu_us", min, "{:.3f}"),
        ratio_table(part, part.call + "s/s", [part.speed], "calls_per_second", max, "{:.1f}"),
        "Start to first answer, {}: {:.2f} ({}).".format(
            part.start.title, start(part, part.start), part.start.target
        ),
    ]
    for in_flight in IN_FLIGHT:
        paragraphs.append("### " + at_once(part, in_flight))
        paragraphs.append(table(part, in_flight))
    return [*paragraphs, "### {}: start and memory".format(part.title), starts(part.services)]


def at_once(part: Part, number: int) -> str:
    text = part.at_once.format(number)
    return text.removesuffix("s") if number == 1 else text


def ratio_table(
    part: Part,
    what: str,
    ratios: list[Ratio],
    key: str,
    best: Callable[..., float],
    form: str,
) -> str:
    heads = " | ".join(at_once(part, c) for c in IN_FLIGHT)
    lines = [
        "| {} | {} | target |".format(what, heads),
        "|---" + "|--:" * len(IN_FLIGHT) + "|---|",
    ]
    for ratio in ratios:
        cells = []
        for c in IN_FLIGHT:
            others = best(part.service(name).median(c, key) for name in ratio.others)
            cells.append(form.format(part.service(ratio.service).median(c, key) / others))
        lines.append("| {} | {} | {} |".format(ratio.title, " | ".join(cells), ratio.target))
    return "\n".join(lines)


def start(part: Part, ratio: Ratio) -> float:
    others = min(statistics.median(part.service(name).start_ms) for name in ratio.others)
    return statistics.median(part.service(ratio.service).start_ms) / others


def table(part: Part, in_flight: int) -> str:
    lines = [
        "| service | {0}s/s | p50 us | p99 us | CPU us per {0} | spread |".format(part.call),
        "|---|--:|--:|--:|--:|--:|",
    ]
    for service in part.services:
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


def circumstances(broker: str, options: argparse.Namespace) -> list[tuple[str, str]]:
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
    for name in ("lapin", "amqprs", "amq-protocol", "axum"):
        package = next(it for it in lock if '\nname = "{}"\n'.format(name) in it)
        crates.append("{} {}".format(name, package.split('version = "')[1].split('"')[0]))
    peer = "from importlib.metadata import version as v; print(*(n + ' ' + v(n) for n in ("
    peer += "'nameko', 'eventlet', 'kombu', 'amqp', 'werkzeug')), sep=', ')"
    commit = output("git", "-C", ROOT, "rev-parse", "--short", "HEAD")
    return [
        ("date", datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")),
        (
            "machine",
            "{}, {} cores, {} {}".format(cpu, os.cpu_count(), os.uname()[0], os.uname()[2]),
        ),
        ("load average when it began", "{:.2f} (figures are noisy above 0.5)".format(options.load)),
        ("broker", broker),
        ("this project", "commit {}".format(commit or "unknown")),
        ("upstream", output(PEER, "-c", peer)),
        ("crates", ", ".join(crates)),
        (
            "languages",
            "Python {}, {}".format(platform.python_version(), output("rustc", "--version")),
        ),
        (
            "rounds",
            "{} of {} s for each number of calls at once".format(options.rounds, options.seconds),
        ),
    ]


def output(*command: Any) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=ROOT)
    return done.stdout.strip()
