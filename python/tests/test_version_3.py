"""The API of version 3's release candidates, as far as it differs from 2.x."""

import pickle
import threading
from unittest.mock import Mock

import pytest
from kombu import Queue

from nameko import config as global_config
from nameko import serialization
from nameko.amqp.consume import Consumer
from nameko.amqp.publish import Publisher as PublisherCore
from nameko.containers import ServiceContainer, WorkerContext, get_container_cls
from nameko.events import EventDispatcher, event_handler
from nameko.exceptions import ConfigurationError, RemoteError
from nameko.extensions import DependencyProvider
from nameko.messaging import (
    Publisher,
    QueueConsumer,
    consume,
    decode_from_headers,
    encode_to_headers,
)
from nameko.rpc import (
    ClusterRpc,
    ReplyListener,
    Rpc,
    RpcConsumer,
    ServiceRpc,
    get_rpc_exchange,
    rpc,
)
from nameko.runners import ServiceRunner, run_services
from nameko.standalone.events import event_dispatcher
from nameko.standalone.rpc import (
    ClusterRpcClient,
    ClusterRpcProxy,
    ServiceRpcClient,
    ServiceRpcProxy,
)
from nameko.testing.services import dummy, entrypoint_hook, entrypoint_waiter
from nameko.testing.utils import get_extension


class Context(DependencyProvider):
    def get_dependency(self, worker_ctx):
        return worker_ctx


@pytest.fixture
def config(config):
    """The configuration of the tests, as the global one."""
    with global_config.patch(config, clear=True):
        yield global_config


@pytest.fixture
def queue(uid):
    return Queue("queue-" + uid, auto_delete=True, durable=False)


@pytest.fixture
def send(config, queue):
    """``send(value, **options)`` publishes a message to ``queue``."""
    publisher = PublisherCore(config["AMQP_URI"], routing_key=queue.name)
    return publisher.publish


class TestConfigurationIsOptional:
    def test_containers_runners_and_functions_use_the_global_one(self, config):
        class Service:
            name = "service"

        config["max_workers"] = 3
        container = ServiceContainer(Service)
        assert container.config is config
        assert container.max_workers == 3
        assert ServiceRunner().config is config
        assert get_container_cls() is ServiceContainer
        assert serialization.setup().serializer == "json"
        with config.patch({"serializer": "yaml"}):
            assert serialization.setup().accept == ["yaml"]

    def test_a_runner_hosts_containers_without_a_config_parameter(self, config):
        class Container(ServiceContainer):
            def __init__(self, service_cls):
                super().__init__(service_cls)

        class Service:
            name = "service"

        runner = ServiceRunner()
        runner.container_cls = Container
        runner.add_service(Service)
        assert [container.config for container in runner.containers] == [config]

    def test_a_worker_context_uses_the_global_one(self, config):
        config["parent_calls_tracked"] = 1
        context = WorkerContext(
            Mock(spec=["service_name"]), None, Mock(), data={"call_id_stack": ["a", "b", "c"]}
        )
        assert context.config is config
        assert context.call_id_stack == ["c", context.call_id]

    def test_run_services_uses_the_global_one(self, config, uid):
        class Service:
            name = "service-" + uid

            @event_handler(name, "changed")
            def on_event(self, data):
                return data

        with run_services(Service) as runner:
            (container,) = runner.containers
            with entrypoint_waiter(container, "on_event") as result:
                event_dispatcher()(Service.name, "changed", 17)
        assert result.get() == 17


