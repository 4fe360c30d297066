"""Dispatching of events."""

from __future__ import annotations

from measure import BARE, Column, Part, Ratio, Service

from .programs import client

METHOD = """\
A program outside of services dispatches persistent events of 100 bytes, each of which it regards as
sent after the broker's confirm: one at a time, or with 50 outstanding. 50 are outstanding from 50
tasks (Rust, asyncio), threads (Python) or green threads (upstream), which share one dispatcher. No
queue is bound, so that the broker confirms at once. The CPU is that of the dispatching process."""

REASONS = """\
A dispatcher of Nameko declares on reconnects, retries within a deadline and encodes headers with
the context; the bare crates publish only. A thread of Python waits for each confirm; asyncio
switches between tasks within one thread."""

ONE, MANY = "event:1", "event:50"


def part(uri: str) -> Part:
    def crate(name: str, title: str, own: bool = False) -> Service:
        command = [BARE, "dispatch", name, uri]
        return Service("bench_dispatch_" + name, title, command, own=own)

    nameko, python, upstream = "bench_dispatch_nameko", "dispatch_python", "dispatch_upstream"
    crates = ("bench_dispatch_lapin", "bench_dispatch_amqprs")
    asyncio_title = "Nameko, Python, asyncio"
    return Part(
        "events",
        "Dispatch of events",
        "event",
        {ONE: "one at a time", MANY: "50 outstanding"},
        [
            crate("nameko", "Nameko, Rust", own=True),
            crate("client", "`nameko::amqp`"),
            crate("lapin", "lapin"),
            crate("amqprs", "amqprs"),
            crate("loop", "bare loop on amq-protocol"),
            client(python, "Nameko, Python, threads", "nameko_dispatch.py", uri, own=True),
            client(
                "dispatch_python_async", asyncio_title, "nameko_dispatch_async.py", uri, own=True
            ),
            client(upstream, "upstream Nameko", "upstream_dispatch.py", uri),
            client("dispatch_faststream", "FastStream", "faststream_publish.py", uri),
            client("dispatch_aio_pika", "aio-pika on uvloop", "aio_pika_publish.py", uri),
        ],
        METHOD,
        columns=[
            Column("CPU us, one at a time", ONE),
            Column("50 outstanding", MANY),
            Column("events/s, one at a time", ONE, "calls_per_second", "{:,.0f}"),
            Column("50 outstanding", MANY, "calls_per_second", "{:,.0f}"),
        ],
        cpu=[
            Ratio("Rust / amqprs", nameko, ("bench_dispatch_amqprs",), "at most 1"),
            Ratio("Rust / the better of the crates", nameko, crates),
            Ratio("Python / upstream", python, (upstream,), "at most 0.125"),
            Ratio("Python / FastStream", python, ("dispatch_faststream",), "at most 0.25"),
        ],
        reasons=REASONS,
    )
