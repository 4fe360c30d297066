"""Events and messages between instances of one service, one of each kind."""

import json
import queue
import threading

import kombu
import pytest
from mixed_fleet import KINDS, PATIENCE

QUEUES = (
    "reports_fleet",
    "letters_fleet",
    "evt-sender_fleet-pool--listener_fleet.on_pool",
    "evt-sender_fleet-singleton",
)


class Reports:
    """What the listeners of a fleet say they have heard."""

    def __init__(self, uri):
        self._arrived = queue.Queue()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._consume, args=(uri,), daemon=True)
        self._thread.start()

    def _consume(self, uri):
        heard = kombu.Queue("reports_fleet")
        with (
            kombu.Connection(uri) as connection,
            kombu.Consumer(connection, [heard], on_message=self._hear, no_ack=True),
        ):
            while not self._ended.is_set():
                try:
                    connection.drain_events(timeout=0.1)
                except TimeoutError:
                    continue

    def _hear(self, message):
        self._arrived.put(json.loads(message.body))

    def next(self, count):
        return [self._arrived.get(timeout=PATIENCE) for _ in range(count)]

    def stop(self):
        self._ended.set()
        self._thread.join()


def clean(uri):
    with kombu.Connection(uri) as connection, connection.channel() as channel:
        for name in QUEUES:
            channel.queue_delete(name)


@pytest.fixture(scope="module")
def listeners(empty_fleet):
    """An instance of each kind of the listening service, on queues that all declare alike."""
    clean(empty_fleet.uri)
    running = [empty_fleet.serve(kind, "Listener", "listeners") for kind in KINDS]
    for process in running:
        empty_fleet.ready(process)
    yield
    for process in running:
        process.stop()
    clean(empty_fleet.uri)


@pytest.fixture(scope="module", params=KINDS)
def tell(request, empty_fleet, callers, listeners):
    """Calls the telling service; the tests run once with each kind."""
    teller = empty_fleet.ready(empty_fleet.serve(request.param, "Sender", "listeners"))

    def tell(method, *args):
        return callers["rust"].result("sender_fleet", method, *args)

    yield tell
    # Nameko replies before it acknowledges. Ended in between it leaves the call to the next
    # instance: let that be one of which nobody hears.
    tell("dispatch", "nothing", None)
    teller.stop()


@pytest.fixture(scope="module")
def reports(empty_fleet, listeners):
    reports = Reports(empty_fleet.uri)
    yield reports
    reports.stop()


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("pool", ("dispatch", "pool")),
        ("singleton", ("dispatch", "singleton")),
        ("sort", ("dispatch", "sort.any")),
        ("letter", ("publish",)),
    ],
)
def test_instances_of_all_kinds_share_what_comes(tell, reports, what, told):
    for number in range(20):
        tell(*told, {"number": number, "text": "grün"})
    heard = reports.next(20)
    assert {report["handler"] for report in heard} == {what}
    # Each once, by whomever.
    assert sorted(report["data"]["number"] for report in heard) == list(range(20))
    assert {report["data"]["text"] for report in heard} == {"grün"}
    kinds = [report["kind"] for report in heard]
    # A broker goes round the consumers of a queue, whoever they are.
    assert min(kinds.count(kind) for kind in KINDS) >= 5, kinds
    # The context data of the first caller, in conftest.py, goes all the way.
    assert {report["language"] for report in heard} == {"de"}


def test_a_broadcast_reaches_instances_of_all_kinds(tell, reports):
    tell("dispatch", "broadcast", "news")
    heard = reports.next(len(KINDS))
    assert {report["kind"] for report in heard} == set(KINDS)
    assert {(report["handler"], report["data"]) for report in heard} == {("broadcast", "news")}


@pytest.mark.parametrize("kind", ["upstream", "python"])
def test_scripts_of_both_kinds_reach_all(empty_fleet, listeners, reports, kind):
    script = (
        "import sys; from nameko.standalone.events import event_dispatcher;"
        "event_dispatcher({'AMQP_URI': sys.argv[1]})('sender_fleet', 'broadcast', 'from a script')"
    )
    empty_fleet.run(empty_fleet.python(kind), "-c", script, empty_fleet.uri)
    heard = reports.next(len(KINDS))
    assert {report["kind"] for report in heard} == set(KINDS)
    assert {(report["data"], report["language"]) for report in heard} == {("from a script", None)}
