"""Event dispatchers and event handlers."""

import socket
import threading
from unittest.mock import Mock

import pytest
from amqp.exceptions import NotFound, PreconditionFailed

from nameko import config as global_config
from nameko.amqp import get_connection
from nameko.containers import ServiceContainer
from nameko.events import (
    BROADCAST,
    SERVICE_POOL,
    SINGLETON,
    EventDispatcher,
    EventHandler,
    EventHandlerConfigurationError,
    event_handler,
)
from nameko.exceptions import ConfigurationError
from nameko.extensions import DependencyProvider
from nameko.messaging import QueueConsumer
from nameko.standalone.events import event_dispatcher, get_event_exchange
from nameko.testing.services import dummy, entrypoint_hook, entrypoint_waiter


class Context(DependencyProvider):
    def get_dependency(self, worker_ctx):
        return worker_ctx


class ReceivedEvents:
    """The received events, as pairs of handler and payload."""

    def __init__(self):
        self._changed = threading.Condition()
        self._events = []

    def add(self, who, event):
        with self._changed:
            self._events.append((who, event))
            self._changed.notify_all()

    def first(self, count):
        """Waits for ``count`` events and returns them sorted."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._events) >= count, 10), self._events
            return sorted(self._events)


@pytest.fixture
def received():
    return ReceivedEvents()


@pytest.fixture
def source(uid):
    """The name of the dispatching service."""
    return "source-" + uid


@pytest.fixture
def dispatch(config, source):
    """``dispatch(event_type, data)`` dispatches an event of ``source``."""
    dispatcher = event_dispatcher(config)
    return lambda event_type, data: dispatcher(source, event_type, data)


@pytest.fixture
def handle(serve, source, uid, received):
    """``handle(service, **options)`` starts a service with a handler of ``source``'s events."""
    numbers = iter(range(100))

    def start(service, event_type="changed", **options):
        number = next(numbers)

        class Service:
            name = "{}-{}".format(service, uid)

            @event_handler(source, event_type, **options)
            def on_event(self, data):
                received.add("{} {}".format(service, number), data)

        return serve(Service)

    return start


def queue_of(container):
    (handler,) = container.entrypoints
    return handler.queue


def test_a_service_receives_the_events_of_another_service(serve, uid):
    class Shop:
        name = "shop-" + uid
        dispatch = EventDispatcher()

        @dummy
        def pay(self, order):
            self.dispatch("order_paid", {"order": order})
            return "paid"

    class Warehouse:
        name = "warehouse-" + uid

        @event_handler(Shop.name, "order_paid")
        def pack(self, event):
            return event["order"]

    warehouse, shop = serve(Warehouse), serve(Shop)
    with entrypoint_waiter(warehouse, "pack") as packed, entrypoint_hook(shop, "pay") as pay:
        assert pay(17) == "paid"
    assert packed.get() == 17


def test_an_event_without_handlers_is_dispatched(serve, uid):
    class Shop:
        name = "shop-" + uid
        dispatch = EventDispatcher()

        @dummy
        def pay(self):
            return self.dispatch("nobody_cares", None)

    with entrypoint_hook(serve(Shop), "pay") as pay:
        assert pay() is None


def test_service_pool_delivers_to_one_instance_of_each_service(handle, dispatch, received, uid):
    containers = [handle("foo"), handle("foo"), handle("bar")]
    for number in range(6):
        dispatch("changed", number)
    received.first(12)
    for container in containers:
        container.stop()
    events = received.first(12)
    for service in ("foo", "bar"):
        assert sorted(n for who, n in events if who.startswith(service)) == list(range(6))
    assert queue_of(containers[0]).name == "evt-source-{0}-changed--foo-{0}.on_event".format(uid)


def test_singleton_delivers_to_one_handler_of_all_services(handle, dispatch, received, uid):
    containers = [handle("foo", handler_type=SINGLETON), handle("bar", handler_type=SINGLETON)]
    for number in range(6):
        dispatch("changed", number)
    received.first(6)
    for container in containers:
        container.stop()
    assert sorted(number for _, number in received.first(6)) == list(range(6))
    assert queue_of(containers[0]).name == "evt-source-{}-changed".format(uid)


