"""A chain of three services."""

from __future__ import annotations

from measure import Column, Part, Ratio

from .programs import python, rust, upstream

SERVICES = ("bench_chain_first", "bench_chain_second", "bench_chain_third")
LOADS = {"hello:1": "1 in flight", "hello:10": "10 in flight"}

METHOD = """\
Three services in one process: a call of the first calls the second, which calls the third. The CPU
is that of the process per call of the first service, with all three methods and two clients."""


def part(uri: str) -> Part:
    load = ["load", uri, SERVICES[0], "--with", SERVICES[1], "--with", SERVICES[2]]
    broker = ("--broker", uri)
    return Part(
        "chain",
        "Chain of three services",
        "call",
        LOADS,
        [
            rust("chain_nameko", "nameko-chain", load, *broker),
            python("chain_python", "Nameko, Python", "chain", load, *broker),
            python(
                "chain_python_async", "Nameko, Python, `async def`", "chain_async", load, *broker
            ),
            upstream("chain_upstream", "chain", load, *broker),
        ],
        METHOD,
        columns=[Column("CPU us, " + title, load) for load, title in LOADS.items()]
        + [
            Column("calls/s, " + title, load, "calls_per_second", "{:,.0f}")
            for load, title in LOADS.items()
        ]
        + [Column("p99 us, " + title, load, "p99_us", "{:,.0f}") for load, title in LOADS.items()],
        cpu=[
            Ratio("Python / upstream", "chain_python", ("chain_upstream",), "at most 0.125"),
            Ratio("`async def` / Python", "chain_python_async", ("chain_python",), "at most 1.4"),
        ],
    )
