"""Clients for programs that are not services."""

import gc
import socket
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from amqp.exceptions import AccessRefused, NotAllowed, NotFound
from kombu import Exchange
from kombu.exceptions import OperationalError

import nameko
from nameko.events import event_handler
from nameko.exceptions import ConfigurationError, RpcTimeout
from nameko.extensions import DependencyProvider
from nameko.rpc import rpc
from nameko.standalone import rpc as standalone_rpc
from nameko.standalone.events import event_dispatcher, get_event_exchange
from nameko.standalone.rpc import (
    ClusterRpcClient,
    ClusterRpcProxy,
    ServiceRpcClient,
    ServiceRpcProxy,
)


class Context(DependencyProvider):
    def get_dependency(self, worker_ctx):
        return worker_ctx


@pytest.fixture
def go():
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def service(serve, uid, go):
    class Service:
        name = "service-" + uid
        context = Context()

        @rpc
        def echo(self, value):
            return value

        @rpc
        def wait(self):
            go.wait(20)
            return "waited"

        @rpc
        def data(self):
            return [self.context.data, self.context.call_id_stack[:-1]]

    serve(Service)
    return Service.name


def test_supports_with_and_start_and_stop(service, config):
    with ServiceRpcProxy(service, config) as proxy:
        assert proxy.echo(1) == 1
        assert proxy.echo(value=2) == 2
    client = ClusterRpcProxy(config)
    cluster = client.start()
    assert getattr(cluster, service).echo(1) == cluster[service].echo(1) == 1
    client.stop()


def test_can_be_restarted_and_rejects_calls_when_stopped(service, config):
    client = ServiceRpcProxy(service, config)
    for _ in range(2):
        with client as proxy:
            assert proxy.echo(1) == 1
        with pytest.raises(RuntimeError) as raised:
            proxy.echo(1)
        assert str(raised.value) == "This consumer has been stopped, and can no longer be used"


def test_threads_can_start_a_client_independently(service, config):
    """Like the threads of a web server that start a shared client on their first request."""
    client = ClusterRpcProxy(config, timeout=10)

    def start_and_call(n):
        return client.start()[service].echo(n)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(start_and_call, range(100))) == list(range(100))
    client.stop()


def test_replies_can_be_read_in_any_order_and_repeatedly(service, config):
    with ServiceRpcProxy(service, config) as proxy:
        replies = [proxy.echo.call_async(i) for i in range(5)]
        assert [reply.result() for reply in reversed(replies)] == [4, 3, 2, 1, 0]
        assert replies[0].result() == replies[0].result() == 0


def test_a_client_is_thread_safe(service, config):
    with ServiceRpcProxy(service, config, timeout=20) as proxy, ThreadPoolExecutor(10) as pool:
        assert list(pool.map(proxy.echo, range(300))) == list(range(300))


def test_a_client_stays_usable_after_a_timeout(service, config, go):
    with ServiceRpcProxy(service, config, timeout=0.1) as proxy:
        with pytest.raises(RpcTimeout) as raised:
            proxy.wait()
        assert raised.value.args == (0.1,)
        late = proxy.wait.call_async()
        with pytest.raises(RpcTimeout):
            late.result()
    with ServiceRpcProxy(service, config, timeout=10) as proxy:
        assert proxy.echo("still there") == "still there"
        listener = proxy.reply_listener
        assert listener._native.pending == 0


def test_sends_context_data_and_call_id(service, config):
    context_data = {"language": "fr", "call_id_stack": ["parent"]}
    with ServiceRpcProxy(service, config, context_data) as proxy:
        data, stack = proxy.data()
        again = proxy.data()[1]
    assert data == {"language": "fr"}
    assert stack[0] == "parent"
    assert stack[1].startswith("standalone_rpc_proxy.call.")
    assert stack == again
    assert context_data == {"language": "fr"}


def test_supports_the_signatures_of_version_3(service, config):
    with nameko.config.patch(config, clear=True):
        with ServiceRpcClient(service, context_data={"language": "en"}, timeout=10) as proxy:
            assert proxy.data()[0] == {"language": "en"}
        with ClusterRpcClient(timeout=10) as cluster:
            assert cluster[service].echo(1) == 1


def test_accepts_publisher_options(service, config):
    with ServiceRpcProxy(service, config, priority=5, expiration=10) as proxy:
        assert proxy.echo.publisher.priority == 5
        assert proxy.echo(1) == 1