def test_broadcast_delivers_to_every_instance(handle, dispatch, received, uid):
    options = {"handler_type": BROADCAST, "reliable_delivery": False}
    containers = [handle("foo", **options), handle("foo", **options), handle("bar", **options)]
    dispatch("changed", 1)
    assert received.first(3) == [("bar 2", 1), ("foo 0", 1), ("foo 1", 1)]
    names = {queue_of(container).name for container in containers}
    assert len(names) == 3
    prefix = "evt-source-{0}-changed--foo-{0}.on_event-".format(uid)
    assert sum(name.startswith(prefix) for name in names) == 2


def test_reliable_handlers_receive_events_dispatched_while_stopped(handle, dispatch, received):
    handle("foo").stop()
    dispatch("changed", "meanwhile")
    handle("foo")
    assert received.first(1) == [("foo 1", "meanwhile")]


def test_unreliable_handlers_miss_events_dispatched_while_stopped(handle, dispatch, received):
    handle("other", event_type="else")  # declares the exchange
    handle("foo", reliable_delivery=False).stop()
    dispatch("changed", "lost")
    handle("foo", reliable_delivery=False)
    dispatch("changed", "received")
    assert received.first(1) == [("foo 2", "received")]


def test_an_event_type_may_be_a_pattern(handle, dispatch, received):
    handle("foo", event_type="price.*")
    for event_type in ("price", "price.up", "price.up.much", "price.down"):
        dispatch(event_type, event_type)
    assert [event for _, event in received.first(2)] == ["price.down", "price.up"]


def test_requeue_on_error_redelivers_an_event(serve, source, dispatch, uid):
    seen = []

    class Service:
        name = "service-" + uid

        @event_handler(source, "changed", requeue_on_error=True)
        def on_event(self, data):
            seen.append(data)
            if len(seen) < 3:
                raise ValueError("again")

    container = serve(Service)
    with entrypoint_waiter(container, "on_event", callback=lambda ctx, res, exc: exc is None):
        dispatch("changed", 1)
    assert seen == [1, 1, 1]


def test_one_method_may_handle_several_event_types(serve, source, dispatch, received, uid):
    class Service:
        name = "service-" + uid

        @event_handler(source, "opened")
        @event_handler(source, "closed")
        def on_event(self, data):
            received.add(self.name, data)

    serve(Service)
    dispatch("opened", 1)
    dispatch("closed", 2)
    assert [data for _, data in received.first(2)] == [1, 2]


def test_context_data_travels_with_an_event(serve, uid):
    class Shop:
        name = "shop-" + uid
        dispatch = EventDispatcher(headers={"nameko.tenant": 7, "other": "o"})
        context = Context()

        @dummy
        def pay(self):
            # Added by the worker.
            self.context.data["added"] = True
            self.dispatch("order_paid", None)
            return self.context.call_id

    class Warehouse:
        name = "warehouse-" + uid
        context = Context()

        @event_handler(Shop.name, "order_paid")
        def pack(self, event):
            return self.context.data, self.context.call_id_stack

    warehouse, shop = serve(Warehouse), serve(Shop)
    with (
        entrypoint_waiter(warehouse, "pack") as packed,
        entrypoint_hook(shop, "pay", context_data={"language": "en"}) as pay,
    ):
        parent = pay()
    data, stack = packed.get()
    assert data == {"language": "en", "added": True, "tenant": 7, "other": "o"}
    assert stack[0] == parent
    assert stack[1].startswith("warehouse-{}.pack.".format(uid))


def test_async_methods_dispatch_and_handle(serve, uid):
    class Shop:
        name = "shop-" + uid
        dispatch = EventDispatcher()

        @dummy
        async def pay(self, order):
            await self.dispatch("order_paid", order)
            return "paid"

    class Warehouse:
        name = "warehouse-" + uid
        dispatch = EventDispatcher()

        @event_handler(Shop.name, "order_paid")
        async def pack(self, order):
            await self.dispatch("packed", order)
            return threading.current_thread().name

        @event_handler(name, "packed", requeue_on_error=True)
        async def send(self, order):
            return order

    warehouse, shop = serve(Warehouse), serve(Shop)
    with (
        entrypoint_waiter(warehouse, "send") as sent,
        entrypoint_waiter(warehouse, "pack") as packed,
        entrypoint_hook(shop, "pay") as pay,
    ):
        assert pay(17) == "paid"
    assert packed.get() == "nameko-loop"
    assert sent.get() == 17