class TestClients:
    @pytest.fixture
    def service(self, serve, config, uid):
        class Service:
            name = "service-" + uid
            context = Context()

            @rpc
            def echo(self, value):
                return value

            @rpc
            def data(self):
                return self.context.data

        serve(Service, ACCEPT=["json", "yaml"])
        return Service.name

    def test_dependency_providers(self, serve, service, uid):
        class Caller:
            name = "caller-" + uid
            one = ServiceRpc(service, expiration=10, priority=3, headers={"nameko.tenant": 7})
            cluster = ClusterRpc(serializer="yaml", timeout=10)

            @rpc
            def by_attribute(self, value):
                return self.one.echo(value), self.cluster[service].echo(value)

            @rpc
            def by_name(self, value):
                return self.one["echo"](value), self.cluster[service]["echo"](value)

            @rpc
            def later(self, value):
                return self.one.echo.call_async(value).result()

            @rpc
            def data(self):
                return self.one.data()

        serve(Caller, ACCEPT=["json", "yaml"])
        with ServiceRpcClient(Caller.name, timeout=10) as caller:
            assert caller.by_attribute("v") == ["v", "v"]
            assert caller.by_name("v") == ["v", "v"]
            assert caller.later(1) == 1
            assert caller.data() == {"tenant": 7}

    def test_standalone_clients(self, service):
        with ServiceRpcClient(service, timeout=10) as client:
            assert client.echo(1) == 1
            assert client["echo"](2) == 2
        with ServiceRpcClient(service, {"language": "en"}, 10, priority=3) as client:
            assert client.data() == {"language": "en"}
        client = ClusterRpcClient(context_data={"language": "en"}, timeout=10)
        cluster = client.start()
        assert cluster[service].data() == {"language": "en"}
        client.stop()

    def test_the_names_of_2_x_use_the_global_configuration(self, service):
        with ServiceRpcProxy(service, timeout=10) as client:
            assert client.echo(1) == 1
        with ClusterRpcProxy(timeout=10) as client:
            assert client[service].echo(1) == 1

    def test_a_broker_other_than_the_configured_one(self, service):
        uri = global_config["AMQP_URI"]
        with global_config.patch({"AMQP_URI": "amqp://guest:guest@127.0.0.1:1"}):
            with ServiceRpcClient(service, timeout=10, uri=uri) as client:
                assert client.echo(1) == 1
            with ClusterRpcClient(timeout=10, uri=uri) as client:
                assert client[service].echo(1) == 1

    def test_requests_can_use_a_different_broker(self, serve, service, uid):
        class Caller:
            name = "caller-" + uid
            one = ServiceRpc(service, uri="amqp://127.0.0.1:1", retry=False, timeout=10)

            @rpc
            def call(self):
                return self.one.echo(1)

        serve(Caller)
        with (
            ServiceRpcClient(Caller.name, timeout=10) as caller,
            pytest.raises(RemoteError, match=r"127\.0\.0\.1:1\b"),
        ):
            caller.call()

    def test_options_of_request_and_reply_consumers(self, serve, service, uid):
        class OwnRpc(Rpc):
            rpc_consumer = RpcConsumer(prefetch_count=1, heartbeat=7)

        class OwnServiceRpc(ServiceRpc):
            rpc_reply_listener = ReplyListener(heartbeat=8, accept=["json"])

        class Caller:
            name = "caller-" + uid
            one = OwnServiceRpc(service, timeout=10)

            @OwnRpc.decorator
            def call(self):
                return self.one.echo(1)

        container = serve(Caller)
        consumers = [e for e in container.extensions if isinstance(e, QueueConsumer)]
        assert {consumer.heartbeat for consumer in consumers} == {7, 8}
        with ServiceRpcClient(Caller.name, timeout=10) as caller:
            assert caller.call() == 1

    @pytest.mark.parametrize("name", ["reply_listener", "rpc_reply_listener"])
    def test_a_custom_reply_listener(self, serve, service, uid, name):
        class OwnListener(ReplyListener):
            def handle_message(self, body, message):
                super().handle_message({**body, "result": "intercepted"}, message)

        own_cls = type("OwnServiceRpc", (ServiceRpc,), {name: OwnListener()})

        class Caller:
            name = "caller-" + uid
            one = own_cls(service, timeout=10)

            @rpc
            def call(self):
                return self.one.echo(1)

        container = serve(Caller)
        assert [type(e) for e in container.extensions if isinstance(e, ReplyListener)] == [
            OwnListener
        ]
        with ServiceRpcClient(Caller.name, timeout=10) as caller:
            assert caller.call() == "intercepted"

    def test_the_rpc_exchange(self, config):
        with config.patch({"rpc_exchange": "other"}):
            assert get_rpc_exchange().name == "other"


