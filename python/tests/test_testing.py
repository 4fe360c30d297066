"""The helpers of nameko.testing.utils, and extensions in mock containers."""

import sys
import threading
from types import ModuleType
from unittest.mock import Mock, create_autospec

import kombu
import pytest

from nameko.amqp.publish import get_connection
from nameko.containers import ServiceContainer, WorkerContext
from nameko.messaging import Consumer, Publisher, QueueConsumer
from nameko.rpc import RpcProxy, rpc
from nameko.rpc.reply_listener import ReplyListener
from nameko.standalone.rpc import ServiceRpcProxy
from nameko.testing.services import dummy, entrypoint_hook, replace_dependencies
from nameko.testing.utils import (
    DummyProvider,
    ResourcePipeline,
    assert_stops_raising,
    get_extension,
    get_rabbit_connections,
    reset_rabbit_connections,
    wait_for_call,
    wait_for_worker_idle,
)
from nameko.utils.threads import spawn


class EventletTimeout(BaseException):
    """Like eventlet's, a BaseException with seconds as its argument."""

    def __init__(self, seconds=None, exception=None):
        raise AssertionError("starts a timer")


@pytest.fixture
def eventlet(monkeypatch):
    module = ModuleType("eventlet")
    module.Timeout = EventletTimeout
    monkeypatch.setitem(sys.modules, "eventlet", module)


def wait_for_missing_call():
    with wait_for_call(0, Mock(called=False)):
        pass


def test_waits_raise_timeout_error():
    with pytest.raises(TimeoutError, match="within 0 seconds"):
        wait_for_missing_call()
    with pytest.raises(TimeoutError, match="still raising") as raised:
        assert_stops_raising(lambda: 1 / 0, timeout=0, interval=0)
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


@pytest.mark.usefixtures("eventlet")
def test_waits_raise_eventlets_timeout_if_eventlet_is_imported():
    with pytest.raises(EventletTimeout, match="within 0 seconds"):
        wait_for_missing_call()
    with pytest.raises(TimeoutError):
        wait_for_missing_call()


def test_waits_for_idle_workers_with_a_timeout(serve, uid):
    class Service:
        name = "idle_" + uid

        @rpc
        def method(self):
            pass

    container = serve(Service)
    with pytest.warns(DeprecationWarning, match="wait_for_worker_idle"):
        wait_for_worker_idle(container)
    busy = Mock(worker_pool=Mock(waitall=threading.Event().wait))
    with (
        pytest.warns(DeprecationWarning, match="wait_for_worker_idle"),
        pytest.raises(TimeoutError, match="running workers"),
    ):
        wait_for_worker_idle(busy, timeout=0)


class HttpError(Exception):
    """An HTTP error with a status code."""

    def __init__(self, status):
        self.response = Mock(status_code=status)


def test_resets_connections_and_ignores_those_already_closed():
    ours, other = {"vhost": "v", "name": "a"}, {"vhost": "w", "name": "b"}
    manager = Mock(get_connections=lambda: [ours, other])
    assert get_rabbit_connections("v", manager) == [ours]
    assert get_rabbit_connections("v", Mock(get_connections=lambda: None)) == []
    manager.delete_connection.side_effect = HttpError(404)
    reset_rabbit_connections("v", manager)
    manager.delete_connection.assert_called_once_with("a")
    manager.delete_connection.side_effect = HttpError(500)
    with pytest.raises(HttpError):
        reset_rabbit_connections("v", manager)


def test_a_pipeline_creates_resources_ahead_and_destroys_all():
    created, destroyed = [], []
    filled = threading.Event()

    def create():
        created.append(len(created))
        if len(created) == 4:
            filled.set()  # one in use, two ready, and one waiting to be added
        return created[-1]

    pipeline = ResourcePipeline(create, destroyed.append, size=2)
    with pipeline.run(), pipeline.get() as first:
        assert first == 0
        assert filled.wait(10)
        assert destroyed == []
    assert destroyed == created


