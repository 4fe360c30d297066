"""Lost connections, restarts of the broker, and handlers that block or hang."""

import ctypes
import logging
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from kombu import Queue
from kombu.exceptions import OperationalError

from nameko._nameko import Broker
from nameko.amqp.publish import Publisher
from nameko.containers import ServiceContainer
from nameko.exceptions import RpcTimeout
from nameko.extensions import DependencyProvider
from nameko.messaging import consume
from nameko.rpc import RpcProxy, rpc
from nameko.standalone import rpc as standalone_rpc
from nameko.standalone.rpc import ClusterRpcProxy
from nameko.testing.services import entrypoint_hook, entrypoint_waiter


class Echo:
    name = "echo"

    @rpc
    def echo(self, value):
        return value


@pytest.fixture
def run():
    """Starts a container on a broker of this test. Killed after the test."""
    containers = []

    def start(service_cls, uri, **config):
        container = ServiceContainer(service_cls, {"AMQP_URI": uri, **config})
        containers.append(container)
        container.start()
        return container

    yield start
    for container in containers:
        container.kill()


def until(fn, *exceptions, deadline=20):
    """Calls ``fn`` until it raises none of these exceptions. Returns its result."""
    end = time.monotonic() + deadline
    while True:
        try:
            return fn()
        except exceptions:
            if time.monotonic() > end:
                raise


def test_connections_are_restored_under_load(run, own_broker):
    run(Echo, own_broker.uri)
    with (
        ClusterRpcProxy({"AMQP_URI": own_broker.uri}, timeout=20) as cluster,
        ThreadPoolExecutor(8) as pool,
    ):

        def one(i):
            if i % 100 == 50:
                own_broker.close_connections()
            return cluster.echo.echo(i)

        assert list(pool.map(one, range(400))) == list(range(400))


def test_reconnects_after_the_broker_restarts(run, expect_log, monkeypatch):
    monkeypatch.setattr(standalone_rpc, "CONNECT_TIMEOUT", 0.3)
    broker = Broker()
    uri, port = broker.uri, broker.port
    container = run(Echo, uri)
    with ClusterRpcProxy({"AMQP_URI": uri}, timeout=5, retry=False) as cluster:
        assert cluster.echo.echo(1) == 1
        with expect_log("nameko.messaging", "Error connecting to broker at", logging.WARNING):
            broker.stop()
        with pytest.raises((OperationalError, RuntimeError)):
            cluster.echo.echo(2)
        broker = Broker("127.0.0.1", port)
        answer = until(lambda: cluster.echo.echo(3), Exception)
        assert answer == 3
    assert not container._died.ready()
    broker.stop()


def test_calls_in_flight_fail_if_the_broker_loses_the_reply_queue(run):
    began, go = threading.Event(), threading.Event()

    class Slow:
        name = "slow"

        @rpc
        def method(self):
            began.set()
            go.wait(20)

    broker = Broker()
    uri, port = broker.uri, broker.port
    run(Slow, uri)
    with ClusterRpcProxy({"AMQP_URI": uri}, timeout=30) as cluster:
        reply = cluster.slow.method.call_async()
        assert began.wait(10)
        broker.stop()
        broker = Broker("127.0.0.1", port)
        with pytest.raises(OSError, match="lost"):
            reply.result()
    go.set()
    broker.stop()


def test_a_start_waits_for_the_broker(expect_log):
    broker = Broker()
    uri, port = broker.uri, broker.port
    broker.stop()
    container = ServiceContainer(Echo, {"AMQP_URI": uri})
    starter = threading.Thread(target=container.start)
    with expect_log("nameko.messaging", "Retrying in", logging.WARNING):
        starter.start()
    assert starter.is_alive()
    broker = Broker("127.0.0.1", port)
    starter.join(20)
    assert not starter.is_alive()
    with ClusterRpcProxy({"AMQP_URI": uri}, timeout=5) as cluster:
        assert cluster.echo.echo(1) == 1
    container.stop()
    broker.stop()


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_start_that_waits_for_the_broker_can_be_ended(expect_log, how):
    broker = Broker()
    uri = broker.uri
    broker.stop()
    container = ServiceContainer(Echo, {"AMQP_URI": uri})
    starter = threading.Thread(target=container.start)
    with expect_log("nameko.messaging", "Retrying in", logging.WARNING):
        starter.start()
    getattr(container, how)()
    starter.join(10)
    assert not starter.is_alive()


def test_a_start_waits_if_the_broker_refuses_the_password(expect_log, own_broker):
    uri = own_broker.uri.replace("guest:guest", "guest:wrong")
    container = ServiceContainer(Echo, {"AMQP_URI": uri})
    starter = threading.Thread(target=container.start)
    with expect_log("nameko.messaging", "guest:********@", logging.WARNING):
        starter.start()
    container.stop()
    starter.join(10)
    assert not starter.is_alive()


def test_issue_511_a_message_of_a_lost_connection_runs_again_and_its_late_ack_is_ignored(
    run, own_broker
):
    began, go, bodies = threading.Semaphore(0), threading.Event(), []

    class Service:
        name = "service"

        @consume(Queue("work"))
        def work(self, body):
            bodies.append(body)
            began.release()
            go.wait(20)

    container = run(Service, own_broker.uri)
    count = []

    def twice(worker_ctx, result, exc_info):
        count.append(1)
        return len(count) == 2

    with entrypoint_waiter(container, "work", callback=twice):
        Publisher(own_broker.uri).publish("job", routing_key="work")
        assert began.acquire(timeout=10)
        own_broker.close_connections()
        assert began.acquire(timeout=10)
        go.set()
    assert bodies == ["job", "job"]
    assert not container._died.ready()