class TestConsumerOptions:
    def test_prefetch_count_per_queue(self, serve, queue, send, uid):
        running, go = threading.Semaphore(0), threading.Event()

        class Service:
            name = "service-" + uid

            @consume(queue, prefetch_count=2)
            def receive(self, body):
                running.release()
                go.wait(10)
                return body

        container = serve(Service, max_workers=5)
        with entrypoint_waiter(container, "receive", callback=lambda ctx, *_: ctx.args == (2,)):
            for number in range(3):
                send(number)
            assert running.acquire(timeout=10)
            assert running.acquire(timeout=10)
            assert not running.acquire(timeout=0.1)
            go.set()

    def test_prefetch_count_in_capitals(self, config):
        class Service:
            name = "service"

            @rpc
            def method(self):
                pass

        config["PREFETCH_COUNT"] = 3
        (consumer,) = (
            e for e in ServiceContainer(Service).extensions if isinstance(e, QueueConsumer)
        )
        assert consumer.prefetch_count == 3
        config["prefetch_count"] = 4
        assert consumer.prefetch_count == 4

    def test_invalid_prefetch_count(self, serve, queue, uid):
        class Service:
            name = "service-" + uid

            @consume(queue, prefetch_count="many")
            def receive(self, body):
                pass

        with pytest.raises(ConfigurationError, match="prefetch_count must be a whole number"):
            serve(Service)

    def test_accepted_formats_per_queue(self, serve, queue, send, uid):
        class Service:
            name = "service-" + uid

            @consume(queue, accept=["yaml"])
            def receive(self, body):
                return body

        container = serve(Service)
        with entrypoint_waiter(container, "receive") as result:
            send("json is not accepted")
            send("yaml is", serializer="yaml")
        assert result.get() == "yaml is"

    def test_a_heartbeat_requires_its_own_connection(self, serve, queue, send, uid):
        class Service:
            name = "service-" + uid

            @consume(queue, heartbeat=7)
            def receive(self, body):
                return body

            @event_handler(name, "changed", heartbeat=7)
            def also(self, body):
                pass

            @event_handler(name, "changed")
            def usual(self, body):
                pass

        container = serve(Service)
        consumers = [e for e in container.extensions if isinstance(e, QueueConsumer)]
        assert sorted(consumer.connection.heartbeat for consumer in consumers) == [7, 60]
        with entrypoint_waiter(container, "receive") as result:
            send(1)
        assert result.get() == 1

    def test_unknown_options(self, queue):
        with pytest.raises(TypeError):
            consume(queue, no_such_option=1)(lambda self, body: None)

    def test_messages_can_be_acknowledged_through_the_consumer(self, serve, queue, send, uid):
        class Batch(consume.__self__):
            def handle_message(self, body, message):
                self.consumer.ack_message(message)
                super().handle_message(body, message)

        class Service:
            name = "service-" + uid

            @Batch.decorator(queue)
            def receive(self, body):
                return body

        container = serve(Service)
        with entrypoint_waiter(container, "receive") as result:
            send(1)
        assert result.get() == 1


class TestPublisherOptions:
    def test_a_broker_other_than_the_configured_one(self, config, serve, own_broker, uid):
        class Service:
            name = "service-" + uid
            elsewhere = Publisher(uri=own_broker.uri)
            dispatch = EventDispatcher(uri=own_broker.uri)

            @dummy
            def send(self, queue):
                self.elsewhere("message", routing_key=queue)
                self.dispatch("changed", "event")

        class Other:
            name = "other-" + uid

            @consume(Queue("queue-" + uid))
            def receive(self, body):
                return body

            @event_handler(Service.name, "changed")
            def on_event(self, body):
                return body

        other = serve(Other, AMQP_URI=own_broker.uri)
        with (
            entrypoint_waiter(other, "receive") as message,
            entrypoint_waiter(other, "on_event") as event,
            entrypoint_hook(serve(Service), "send") as send,
        ):
            send("queue-" + uid)
        assert message.get() == "message"
        assert event.get() == "event"

    def test_options_of_a_standalone_dispatcher(self, serve, own_broker, uid):
        class Service:
            name = "service-" + uid

            @event_handler(name, "changed")
            def on_event(self, body):
                return body

        container = serve(Service, AMQP_URI=own_broker.uri)
        with entrypoint_waiter(container, "on_event") as result:
            event_dispatcher(uri=own_broker.uri)(Service.name, "changed", 1)
        assert result.get() == 1


