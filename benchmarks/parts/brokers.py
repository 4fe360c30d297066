"""The embedded broker against RabbitMQ."""

from __future__ import annotations

import subprocess
import sys
from urllib.parse import urlsplit

from measure import BINARIES, Column, Part, Ratio, Service

from .programs import free_port

METHOD = """\
One blocking client on the codec publishes persistent messages of 100 bytes to a durable topic
exchange. Publish: no confirms, a queue that keeps the newest 1,000 messages; a synchronous method
after every 100. Confirm: the same with confirms, 50 outstanding. Consume: each message through a
queue to a consumer that acknowledges it, with a prefetch count of 100. Fan-out: to ten queues, each
with a consumer. Topic: a queue bound with 1,000 keys, all of which are used. The CPU is that of the
broker per published message. RabbitMQ stores messages, the embedded broker keeps them in memory."""

LOADS = {
    "publish:100": "publish",
    "confirm:50": "confirm",
    "consume:200": "consume",
    "fanout:50": "fan-out",
    "topic:200": "topic",
}


def part(uri: str) -> Part:
    port = free_port()
    embedded = "amqp://guest:guest@127.0.0.1:{}/%2F".format(port)
    return Part(
        "brokers",
        "Embedded broker",
        "message",
        LOADS,
        [
            Service(
                "broker_embedded",
                "embedded broker",
                [BINARIES / "nameko-broker", "broker", "--host", "127.0.0.1", "--port", port],
                ["load-broker", embedded],
                own=True,
            ),
            Service("broker_given", "RabbitMQ", [], ["load-broker", uri], pid=server_pid(uri)),
        ],
        METHOD,
        columns=[Column("CPU us, " + title, load) for load, title in LOADS.items()]
        + [
            Column("messages/s, " + title, load, "calls_per_second", "{:,.0f}")
            for load, title in LOADS.items()
        ],
        cpu=[Ratio("embedded broker / RabbitMQ", "broker_embedded", ("broker_given",))],
        speed=[Ratio("embedded broker / RabbitMQ", "broker_embedded", ("broker_given",))],
    )


def server_pid(uri: str) -> int:
    """Returns the process that listens on the port of a broker; needs permission to see it."""
    port = urlsplit(uri).port or 5672
    listening = subprocess.run(
        ["ss", "--listening", "--tcp", "--processes", "--numeric", "sport = :{}".format(port)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    if "pid=" not in listening:
        sys.exit("cannot see the process of the broker at port {}: run as its user".format(port))
    return int(listening.split("pid=")[1].split(",")[0])
