"""The measured services: hello over RPC, and hello over HTTP."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from measure import BARE, BINARIES, HERE, PACKAGE, Part, Ratio, Service

PEER = HERE.parent / ".venv" / "peer" / "bin" / "python"
SERVICES = HERE / "services"


def python(module: str, title: str, load: list[str], *options: str, peer: bool = False) -> Service:
    """A Python service run by `nameko run`, on this package or on upstream's."""
    interpreter, path = (PEER, None) if peer else (Path(sys.executable), PACKAGE)
    return Service(
        module.replace("hello", "bench"),
        title,
        [interpreter, "-m", "nameko", "run", module, *options],
        load,
        environment={"PYTHONPATH": os.pathsep.join(map(str, filter(None, (path, SERVICES))))},
    )


def rpc(uri: str) -> Part:
    """RPC calls through the broker at `uri`."""

    def load(service: str) -> list[str]:
        return ["load", uri, service]

    def bare(name: str, title: str, difference: str = "") -> Service:
        service = "bench_bare_" + name
        return Service(service, title, [BARE, name, uri, service], load(service), difference)

    def hello(name: str, title: str, peer: bool = False) -> Service:
        return python("hello_" + name, title, load("bench_" + name), "--broker", uri, peer=peer)

    one = "one connection, Nameko has two"
    own = [BINARIES / "nameko-service", "run", "--broker", uri]
    return Part(
        "rpc",
        "RPC",
        "call",
        "{} in flight",
        [
            Service("bench_nameko", "Nameko, Rust", own, load("bench_nameko")),
            bare("client", "bare service on `nameko::amqp`"),
            bare("lapin", "bare service on lapin", one),
            bare("amqprs", "bare service on amqprs", one),
            bare("loop", "bare loop on amq-protocol", one + ", no runtime, no reconnects"),
            hello("python", "Nameko, Python"),
            hello("python_async", "Nameko, Python, `async def`"),
            hello("upstream", "upstream Nameko", peer=True),
        ],
        cpu=[
            Ratio(
                "Rust service / bare service on the same client",
                "bench_nameko",
                ("bench_bare_client",),
                "at most 1.3",
            ),
            Ratio(
                "Rust service / the better of the bare crates",
                "bench_nameko",
                ("bench_bare_lapin", "bench_bare_amqprs"),
            ),
            Ratio(
                "Python service / upstream", "bench_python", ("bench_upstream",), "at most 0.125"
            ),
            Ratio(
                "Python service, `async def` / upstream",
                "bench_python_async",
                ("bench_upstream",),
                "at most 0.2",
            ),
        ],
        speed=Ratio("Python service / upstream", "bench_python", ("bench_upstream",), "at least 4"),
        start=Ratio(
            "Python service / upstream", "bench_python", ("bench_upstream",), "at most 0.5"
        ),
        method="""\
A request is `{"args": [], "kwargs": {"name": "zq"}}`, mandatory and persistent, with the headers
of a Nameko client; the reply is `{"result": "Hello, zq!", "error": null}`. Every service has a
prefetch count of 10, publishes persistent replies, waits for the broker's confirm, and then
acknowledges the request. The load generator, the same for all, is one blocking connection without
publisher confirms and with automatic acknowledgement. Broker, load generator and service share the
machine: calls per second depend on all three, CPU per call on the service alone.""",
    )


def http() -> Part:
    """HTTP requests to a local port."""
    address = "127.0.0.1:{}".format(free_port())
    config = HERE / "target" / "http.yaml"
    config.write_text("WEB_SERVER_ADDRESS: {}\n".format(address))
    load = ["load-http", address]

    def hello(name: str, title: str, peer: bool = False) -> Service:
        return python("hello_http_" + name, title, load, "--config", str(config), peer=peer)

    own = [BINARIES / "nameko-http-service", "run", "--config", config]
    upstream = ("bench_http_upstream",)
    return Part(
        "http",
        "HTTP",
        "request",
        "{} connections",
        [
            Service("bench_http_nameko", "Nameko, Rust", own, load),
            Service("bench_http_axum", "bare service on axum", [BARE, "axum", address], load),
            hello("python", "Nameko, Python"),
            hello("python_async", "Nameko, Python, `async def`"),
            hello("upstream", "upstream Nameko", peer=True),
        ],
        cpu=[
            Ratio("Rust service / axum", "bench_http_nameko", ("bench_http_axum",)),
            Ratio("Python service / upstream", "bench_http_python", upstream, "at most 0.25"),
            Ratio("Python service, `async def` / upstream", "bench_http_python_async", upstream),
        ],
        speed=Ratio("Python service / upstream", "bench_http_python", upstream),
        start=Ratio("Python service / upstream", "bench_http_python", upstream, "at most 0.5"),
        method="""\
A request is `GET /hello/zq` on a persistent connection, one at a time; the response is
`{"greeting": "Hello, zq!"}` with the content type `application/json`. The load generator is one
thread, the same for all. The Python services, including upstream's, log a line per request, the
default of `nameko run`; Rust and axum log none.""",
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
