"""Calls by standalone clients."""

from __future__ import annotations

from measure import BARE, Column, Part, Ratio, Service

from .programs import client

SERVICE = "bench_clients"

METHOD = """\
One client outside of services calls hello from 1, 10 or 50 threads or tasks, each with one call at
a time. The service, the same for all, is the bare loop on the codec. The CPU is that of the
client's process. A client of upstream may not be shared by threads: one thread makes 1, 10 or 50
calls with `call_async` before it takes the results."""

REASONS = """\
A client of aio-pika or FastStream knows neither context data, timeouts of calls nor remote
exceptions; both write without confirms here."""

LOADS = {"hello:1": "1 caller", "hello:10": "10 callers", "hello:50": "50 callers"}


def part(uri: str) -> Part:
    server = [BARE, "rpc", "loop", uri, SERVICE]

    def called(service: Service) -> Service:
        service.companion = server
        return service

    rust_client = Service(
        "client_nameko", "Nameko, Rust, tasks", [BARE, "call", uri, SERVICE], own=True
    )
    threads = client(
        "client_python", "Nameko, Python, threads", "nameko_calls.py", uri, SERVICE, own=True
    )
    tasks = client(
        "client_python_async",
        "Nameko, Python, asyncio",
        "nameko_calls_async.py",
        uri,
        SERVICE,
        own=True,
    )
    upstream = client("client_upstream", "upstream Nameko", "upstream_calls.py", uri, SERVICE)
    faststream = client("client_faststream", "FastStream", "faststream_calls.py", uri, SERVICE)
    aio_pika = client("client_aio_pika", "aio-pika on uvloop", "aio_pika_calls.py", uri, SERVICE)
    return Part(
        "clients",
        "Standalone clients",
        "call",
        LOADS,
        [called(each) for each in (rust_client, threads, tasks, upstream, faststream, aio_pika)],
        METHOD,
        columns=[Column("CPU us, " + title, load) for load, title in LOADS.items()]
        + [
            Column("calls/s, " + title, load, "calls_per_second", "{:,.0f}")
            for load, title in LOADS.items()
        ],
        cpu=[
            Ratio("Python / upstream", "client_python", ("client_upstream",), "at most 0.125"),
            Ratio("Python / FastStream", "client_python", ("client_faststream",), "at most 0.25"),
            Ratio(
                "asyncio / FastStream",
                "client_python_async",
                ("client_faststream",),
                "at most 0.25",
            ),
        ],
        reasons=REASONS,
    )