def test_a_pipeline_raises_the_error_of_create():
    with pytest.raises(ZeroDivisionError):  # noqa: SIM117
        with ResourcePipeline(lambda: 1 / 0, print).run() as pipeline:
            with pytest.raises(RuntimeError, match="no resource"), pipeline.get():
                pass
    with pytest.raises(RuntimeError, match="size"):
        ResourcePipeline(print, print, size=0)


@pytest.fixture
def foreign_container(config):
    """A mock container with the public attributes only."""
    container = create_autospec(ServiceContainer)
    container.config = config
    container.shared_extensions = {}
    container.max_workers = 1
    container.accept = ["json"]
    container.spawn_managed_thread = lambda fn, identifier=None: spawn(fn)
    return container


def test_a_consumer_works_in_a_custom_container(foreign_container, broker_uri, uid):
    queue = kombu.Queue("foreign-" + uid, auto_delete=True, durable=False)
    handled = threading.Event()
    foreign_container.spawn_worker.side_effect = lambda *args, **kwargs: handled.set()
    consumer = Consumer(queue).bind(foreign_container, "method")
    consumer.setup()
    consumer.queue_consumer.start()
    with get_connection(broker_uri) as connection:
        connection.Producer().publish("hello", routing_key=queue.name, serializer="json")
    assert handled.wait(10)
    args, kwargs = foreign_container.spawn_worker.call_args
    assert args == (consumer, ("hello",), {})
    kwargs["handle_result"](None, None, None)
    consumer.stop()
    consumer.queue_consumer.stop()


def test_warns_of_an_unserializable_header_when_the_worker_starts(foreign_container):
    publisher = Publisher().bind(foreign_container, "publish")
    foreign_container.service_name = "service"
    worker_ctx = WorkerContext(
        foreign_container, None, DummyProvider("method"), data={"language": None}
    )
    with pytest.warns(UserWarning, match="unserialisable header"):
        publisher.get_dependency(worker_ctx)


def test_memory_uri_is_an_embedded_broker():
    class Service:
        name = "in_memory"

        @rpc
        def method(self, value):
            return value

    config = {"AMQP_URI": "memory://localhost"}
    container = ServiceContainer(Service, config)
    container.start()
    try:
        with ServiceRpcProxy("in_memory", config, timeout=10) as proxy:
            assert proxy.method("hello") == "hello"
        with get_connection(config["AMQP_URI"]) as connection:
            assert connection.default_channel.queue_declare("rpc-in_memory", passive=True)
    finally:
        container.kill()


def test_heartbeat_can_be_disabled(foreign_container):
    for value, heartbeat in ((None, None), (0, 0), (7, 7)):
        foreign_container.config = {"AMQP_URI": "memory://", "HEARTBEAT": value}
        consumer = QueueConsumer().bind(foreign_container)
        assert consumer.connection.heartbeat == heartbeat


def test_a_consumer_can_open_a_kombu_connection(foreign_container, uid):
    foreign_container.config = {"AMQP_URI": "memory://"}
    consumer = QueueConsumer().bind(foreign_container)
    with consumer.establish_connection() as connection:
        assert connection.default_channel.queue_declare("own-" + uid, auto_delete=True)


class Reseller:
    name = "reseller"

    shop = RpcProxy("shop")
    warehouse = RpcProxy("warehouse")

    @dummy
    def order(self, item):
        return self.shop.order(item)


def test_a_service_with_replaced_proxies_needs_no_broker():
    # Nothing listens on this port.
    container = ServiceContainer(Reseller, {"AMQP_URI": "amqp://guest:guest@127.0.0.1:1"})
    shop, _ = replace_dependencies(container, "shop", "warehouse")
    shop.order.return_value = 17
    container.start()
    with entrypoint_hook(container, "order") as order:
        assert order("tea") == 17
    container.stop()


def test_a_proxy_that_is_not_replaced_keeps_its_connection(config):
    container = ServiceContainer(Reseller, config)
    replace_dependencies(container, "shop")
    assert get_extension(container, ReplyListener) is not None