class TestConnectionErrors:
    @pytest.fixture(autouse=True)
    def short_timeout(self, monkeypatch):
        monkeypatch.setattr(standalone_rpc, "CONNECT_TIMEOUT", 0.5)

    def test_no_listener(self):
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
            client = ClusterRpcProxy({"AMQP_URI": "amqp://guest:guest@127.0.0.1:{}".format(port)})
            with pytest.raises(OperationalError, match=str(port)) as raised:
                client.start()
            assert isinstance(raised.value, OSError)
            assert "guest:guest" not in str(raised.value)

    def test_wrong_password(self, own_broker):
        client = ClusterRpcProxy({"AMQP_URI": own_broker.uri.replace("guest:guest", "guest:no")})
        with pytest.raises(AccessRefused, match="guest") as raised:
            client.start()
        assert raised.value.reply_code == 403
        assert raised.value.reply_text.startswith("ACCESS_REFUSED - Login was refused")

    def test_wrong_vhost(self, own_broker):
        client = ClusterRpcProxy({"AMQP_URI": own_broker.uri.rstrip("/") + "/nowhere"})
        with pytest.raises(NotAllowed, match="nowhere") as raised:
            client.start()
        assert raised.value.args[0] == 530
        assert raised.value.reply_text.startswith("NOT_ALLOWED - vhost nowhere not found")
        assert raised.value.method == "Connection.open"

    def test_another_protocol(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(5)

            def answer():
                while True:
                    try:
                        peer, _ = server.accept()
                    except OSError:
                        return
                    peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    peer.close()

            thread = threading.Thread(target=answer, daemon=True)
            thread.start()
            port = server.getsockname()[1]
            client = ClusterRpcProxy({"AMQP_URI": "amqp://127.0.0.1:{}".format(port)})
            with pytest.raises(OperationalError, match="AMQP"):
                client.start()

    def test_invalid_uri(self):
        with pytest.raises(ConfigurationError):
            ClusterRpcProxy({"AMQP_URI": "http://localhost"}).start()


def test_dispatching_requires_a_declared_exchange(config, uid, caller):
    dispatch = event_dispatcher(config)
    for _ in range(2):
        with pytest.raises(NotFound):
            dispatch("nobody-" + uid, "type", "data")
    event_dispatcher(config, use_confirms=False)("nobody-" + uid, "type", "data")

    exchange = get_event_exchange("somebody-" + uid, {})
    exchange(caller.channel).declare()
    dispatch("somebody-" + uid, "type", "data")
    exchange(caller.channel).delete()


def test_event_exchange_follows_the_configuration():
    assert get_event_exchange("s", {}) == Exchange("s.events", type="topic", delivery_mode=2)
    assert get_event_exchange("s", {"AUTO_DELETE_EVENT_EXCHANGES": True}).auto_delete
    assert get_event_exchange("s", {"DECLARE_EVENT_EXCHANGES": False}).no_declare
    assert not get_event_exchange("s", {"DECLARE_EVENT_EXCHANGES": None}).no_declare


def test_a_stopped_client_can_be_collected(config, cluster, service):
    proxy = ClusterRpcProxy(config, timeout=10)
    proxy.start()
    gone = threading.Event()
    weakref.finalize(proxy._reply_listener, gone.set)
    proxy.stop()
    del proxy
    gc.collect()
    assert gone.wait(0)


def test_reports_the_loss_of_the_broker(own_broker, monkeypatch, expect_log):
    monkeypatch.setattr("nameko.standalone.rpc.CONNECT_TIMEOUT", 0.3)
    with ClusterRpcProxy({"AMQP_URI": own_broker.uri}) as proxy:
        with expect_log("nameko.standalone.rpc", "cannot reach the broker"):
            own_broker.stop()
        # Upstream raises a socket error first, and a RuntimeError after that.
        with pytest.raises(OSError, match=r"disconnected.*ECONNREFUSED.*again") as raised:
            proxy.service.method()
        assert isinstance(raised.value, RuntimeError)


GREEN = """
import sys

library, uri, name = sys.argv[1:]
if library == "gevent":
    from gevent import monkey, sleep, spawn

    monkey.patch_all()
else:
    import eventlet
    from eventlet import sleep, spawn

    eventlet.monkey_patch()

from nameko.containers import ServiceContainer
from nameko.exceptions import RpcTimeout
from nameko.standalone.events import event_dispatcher
from nameko.standalone.rpc import ClusterRpcProxy

ticks = []

def tick():
    while True:
        ticks.append(1)
        sleep(0.001)

spawn(tick)
config = {"AMQP_URI": uri}
with ClusterRpcProxy(config, timeout=20) as cluster:
    assert cluster[name].echo(1) == 1
    before = len(ticks)
    # It waits until the other greenlets have run.
    waiting = cluster[name].wait.call_async()
    while len(ticks) < before + 10:
        sleep(0)
    event_dispatcher(config)(name, "go", None)
    assert waiting.result() == "waited"
with ClusterRpcProxy(config, timeout=0.05) as cluster:
    before = len(ticks)
    try:
        cluster[name].wait_for_ever()
    except RpcTimeout:
        assert len(ticks) > before + 5, "the call blocked the other greenlets"

class Service:
    name = "service"

try:
    ServiceContainer(Service, config).start()
except RuntimeError as error:
    assert "Standalone clients work" in str(error)
print("done")
"""


@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_clients_work_among_greenlets(serve, config, uid, library):
    go = threading.Event()

    class Service:
        name = "service-" + uid

        @rpc
        def echo(self, value):
            return value

        @rpc
        def wait(self):
            go.wait(20)
            return "waited"

        @rpc
        def wait_for_ever(self):
            never.wait(20)

        @event_handler(name, "go")
        def on_go(self, data):
            go.set()

    never = threading.Event()
    serve(Service)
    command = [sys.executable, "-W", "ignore", "-c", GREEN]
    done = subprocess.run(
        [*command, library, config["AMQP_URI"], Service.name],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    never.set()
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