class TestBroadcastIdentifier:
    def test_the_default_with_reliable_delivery_is_an_error(self, config):
        class Service:
            name = "service"

            @event_handler("source", "changed", handler_type=BROADCAST)
            def on_event(self, data):
                pass

        with pytest.raises(EventHandlerConfigurationError, match="reliable_delivery=False"):
            ServiceContainer(Service, config)

    def test_a_stable_identifier_allows_reliable_delivery(
        self, serve, source, dispatch, received, uid
    ):
        class HostHandler(EventHandler):
            @property
            def broadcast_identifier(self):
                return socket.gethostname()

        class Service:
            name = "service-" + uid

            @HostHandler.decorator(source, "changed", handler_type=BROADCAST)
            def on_event(self, data):
                received.add("service", data)

        container = serve(Service)
        queue = queue_of(container)
        assert queue.name.endswith(".on_event-" + socket.gethostname())
        assert (queue.exclusive, queue.auto_delete) == (False, False)
        container.stop()
        dispatch("changed", "meanwhile")
        serve(Service)
        assert received.first(1) == [("service", "meanwhile")]

    def test_an_identifier_may_be_a_class_attribute(self, handle):
        class FixedHandler(EventHandler):
            broadcast_identifier = "fixed"

        container = Mock(service_name="service", config={}, shared_extensions={})
        handler = FixedHandler("source", "changed", BROADCAST).bind(container, "method")
        handler.setup()
        assert handler.queue.name == "evt-source-changed--service.method-fixed"


@pytest.mark.parametrize(
    ("handler_type", "reliable", "exclusive", "auto_delete"),
    [
        (SERVICE_POOL, True, False, False),
        (SERVICE_POOL, False, False, True),
        (SINGLETON, True, False, False),
        (SINGLETON, False, False, True),
        (BROADCAST, False, True, True),
    ],
)
def test_a_handler_type_determines_the_queue(handler_type, reliable, exclusive, auto_delete):
    container = Mock(service_name="service", config={}, shared_extensions={})
    # A type from a configuration is equal, but not the same object.
    handler = EventHandler("source", "changed", "".join(list(handler_type)), reliable)
    handler = handler.bind(container, "method")
    handler.setup()
    queue = handler.queue
    assert (queue.durable, queue.exclusive, queue.auto_delete) == (True, exclusive, auto_delete)
    assert (queue.exchange.name, queue.exchange.type) == ("source.events", "topic")
    assert (queue.exchange.durable, queue.exchange.delivery_mode) == (True, 2)
    assert queue.routing_key == "changed"


class TestQueueArguments:
    @staticmethod
    def declared(config, **options):
        container = Mock(service_name="service", config=config, shared_extensions={})
        handler = EventHandler("source", "changed", **options).bind(container, "method")
        handler.setup()
        return handler.queue.queue_arguments

    def test_arguments_of_a_handler_override_configured_ones(self):
        config = {"queue_arguments": {"events": {"x-max-length": 10, "x-queue-type": "quorum"}}}
        own = {"x-max-length": 5}
        assert self.declared(config, queue_arguments=own) == {
            "x-max-length": 5,
            "x-queue-type": "quorum",
        }
        # A quorum queue cannot be deleted with its consumer.
        assert self.declared(config, queue_arguments=own, reliable_delivery=False) == own
        assert not self.declared({})

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ([1], "must be a mapping of `rpc` and `events`"),
            ({"event": {}}, "has arguments for `event`"),
            ({"events": 1}, "must hold a mapping under `events`"),
        ],
    )
    def test_invalid_settings_are_reported(self, value, text):
        with pytest.raises(ConfigurationError, match=text):
            self.declared({"queue_arguments": value})

    def test_queues_are_declared_with_them(self, handle, dispatch, received, broker_uri):
        container = handle(
            "foo",
            requeue_on_error=True,
            queue_arguments={"x-queue-type": "quorum", "x-delivery-limit": 5},
        )
        dispatch("changed", 1)
        assert received.first(1) == [("foo 0", 1)]
        queue = queue_of(container)
        with (
            get_connection(broker_uri) as connection,
            connection.channel() as channel,
            pytest.raises(PreconditionFailed, match="x-queue-type"),
        ):
            channel.queue_declare(queue.name, durable=True, auto_delete=False)


