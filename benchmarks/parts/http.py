"""HTTP requests to a hello service."""

from __future__ import annotations

from measure import BARE, LOGS, Part, Ratio, Service

from .programs import FRAMEWORKS, SERVICES, free_port, path, python, rust, upstream

METHOD = """\
A request is `GET /hello/zq` on a persistent connection, one at a time; the response is
`{"greeting": "Hello, zq!"}` with the content type `application/json`. The load generator is one
thread, the same for all. The Python services, including upstream's, log a line per request, the
default of `nameko run`; Rust and axum log none. Flask runs on gunicorn with threads, FastAPI on
uvicorn with uvloop and httptools, both with an access log and one worker process, which is
measured."""

REASONS = """\
axum has no worker context, no dependency injection and no slots of workers."""


def part(_: str) -> Part:
    address = "127.0.0.1:{}".format(free_port())
    host, port = address.split(":")
    load = ["load-http", address]
    options = ("-d", "WEB_SERVER_ADDRESS=" + address)
    upstream_config = LOGS / "http.yaml"
    upstream_config.write_text("WEB_SERVER_ADDRESS: {}\n".format(address))
    flask = [FRAMEWORKS, "-m", "gunicorn", "hello_http_flask:app", "--bind", address]
    flask += ["--threads", "10", "--access-logfile", "-"]
    fastapi = [FRAMEWORKS, "-m", "uvicorn", "hello_http_fastapi:app", "--host", host]
    fastapi += ["--port", port]
    peers = path(SERVICES)
    return Part(
        "http",
        "HTTP",
        "request",
        {"hello:1": "1 connection", "hello:10": "10 connections", "hello:50": "50 connections"},
        [
            rust("bench_http_nameko", "nameko-http-service", load, *options),
            Service("bench_http_axum", "bare service on axum", [BARE, "axum", address], load),
            python("bench_http_python", "Nameko, Python", "hello_http_python", load, *options),
            python(
                "bench_http_python_async",
                "Nameko, Python, `async def`",
                "hello_http_python_async",
                load,
                *options,
            ),
            Service(
                "bench_http_flask", "Flask on gunicorn", flask, load, forks=True, environment=peers
            ),
            Service("bench_http_fastapi", "FastAPI on uvicorn", fastapi, load, environment=peers),
            upstream(
                "bench_http_upstream", "hello_http_upstream", load, "--config", upstream_config
            ),
        ],
        METHOD,
        cpu=[
            Ratio("Rust / axum", "bench_http_nameko", ("bench_http_axum",), "at most 1.15"),
            Ratio(
                "Python / upstream", "bench_http_python", ("bench_http_upstream",), "at most 0.25"
            ),
            Ratio(
                "`async def` / upstream",
                "bench_http_python_async",
                ("bench_http_upstream",),
                "at most 0.35",
            ),
            Ratio("Python / Flask", "bench_http_python", ("bench_http_flask",), "at most 1"),
            Ratio(
                "`async def` / FastAPI",
                "bench_http_python_async",
                ("bench_http_fastapi",),
                "at most 1",
            ),
        ],
        speed=[Ratio("Python / upstream", "bench_http_python", ("bench_http_upstream",))],
        start=[
            Ratio("Python / upstream", "bench_http_python", ("bench_http_upstream",), "at most 0.5")
        ],
        starts=True,
        reasons=REASONS,
    )
