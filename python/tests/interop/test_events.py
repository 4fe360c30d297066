"""Events and messages for instances of a service, one of each kind."""

import json
import queue
import threading

import kombu
import pytest
from mixed_fleet import KINDS, TIMEOUT

QUEUES = (
    "reports_fleet",
    "letters_fleet",
    "evt-sender_fleet-pool--listener_fleet.on_pool",
    "evt-sender_fleet-singleton",
)


class Reports:
    """Reports of the listeners about received messages."""

    def __init__(self, uri):
        self._arrived = queue.Queue()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._consume, args=(uri,), daemon=True)
        self._thread.start()

    def _consume(self, uri):
        reports = kombu.Queue("reports_fleet")
        with (
            kombu.Connection(uri) as connection,
            kombu.Consumer(connection, [reports], on_message=self._receive, no_ack=True),
        ):
            while not self._ended.is_set():
                try:
                    connection.drain_events(timeout=0.1)
                except TimeoutError:
                    continue

    def _receive(self, message):
        self._arrived.put(json.loads(message.body))

    def next(self, count):
        return [self._arrived.get(timeout=TIMEOUT) for _ in range(count)]

    def stop(self):
        self._ended.set()
        self._thread.join()


def clean(uri):
    with kombu.Connection(uri) as connection, connection.channel() as channel:
        for name in QUEUES:
            channel.queue_delete(name)


@pytest.fixture(scope="module")
def listeners(empty_fleet):
    """Instances of the listening service, one of each kind, which declare the same queues."""
    clean(empty_fleet.uri)
    running = [empty_fleet.serve(kind, "Listener", "listeners") for kind in KINDS]
    for process in running:
        empty_fleet.ready(process)
    yield
    for process in running:
        process.stop()
    clean(empty_fleet.uri)


@pytest.fixture(scope="module", params=KINDS)
def send(request, empty_fleet, callers, listeners):
    """Calls the dispatching service. The tests run with each kind."""
    sender = empty_fleet.ready(empty_fleet.serve(request.param, "Sender", "listeners"))

    def send(method, *args):
        return callers["rust"].result("sender_fleet", method, *args)

    yield send
    # Nameko replies before it acknowledges, so a call may be redelivered to the next instance after
    # the stop: make the last call one without listeners.
    send("dispatch", "nothing", None)
    sender.stop()


@pytest.fixture(scope="module")
def reports(empty_fleet, listeners):
    reports = Reports(empty_fleet.uri)
    yield reports
    reports.stop()


@pytest.mark.parametrize(
    ("handler", "call"),
    [
        ("pool", ("dispatch", "pool")),
        ("singleton", ("dispatch", "singleton")),
        ("sort", ("dispatch", "sort.any")),
        ("letter", ("publish",)),
    ],
)
def test_instances_of_all_kinds_share_the_messages(send, reports, handler, call):
    for number in range(20):
        send(*call, {"number": number, "text": "grün"})
    received = reports.next(20)
    assert {report["handler"] for report in received} == {handler}
    # Each message is received exactly once.
    assert sorted(report["data"]["number"] for report in received) == list(range(20))
    assert {report["data"]["text"] for report in received} == {"grün"}
    kinds = [report["kind"] for report in received]
    # The broker serves consumers round robin.
    assert min(kinds.count(kind) for kind in KINDS) >= 5, kinds
    # The context data of the caller, CONTEXT in conftest.py.
    assert {report["language"] for report in received} == {"de"}


def test_a_broadcast_reaches_instances_of_all_kinds(send, reports):
    send("dispatch", "broadcast", "news")
    received = reports.next(len(KINDS))
    assert {report["kind"] for report in received} == set(KINDS)
    assert {(report["handler"], report["data"]) for report in received} == {("broadcast", "news")}


@pytest.mark.parametrize("kind", ["upstream", "python"])
def test_events_of_scripts_reach_all_instances(empty_fleet, listeners, reports, kind):
    script = (
        "import sys; from nameko.standalone.events import event_dispatcher;"
        "event_dispatcher({'AMQP_URI': sys.argv[1]})('sender_fleet', 'broadcast', 'from a script')"
    )
    empty_fleet.run(empty_fleet.python(kind), "-c", script, empty_fleet.uri)
    received = reports.next(len(KINDS))
    assert {report["kind"] for report in received} == set(KINDS)
    assert {(report["data"], report["language"]) for report in received} == {
        ("from a script", None)
    }