def test_an_unknown_handler_type_is_an_error_with_the_known_ones(handle):
    expected = "expected 'service_pool', 'singleton' or 'broadcast'"
    with pytest.raises(EventHandlerConfigurationError, match=expected):
        handle("foo", handler_type="pool")


class TestExchanges:
    def test_settings_of_the_exchange_are_used(self):
        exchange = get_event_exchange("source", {})
        assert (exchange.auto_delete, exchange.no_declare) == (False, False)
        assert get_event_exchange("source", {"AUTO_DELETE_EVENT_EXCHANGES": True}).auto_delete
        assert get_event_exchange("source", {"DECLARE_EVENT_EXCHANGES": False}).no_declare
        assert not get_event_exchange("source", {"DECLARE_EVENT_EXCHANGES": None}).no_declare
        with global_config.patch({"AUTO_DELETE_EVENT_EXCHANGES": True}):
            assert get_event_exchange("source").auto_delete

    def test_without_a_declaration_the_exchange_must_exist(self, serve, uid):
        class Shop:
            name = "shop-" + uid
            dispatch = EventDispatcher()

            @dummy
            def pay(self):
                self.dispatch("order_paid", None)

        shop = serve(Shop, DECLARE_EVENT_EXCHANGES=False)
        with entrypoint_hook(shop, "pay") as pay, pytest.raises(NotFound):
            pay()

    def test_an_auto_delete_exchange_is_deleted_with_its_last_queue(
        self, serve, source, dispatch, uid
    ):
        class Service:
            name = "service-" + uid

            @event_handler(source, "changed", reliable_delivery=False)
            def on_event(self, data):
                return data

        container = serve(Service, AUTO_DELETE_EVENT_EXCHANGES=True)
        with entrypoint_waiter(container, "on_event"):
            dispatch("changed", 1)
        container.stop()
        with pytest.raises(NotFound):
            dispatch("changed", 2)


class TestDispatcherOptions:
    def test_options_of_a_dispatcher_are_those_of_a_publisher(self, serve, uid, broker_uri):
        class Shop:
            name = "shop-" + uid
            dispatch = EventDispatcher(
                routing_key="elsewhere", exchange=None, expiration=10, priority=3, delivery_mode=1
            )

            @dummy
            def pay(self):
                self.dispatch("order_paid", {"order": 17})

        shop = serve(Shop)
        with get_connection(broker_uri) as connection, connection.channel() as channel:
            queue = channel.queue_declare(exclusive=True).queue
            channel.queue_bind(queue, Shop.name + ".events", "order_paid")
            with entrypoint_hook(shop, "pay") as pay:
                pay()
            message = channel.basic_get(queue, no_ack=True)
        assert message.body == '{"order": 17}'
        assert message.properties["expiration"] == "10000"
        assert message.properties["priority"] == 3
        assert message.properties["delivery_mode"] == 1


class TestStandaloneDispatcher:
    def test_a_missing_exchange_is_an_error_each_time(self, dispatch):
        for _ in range(2):
            with pytest.raises(NotFound):
                dispatch("changed", 1)

    def test_the_configuration_defaults_to_nameko_config(self, handle, config, source, received):
        handle("foo")
        with global_config.patch(config):
            event_dispatcher()(source, "changed", 1)
        assert received.first(1) == [("foo 0", 1)]


def test_exclusive_queues_are_declared_again_after_a_reconnect(own_broker, monkeypatch, serve, uid):
    connected = threading.Semaphore(0)
    monkeypatch.setattr(QueueConsumer, "on_connected", lambda self: connected.release())

    class Service:
        name = "service-" + uid
        dispatch = EventDispatcher()

        @dummy
        def tell(self, data):
            self.dispatch("changed", data)

        @event_handler(name, "changed", handler_type=BROADCAST, reliable_delivery=False)
        def on_event(self, data):
            return data

    container = serve(Service, AMQP_URI=own_broker.uri)
    for number in range(3):
        assert connected.acquire(timeout=10)
        with (
            entrypoint_waiter(container, "on_event") as result,
            entrypoint_hook(container, "tell") as tell,
        ):
            tell(number)
        assert result.get() == number
        own_broker.close_connections()
