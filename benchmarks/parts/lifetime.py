"""Start, memory and many calls in flight."""

from __future__ import annotations

from typing import Any

from measure import LOGS, Column, Part, Ratio

from .programs import python, rust, upstream

METHOD = """\
The hello service with `max_workers` and prefetch count of 10,000: memory after the first call,
after 100,000 calls with 50 in flight, and while 1,000 and then 10,000 calls wait for a second each.
The times of waiting calls are those from the first request to the last reply."""

REASONS = """\
Each waiting call of a sync Python method holds a thread of the operating system, upstream's a green
thread, `async def` and Rust a task. 10,000 threads are not measured: CPython's interpreter lock
makes them spend minutes on waking one another."""

CALLS, WAITS_1000, WAITS_10000 = "hello:50:100000", "wait:1000:1000", "wait:10000:10000"
LOADS = {"hello:1:1": "1 call", CALLS: "calls", WAITS_1000: "1,000", WAITS_10000: "10,000"}


def part(uri: str) -> Part:
    def load(service: str) -> list[Any]:
        return ["load", uri, service, "--timeout", 60]

    options = ("--broker", uri, "-d", "max_workers=10000")
    # Upstream ignores --broker if it has a file.
    upstream_config = LOGS / "lifetime.yaml"
    upstream_config.write_text("AMQP_URI: {}\nmax_workers: 10000\n".format(uri))
    threads = python(
        "life_python", "Nameko, Python", "hello_python", load("bench_python"), *options
    )
    threads.without = (WAITS_10000,)
    return Part(
        "lifetime",
        "Start, memory and waiting calls",
        "call",
        LOADS,
        [
            rust("life_nameko", "nameko-lifetime", load("bench_lifetime"), *options),
            threads,
            python(
                "life_python_async",
                "Nameko, Python, `async def`",
                "hello_python_async",
                load("bench_python_async"),
                *options,
            ),
            upstream(
                "life_upstream",
                "hello_upstream",
                load("bench_upstream"),
                "--config",
                upstream_config,
            ),
        ],
        METHOD,
        columns=[
            Column("MiB idle", "hello:1:1", "mib"),
            Column("after 100,000 calls", CALLS, "mib"),
            Column("CPU us per call", CALLS),
            Column("1,000 waits, s", WAITS_1000, "seconds", "{:.2f}"),
            Column("10,000 waits, s", WAITS_10000, "seconds", "{:.2f}"),
            Column("MiB at 10,000", WAITS_10000, "mib"),
        ],
        start=[
            Ratio("Python / upstream", "life_python", ("life_upstream",), "at most 0.25"),
        ],
        starts=True,
        reasons=REASONS,
        # 100,000 calls of upstream take more than a minute.
        max_rounds=1,
    )
