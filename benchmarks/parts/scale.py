"""Many entrypoints, many services and several processes."""

from __future__ import annotations

from typing import Any

from measure import Column, Part, Ratio, Service

from .programs import python, rust, upstream

LOAD = "hello:10"
LOADS = {LOAD: "10 in flight"}

ENTRYPOINTS_METHOD = """\
A service with 1,000 RPC methods, or with one; the last one is called, with 10 calls in flight."""

SERVICES_METHOD = """\
A process with 100 services, or with one; the last one is called, with 10 calls in flight. The start
ends with the first answer of the service that is listed last; upstream and Python start services
together."""

PROCESSES_METHOD = """\
A Python method that computes for some milliseconds, with 20 calls in flight, under `--workers 1`
and `--workers 4`."""

COLUMNS = [
    Column("CPU us per call", LOAD),
    Column("calls/s", LOAD, "calls_per_second", "{:,.0f}"),
]


def sizes(
    name: str, title: str, method: str, services: list[Service], target: str, many: int
) -> Part:
    """Returns a part whose services come in pairs, with one and with many of a thing."""
    pairs = list(zip(services[::2], services[1::2], strict=True))
    for small, large in pairs:
        small.title += ", 1"
        large.title += ", {:,}".format(many)
    return Part(
        name,
        title,
        "call",
        LOADS,
        services,
        method,
        columns=COLUMNS,
        cpu=[
            Ratio("{} / 1".format(large.title), large.name, (small.name,), target)
            for small, large in pairs
        ],
        starts=True,
        max_rounds=2,
    )


def entrypoints(uri: str) -> Part:
    broker = ("--broker", uri)

    def environment(service: Service, number: int) -> Service:
        service.environment["ENTRYPOINTS"] = str(number)
        return service

    def load(service: str) -> list[Any]:
        return ["load", uri, service]

    services = [
        rust("entrypoints_rust_1", "nameko-service", load("bench_nameko"), "bench_nameko", *broker),
        rust(
            "entrypoints_rust",
            "nameko-scale",
            load("bench_entrypoints"),
            "bench_entrypoints",
            *broker,
        ),
    ]
    for start, title in ((python, "Nameko, Python"), (upstream, "")):
        for number in (1, 1_000):
            name = "entrypoints_{}_{}".format(start.__name__, number)
            titles = (title,) if title else ()
            service = start(name, *titles, "entrypoints", load("bench_entrypoints"), *broker)
            services.append(environment(service, number))
    return sizes(
        "entrypoints",
        "1,000 entrypoints",
        ENTRYPOINTS_METHOD,
        services,
        "at most 1.1",
        1_000,
    )


def services(uri: str) -> Part:
    broker = ("--broker", uri)
    names = ["bench_services_{:02}".format(number) for number in range(100)]
    last = names[-1]

    def load(others: list[str]) -> list[Any]:
        return ["load", uri, last, *(word for name in others for word in ("--with", name))]

    measured = [
        rust("services_rust_1", "nameko-scale", load([]), last, *broker),
        rust("services_rust_100", "nameko-scale", load(names), *names, *broker),
    ]
    for start, title in ((python, "Nameko, Python"), (upstream, "")):
        for number in (1, 100):
            name = "services_{}_{}".format(start.__name__, number)
            titles = (title,) if title else ()
            service = start(name, *titles, "many_services", load(names[-number:]), *broker)
            service.environment["SERVICES"] = str(number)
            measured.append(service)
    return sizes(
        "services", "100 services in a process", SERVICES_METHOD, measured, "at most 1.1", 100
    )


def processes(uri: str) -> Part:
    load_name = "compute:20"
    services = []
    for number in (1, 4):
        name, title = "processes_{}".format(number), "Nameko, Python, --workers {}".format(number)
        load = ["load", uri, "bench_compute"]
        options = ("--workers", number, "--broker", uri)
        services.append(python(name, title, "compute", load, *options))
    return Part(
        "processes",
        "Several processes",
        "call",
        {load_name: "20 in flight"},
        services,
        PROCESSES_METHOD,
        columns=[Column("calls/s", load_name, "calls_per_second", "{:,.0f}")],
        speed=[Ratio("--workers 4 / --workers 1", "processes_4", ("processes_1",), "at least 1.8")],
    )
