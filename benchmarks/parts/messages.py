"""Handling of events and of consumed messages."""

from __future__ import annotations

from typing import Any

from measure import Column, Part, Ratio, Service

from .programs import FRAMEWORKS, SERVICES, bare, free_port, path, python, rust, upstream

EXCHANGE, EVENT = "bench_source.events", "happened"
QUEUES = ("evt-bench_source-happened--bench_messages.handle", "bench_messages")
FAN_OUT_QUEUES = tuple(
    "evt-bench_source-happened--bench_fan_out.handle_{}".format(number) for number in range(10)
)

METHOD = """\
The load generator publishes persistent messages, a JSON string of 100 bytes or of 64 KiB, without
confirms, and keeps the queue filled. A handler decodes the message, counts it and returns, and the
message is acknowledged. Events arrive through the queue of an event handler, messages through a
queue of `@consume`; for programs without Nameko both are a queue. The prefetch count is 10."""

FAN_OUT_METHOD = """\
One service has ten handlers of one event, with a queue each, and a prefetch count of 10 for each
queue. An event is handled once it has been handled by all ten. The events have 100 bytes."""

REASONS = """\
A handler of Nameko has a worker with its own context, call id and log span, and its dependencies
are injected; the handlers on bare crates call a function."""


class Kind:
    """The programs of one part: handlers of the same queues."""

    def __init__(self, name: str, uri: str, queues: tuple[str, ...]) -> None:
        self.name = name
        self.uri = uri
        self.queues = queues
        self.port = free_port()

    def load(self, queues: tuple[str, ...]) -> list[Any]:
        load = ["load-messages", self.uri, self.port]
        load += ["--to", "event={}/{}".format(EXCHANGE, EVENT)]
        if self.name == "messages":
            load += ["--to", "message=/" + queues[-1]]
        else:
            load += ["--copies", len(queues)]
        for queue in queues:
            load += ["--queue", queue]
        return load

    def reporting(self, service: Service) -> Service:
        service.environment["REPORTS_PORT"] = str(self.port)
        return service

    def crate(self, crate: str, title: str) -> Service:
        """A program of src/main.rs, whose queues are bound to the events."""
        queues = self.own_queues("bare")
        arguments = ("handle", crate, self.uri, EXCHANGE, *queues)
        name = "bench_{}_{}".format(self.name, crate)
        return self.reporting(bare(name, title, *arguments, load=self.load(queues)))

    def script(self, script: str, title: str) -> Service:
        queues = self.own_queues("script")
        command = [FRAMEWORKS, SERVICES / (script + ".py"), self.uri, *queues]
        name = "bench_{}_{}".format(self.name, script)
        service = Service(name, title, command, self.load(queues), environment=path(SERVICES))
        return self.reporting(service)

    def own_queues(self, kind: str) -> tuple[str, ...]:
        if self.name == "messages":
            return ("bench_messages_" + kind,)
        return tuple("bench_fan_out_{}_{}".format(kind, number) for number in range(10))

    def services(self) -> list[Service]:
        load = self.load(self.queues)
        module = "{}_".format(self.name.replace("-", "_"))
        prefix = "bench_{}_".format(self.name)
        service = "bench_" + module.rstrip("_")
        broker = ("--broker", self.uri)
        return [
            self.reporting(rust(prefix + "nameko", "nameko-messages", load, service, *broker)),
            self.crate("client", "handler on `nameko::amqp`"),
            self.crate("lapin", "handler on lapin"),
            self.crate("amqprs", "handler on amqprs"),
            self.crate("loop", "bare loop on amq-protocol"),
            self.reporting(
                python(prefix + "python", "Nameko, Python", module + "sync", load, *broker)
            ),
            self.reporting(
                python(
                    prefix + "python_async",
                    "Nameko, Python, `async def`",
                    module + "async",
                    load,
                    *broker,
                )
            ),
            self.reporting(upstream(prefix + "upstream", module + "sync", load, *broker)),
            self.script("faststream_handlers", "FastStream"),
            self.script("aio_pika_handlers", "aio-pika on uvloop"),
        ]

    def ratios(self) -> list[Ratio]:
        prefix = "bench_{}_".format(self.name)
        rust_service, python_service = prefix + "nameko", prefix + "python"
        faststream = prefix + "faststream_handlers"
        return [
            Ratio("Rust / amqprs", rust_service, (prefix + "amqprs",), "at most 1"),
            Ratio("Python / upstream", python_service, (prefix + "upstream",), "at most 0.125"),
            Ratio("Python / FastStream", python_service, (faststream,), "at most 0.25"),
        ]


def part(uri: str) -> Part:
    kind = Kind("messages", uri, QUEUES)
    loads = {
        "event:100": "event, 100 B",
        "event:65536": "event, 64 KiB",
        "message:100": "message, 100 B",
        "message:65536": "message, 64 KiB",
    }
    return Part(
        "messages",
        "Handling of events and messages",
        "message",
        loads,
        kind.services(),
        METHOD,
        columns=[Column("CPU us, " + title, load) for load, title in loads.items()]
        + [
            Column("messages/s, " + loads[load], load, "calls_per_second", "{:,.0f}")
            for load in ("message:100", "message:65536")
        ],
        cpu=kind.ratios(),
        reasons=REASONS,
    )


def fan_out(uri: str) -> Part:
    kind = Kind("fan-out", uri, FAN_OUT_QUEUES)
    load = "event:100"
    return Part(
        "fan-out",
        "Fan-out of an event to ten handlers",
        "event",
        {load: "100 B"},
        kind.services(),
        FAN_OUT_METHOD,
        columns=[
            Column("CPU us per event", load),
            Column("events/s", load, "calls_per_second", "{:,.0f}"),
        ],
        cpu=kind.ratios(),
        reasons=REASONS,
    )
