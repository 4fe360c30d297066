#!/usr/bin/env python3
"""Runs upstream's own tests, unchanged, on this package: `make test-compat`.

    run.py HOME [--amqp-uri URI [--rabbit-api-uri URI]] [FILE ...]

HOME holds the tests; run.py is run by the Python that they need (the Makefile makes both). Each
file of tests gets a process of its own, as many at a time as there are cores. They run on an
embedded broker, or on the RabbitMQ at URI; its management API is on port 15672 if nothing is said.

All tests in upstream-tests.txt have to pass, and of all tests as many as baseline.json says. With
FILEs only those run, and nothing is compared.
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
from urllib.parse import urlsplit

from stats_proxy import StatsProxy
from tls import Gateway, write_certificates
from toxiproxy import Toxiproxy

from nameko._nameko import Broker

HERE = Path(__file__).resolve().parent
# Seconds: for one test, and for a file of them. They end what hangs; a busy machine is given time.
TEST_TIMEOUT = 90
FILE_TIMEOUT = 600
# How often tests that failed may try again.
SECOND_CHANCES = 2
# How much is shown of what pytest said of a file, where too few tests pass.
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
        api_uri = StatsProxy(args.rabbit_api_uri or api_beside(uri), uri).uri
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
    for _ in range(SECOND_CHANCES):
        outcomes.update(run_again(home, outcomes, options))
    if args.files:
        return int("failed" in outcomes.values())
    enough = judge(outcomes)
    if not enough:
        show_failures(home, outcomes)
    return 0 if enough else 1


def api_beside(amqp_uri: str) -> str:
    """Where the management API of a RabbitMQ is by default."""
    parts = urlsplit(amqp_uri)
    login = parts.netloc.rpartition("@")[0] or "guest:guest"
    return "http://{}@{}:15672".format(login, parts.hostname)


def lines(name: str) -> list[str]:
    """The ids of tests in a file beside this one."""
    text = (HERE / name).read_text()
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_files(home: Path) -> list[str]:
    """Those of which a test can pass."""
    left_out = {test.partition("::")[0] for test in lines("cannot-pass.txt") if "::" not in test}
    files = {str(path.relative_to(home)) for path in home.glob("test/**/test_*.py")}
    return sorted(files - left_out)


def run_files(home: Path, files: list[str], options: list[str]) -> Outcomes:
    """Run the files side by side, the largest first, and say what became of each."""
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
    """What becomes of the tests that failed when each file of them runs alone. Upstream wrote them
    for threads that take turns; on a machine with much to do some lose a race."""
    again: Outcomes = {}
    failed = [test for test, outcome in outcomes.items() if outcome == "failed"]
    for file in sorted({test.partition("::")[0] for test in failed}):
        tests = [test for test in failed if test.startswith(file + "::")]
        _, found = run_file(home, file, [*options, *tests])
        for test in tests:
            print("  once more: {:<7} {}".format(found.get(test, "crashed"), test), flush=True)
        again.update(found)
    return again


def run_file(home: Path, file: str, options: list[str]) -> tuple[float, Outcomes]:
    """How long it took, and the outcomes. What pytest wrote is in HOME/logs.

    ``options`` may end with the tests of the file that are to run, all by default.
    """
    only = [option for option in options if "::" in option]
    log = log_of(home, file, ".again" if only else "")
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
    command += [] if only else [file]
    command += ["--deselect={}".format(test) for test in lines("cannot-pass.txt")]
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


def judge(outcomes: Outcomes) -> bool:
    """Whether as much passes as has to.

    A test counts as passed where upstream itself skips it: for a combination that makes no sense.
    """
    baseline = json.loads((HERE / "baseline.json").read_text())
    good = {test for test, outcome in outcomes.items() if outcome in ("passed", "skipped")}
    listed = lines("upstream-tests.txt")
    passed = list(outcomes.values()).count("passed")
    print(
        "Of upstream's tests {} pass (at least {} have to), of the {} listed ones {} ({}).".format(
            passed, baseline["all"], len(listed), len(good.intersection(listed)), baseline["listed"]
        )
    )
    for test in listed:
        if test not in good:
            print("  listed, but {}: {}".format(outcomes.get(test, "not run"), test))
    return len(good.intersection(listed)) >= baseline["listed"] and passed >= baseline["all"]


def show_failures(home: Path, outcomes: Outcomes) -> None:
    """The end of what pytest said, the last time, of each file with a test that failed."""
    failed = {test.partition("::")[0] for test, outcome in outcomes.items() if outcome == "failed"}
    for file in sorted(failed):
        log = log_of(home, file, ".again")
        print("\n== {}".format(log))
        print("\n".join(log.read_text().splitlines()[-LINES_SHOWN:]))


if __name__ == "__main__":
    sys.exit(main())