def test_a_handler_that_holds_the_gil_keeps_the_connection(run, own_broker, caplog):
    class Hog:
        name = "hog"

        @rpc
        def hog(self):
            # Unlike time.sleep, a call through PyDLL holds the GIL.
            ctypes.PyDLL(None).usleep(3_500_000)
            return "done"

    container = run(Hog, own_broker.uri, HEARTBEAT=1)
    with (
        caplog.at_level(logging.WARNING),
        ClusterRpcProxy({"AMQP_URI": own_broker.uri}, timeout=20) as cluster,
    ):
        assert cluster.hog.hog() == "done"
    assert ":{}".format(own_broker.port) not in caplog.text
    assert not container._died.ready()


def test_a_hanging_handler_affects_only_its_caller(run, own_broker):
    go = threading.Event()

    class Service:
        name = "service"

        @rpc
        def hang(self):
            go.wait(30)

        @rpc
        def answer(self):
            return 42

    run(Service, own_broker.uri)
    with ClusterRpcProxy({"AMQP_URI": own_broker.uri}, timeout=0.2) as cluster:
        with pytest.raises(RpcTimeout):
            cluster.service.hang()
        assert cluster.service.answer() == 42
    go.set()


def test_a_reply_that_cannot_be_sent_does_not_delay_the_stop_of_another_service(
    run, own_broker, broker_uri
):
    begun, go = threading.Event(), threading.Event()

    class Service:
        name = "service"

        @rpc
        def method(self):
            begun.set()
            go.wait(30)

    class Other:
        name = "other"

        @rpc
        def method(self):
            pass

    service, other = run(Service, own_broker.uri), run(Other, broker_uri)
    with ClusterRpcProxy({"AMQP_URI": own_broker.uri}) as cluster:
        cluster.service.method.call_async()
        assert begun.wait(10)
    own_broker.stop()
    go.set()
    service._worker_pool.waitall()
    stopping = threading.Thread(target=other.stop)
    stopping.start()
    # Less than a stop waits for its own replies.
    stopping.join(4)
    assert not stopping.is_alive()


def test_a_reply_is_published_again_if_its_connection_is_lost(run, own_broker):
    """Replies are published on another connection than requests are received on."""

    class Cutter(DependencyProvider):
        def get_dependency(self, worker_ctx):
            return own_broker.close_connections

    class Service:
        name = "service"
        cut = Cutter()

        @rpc
        def method(self, value):
            self.cut()
            return value

    container = run(Service, own_broker.uri)
    with ClusterRpcProxy({"AMQP_URI": own_broker.uri}, timeout=20) as cluster:
        assert cluster.service.method("kept") == "kept"
    assert not container._died.ready()


def test_a_reply_is_kept_while_the_broker_refuses_connections(run, own_broker, expect_log):
    """The method runs once, and its caller gets the reply when the broker is back."""
    runs = []

    class Service:
        name = "service"

        @rpc
        def method(self):
            runs.append(1)
            return len(runs)

    with Gate(own_broker.uri) as gate:
        run(Service, gate.uri)
        # The connection for requests stays, the one for replies can't be opened.
        gate.closed = True
        with ClusterRpcProxy({"AMQP_URI": own_broker.uri}, timeout=30) as cluster:
            with expect_log("nameko", "is kept until the broker takes it", logging.WARNING):
                reply = cluster.service.method.call_async()
            gate.closed = False
            assert reply.result() == 1
        assert len(runs) == 1


class Gate:
    """A proxy of the broker at ``uri`` that can refuse further connections."""

    def __init__(self, uri):
        address = urlsplit(uri)
        self._broker = (address.hostname, address.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.closed = False
        self.uri = "amqp://guest:guest@127.0.0.1:{}".format(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.closed:
                client.close()
                continue
            broker = socket.create_connection(self._broker)
            for ends in ((client, broker), (broker, client)):
                threading.Thread(target=self._forward, args=ends, daemon=True).start()

    def _forward(self, source, target):
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass
        target.close()


def test_service_to_service_calls_survive_lost_connections(run, own_broker):
    class Caller:
        name = "caller"
        echo = RpcProxy("echo", timeout=20)

        @rpc
        def method(self, value):
            return self.echo.echo(value)

    run(Echo, own_broker.uri)
    container = run(Caller, own_broker.uri)
    with entrypoint_hook(container, "method") as method:
        assert method(1) == 1
        own_broker.close_connections()
        assert method(2) == 2


def test_publishing_at_the_end_of_the_process_does_not_panic(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import threading\n"
        "from nameko.amqp.publish import Publisher\n"
        # No broker listens on port 1.
        "publisher = Publisher('amqp://127.0.0.1:1', retry_policy={'max_retries': 1000})\n"
        "thread = threading.Thread(target=publisher.publish, args=('x',), daemon=True)\n"
        "thread.start()\n"
        "thread.join(0.2)\n"
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0
    assert "panicked" not in done.stderr
