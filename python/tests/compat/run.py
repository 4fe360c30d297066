#!/usr/bin/env python3
"""Runs upstream's own tests, unmodified, on this package: `make test-compat`.

    run.py HOME [--amqp-uri URI [--rabbit-api-uri URI]] [FILE ...]

HOME contains the tests and the environment that runs this script; the Makefile creates both. Each
test file runs in a process of its own, one process per core. The tests use an embedded broker, or
the RabbitMQ at URI, whose management API defaults to the port 10000 above, 15672 for 5672.

All tests in upstream-tests.txt must pass, and the number of passed tests must reach baseline.json.
With FILEs, only those run, without this comparison.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from stats_proxy import StatsProxy
from tls import Gateway, write_certificates
from toxiproxy import Toxiproxy

from nameko._nameko import Broker
from nameko.testing.rabbit import default_api_uri

HERE = Path(__file__).resolve().parent
# Timeouts of a test and of a test file, in seconds. Generous, for busy machines.
TEST_TIMEOUT = 90
FILE_TIMEOUT = 600
# Number of retries of failed tests.
RETRIES = 2
# Lines of pytest output shown per file with failures.
LINES_SHOWN = 40

# Node id of a test -> passed, failed or skipped.
Outcomes = dict[str, str]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("home", type=Path)
    parser.add_argument("--amqp-uri", default=os.environ.get("NAMEKO_TEST_AMQP_URI"))
    parser.add_argument("--rabbit-api-uri")
    parser.add_argument("files", nargs="*", metavar="FILE")
    args = parser.parse_intermixed_args()
    home = args.home.resolve()

    if args.amqp_uri:
        uri = args.amqp_uri
        api_uri = StatsProxy(args.rabbit_api_uri or default_api_uri(uri), uri).uri
    else:
        embedded = Broker(management_port=0)
        uri, api_uri = embedded.uri, embedded.management_uri
    os.environ["NAMEKO_COMPAT_TOXIPROXY"] = str(Toxiproxy().port)
    gateway = Gateway(uri, write_certificates(home / "certs"))
    options = [
        "--amqp-uri={}".format(uri),
        "--rabbit-api-uri={}".format(api_uri),
        "--amqp-ssl-port={}".format(gateway.port),
    ]
    files = args.files or test_files(home)
    outcomes = run_files(home, files, options)
    for _ in range(RETRIES):
        outcomes.update(run_again(home, outcomes, options))
    if args.files:
        return int("failed" in outcomes.values())
    passed = meets_baseline(outcomes)
    if not passed:
        show_failures(home, outcomes)
    return 0 if passed else 1


def lines(name: str) -> list[str]:
    """Returns the test ids in a file of this directory."""
    text = (HERE / name).read_text()
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_files(home: Path) -> list[str]:
    """Returns the test files, without those in which no test can pass."""
    excluded = {test.partition("::")[0] for test in lines("excluded-tests.txt") if "::" not in test}
    files = {str(path.relative_to(home)) for path in home.glob("test/**/test_*.py")}
    return sorted(files - excluded)


def run_files(home: Path, files: list[str], options: list[str]) -> Outcomes:
    """Runs the files concurrently, the largest first, and prints a summary of each."""
    files = sorted(files, key=lambda file: -(home / file).stat().st_size)
    outcomes: Outcomes = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = {pool.submit(run_file, home, file, options): file for file in files}
        for run in as_completed(runs):
            seconds, found = run.result()
            outcomes.update(found)
            counts = Counter(found.values())
            summary = ", ".join("{} {}".format(counts[kind], kind) for kind in sorted(counts))
            summary = summary or "none ran: see {}".format(log_of(home, runs[run]))
            print("{:<40} {:>4.0f} s  {}".format(runs[run], seconds, summary), flush=True)
    return outcomes


def run_again(home: Path, outcomes: Outcomes, options: list[str]) -> Outcomes:
    """Reruns the failed tests, one file at a time.

    They were written for cooperative threads, and some are racy on a busy machine.
    """
    again: Outcomes = {}
    failed = [test for test, outcome in outcomes.items() if outcome == "failed"]
    for file in sorted({test.partition("::")[0] for test in failed}):
        tests = [test for test in failed if test.startswith(file + "::")]
        _, found = run_file(home, file, [*options, *tests])
        for test in tests:
            print("  rerun: {:<7} {}".format(found.get(test, "crashed"), test), flush=True)
        again.update(found)
    return again


def run_file(home: Path, file: str, options: list[str]) -> tuple[float, Outcomes]:
    """Runs a test file, and returns the duration and the outcomes. Logs to HOME/logs.

    ``options`` may end with ids of tests of the file, which defaults to all.
    """
    selected = [option for option in options if "::" in option]
    log = log_of(home, file, ".rerun" if selected else "")
    log.parent.mkdir(exist_ok=True)
    outcomes = log.with_suffix(".json")
    outcomes.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            [str(HERE / "stand_in"), str(HERE), os.environ.get("PYTHONPATH", "")]
        ),
        "PATH": os.pathsep.join(
            [str(HERE / "stand_in/bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
        ),
        "NAMEKO_COMPAT_OUTCOMES": str(outcomes),
    }
    command = [sys.executable, "-m", "pytest", "-p", "outcomes", *options]
    command += [] if selected else [file]
    command += ["--deselect={}".format(test) for test in lines("excluded-tests.txt")]
    command += ["-v", "--tb=short", "--timeout={}".format(TEST_TIMEOUT)]
    began = time.monotonic()
    with log.open("w") as out:
        try:
            subprocess.run(
                command,
                cwd=home,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=FILE_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            out.write("\nstopped after {} seconds\n".format(FILE_TIMEOUT))
    seconds = time.monotonic() - began
    return seconds, json.loads(outcomes.read_text()) if outcomes.exists() else {}


def log_of(home: Path, file: str, suffix: str = "") -> Path:
    return home / "logs" / (file.replace("/", "-") + suffix + ".log")


def meets_baseline(outcomes: Outcomes) -> bool:
    """Compares the outcomes with the baseline.

    Tests that upstream skips, for unsupported combinations, count as passed.
    """
    baseline = json.loads((HERE / "baseline.json").read_text())
    good = {test for test, outcome in outcomes.items() if outcome in ("passed", "skipped")}
    listed = lines("upstream-tests.txt")
    passed = list(outcomes.values()).count("passed")
    print(
        "{} of upstream's tests pass (baseline {}), {} of the {} listed ones (baseline {}).".format(
            passed, baseline["all"], len(good.intersection(listed)), len(listed), baseline["listed"]
        )
    )
    for test in listed:
        if test not in good:
            print("  listed, but {}: {}".format(outcomes.get(test, "not run"), test))
    return len(good.intersection(listed)) >= baseline["listed"] and passed >= baseline["all"]


def show_failures(home: Path, outcomes: Outcomes) -> None:
    """Prints the end of the last pytest output of each file with failures."""
    failed = {test.partition("::")[0] for test, outcome in outcomes.items() if outcome == "failed"}
    for file in sorted(failed):
        log = log_of(home, file, ".rerun")
        print("\n== {}".format(log))
        print("\n".join(log.read_text().splitlines()[-LINES_SHOWN:]))


if __name__ == "__main__":
    sys.exit(main())
