"""RPC calls of a hello service."""

from __future__ import annotations

from measure import Part, Ratio, Service

from .programs import ONE_CONNECTION, bare, python, rust, upstream

METHOD = """\
A request is `{"args": [], "kwargs": {"name": "zq"}}`, mandatory and persistent, with the headers
of a Nameko client; the reply is `{"result": "Hello, zq!", "error": null}`. Every service has a
prefetch count of 10, publishes persistent replies, waits for the broker's confirm, and then
acknowledges the request. The load generator, the same for all, is one blocking connection without
publisher confirms and with automatic acknowledgement. Broker, load generator and service share the
machine: calls per second depend on all three, CPU per call on the service alone."""

REASONS = """\
The bare crates do not reconnect, keep no worker context, call id stack or log span, and bind no
arguments; the bare loop has no runtime either."""


def part(uri: str) -> Part:
    def load(service: str) -> list[str]:
        return ["load", uri, service]

    def peer(crate: str, title: str, difference: str = "") -> Service:
        name = "bench_bare_" + crate
        arguments = ("rpc", crate, uri, name)
        return bare(name, title, *arguments, load=load(name), difference=difference)

    broker = ("--broker", uri)
    return Part(
        "rpc",
        "RPC",
        "call",
        {"hello:1": "1 in flight", "hello:10": "10 in flight", "hello:50": "50 in flight"},
        [
            rust("bench_nameko", "nameko-service", load("bench_nameko"), *broker),
            peer("client", "bare service on `nameko::amqp`"),
            peer("lapin", "bare service on lapin", ONE_CONNECTION),
            peer("amqprs", "bare service on amqprs", ONE_CONNECTION),
            peer(
                "loop", "bare loop on amq-protocol", ONE_CONNECTION + ", no runtime, no reconnects"
            ),
            python("bench_python", "Nameko, Python", "hello_python", load("bench_python"), *broker),
            python(
                "bench_python_async",
                "Nameko, Python, `async def`",
                "hello_python_async",
                load("bench_python_async"),
                *broker,
            ),
            upstream("bench_upstream", "hello_upstream", load("bench_upstream"), *broker),
        ],
        METHOD,
        cpu=[
            Ratio("Rust / bare loop", "bench_nameko", ("bench_bare_loop",), "at most 1.5"),
            Ratio("Rust / amqprs", "bench_nameko", ("bench_bare_amqprs",), "at most 1"),
            Ratio("Rust / the same client", "bench_nameko", ("bench_bare_client",), "at most 1.3"),
            Ratio("Python / upstream", "bench_python", ("bench_upstream",), "at most 0.125"),
            Ratio("`async def` / Python", "bench_python_async", ("bench_python",), "at most 1.4"),
        ],
        speed=[
            Ratio("Rust / bare loop", "bench_nameko", ("bench_bare_loop",), "at least 0.95"),
            Ratio("Python / upstream", "bench_python", ("bench_upstream",), "at least 4"),
        ],
        start=[Ratio("Python / upstream", "bench_python", ("bench_upstream",), "at most 0.25")],
        starts=True,
        reasons=REASONS,
    )