def test_encodes_and_decodes_headers():
    assert encode_to_headers({"a": 1, "b": None}) == {"nameko.a": 1}
    assert encode_to_headers({"a": 1}, prefix="other") == {"other.a": 1}
    assert decode_from_headers({"nameko.a": 1, "b": 2}) == {"a": 1, "b": 2}
    assert decode_from_headers({"other.a": 1, "nameko.b": 2}, "other") == {"a": 1, "nameko.b": 2}


def test_changes_of_context_data_are_sent(serve, uid):
    class Tenant(DependencyProvider):
        def worker_setup(self, worker_ctx):
            worker_ctx.context_data["tenant"] = 7

    class Service:
        name = "service-" + uid
        tenant = Tenant()
        dispatch = EventDispatcher()

        @dummy
        def notify(self):
            self.dispatch("changed", None)

        @event_handler(name, "changed")
        def on_event(self, data):
            pass

    container = serve(Service)
    seen = []
    with (
        entrypoint_waiter(
            container, "on_event", callback=lambda ctx, *_: seen.append(ctx.data) or True
        ),
        entrypoint_hook(container, "notify") as notify,
    ):
        notify()
    assert seen == [{"tenant": 7}]


def test_programs_can_load_configuration_files(tmp_path, monkeypatch):
    from nameko.cli import setup_config
    from nameko.cli.utils.config import load_config
    from nameko.cli.utils.config import setup_config as from_utils

    monkeypatch.setenv("BROKER_HOST", "rabbit")
    path = tmp_path / "config.yml"
    path.write_text("AMQP_URI: amqp://${BROKER_HOST}:${BROKER_PORT:5672}/\nCURRENCY: EUR\n")
    expected = {"AMQP_URI": "amqp://rabbit:5672/", "CURRENCY": "EUR"}
    with path.open("rb") as file:
        assert load_config(file) == expected

    for setup in setup_config, from_utils:
        with global_config.patch({"SHOP": 1}, clear=True), path.open("rb") as file:
            assert setup(file, define={"CURRENCY": "USD"}, broker="ignored") is global_config
            assert global_config == {**expected, "CURRENCY": "USD", "SHOP": 1}
    with global_config.patch({}, clear=True):
        setup_config(None, broker="amqp://other")
        assert global_config == {"AMQP_URI": "amqp://other"}


def test_a_provider_gives_a_client_for_a_mock_of_a_worker(serve, config, uid):
    class Service:
        name = "service-" + uid
        context = Context()

        @rpc
        def language(self):
            return self.context.data.get("language")

    class Caller:
        name = "caller-" + uid
        service = ServiceRpc(Service.name)

        @rpc
        def method(self):
            pass

    serve(Service)
    provider = get_extension(serve(Caller), ServiceRpc)
    worker_ctx = Mock(context_data={"language": "en"})
    assert provider.get_dependency(worker_ctx).language() == "en"


def test_the_data_of_a_worker_has_its_call_id_stack(serve, cluster, uid):
    class Service:
        name = "service-" + uid
        context = Context()

        @rpc
        def method(self):
            data, stack = self.context.data, self.context.call_id_stack
            assert data["call_id_stack"] == data.get("call_id_stack") == stack
            assert "call_id_stack" in data
            assert data.get("nothing", 1) == 1
            with pytest.raises(KeyError, match="nothing"):
                data["nothing"]
            assert pickle.loads(pickle.dumps(data)) == {}
            # As in version 2.
            return data

    serve(Service)
    assert cluster[Service.name].method() == {}


def test_a_program_consumes_from_queues(broker_uri, uid):
    queue = Queue("queue-" + uid, auto_delete=True)
    received = []

    def receive(body, message):
        received.append(body)
        consumer.ack_message(message)
        if len(received) == 2:
            consumer.stop()

    consumer = Consumer(broker_uri, queues=[queue], callbacks=[receive], prefetch_count=1)
    thread = threading.Thread(target=consumer.run, daemon=True)
    thread.start()
    consumer.wait_until_consumer_ready()
    for body in ("one", "two"):
        PublisherCore(broker_uri).publish(body, routing_key=queue.name)
    thread.join(10)
    assert received == ["one", "two"]
