"""``async def`` methods, and clients on an asyncio loop."""

import asyncio
import contextvars
import logging
import queue
import sys
import threading
from types import SimpleNamespace

import kombu
import pytest
from amqp.exceptions import NotFound
from kombu import Exchange, Queue
from kombu.exceptions import EncodeError

from nameko import loop, watchdog
from nameko.amqp import UndeliverableMessage
from nameko.amqp.publish import Publisher as PublisherCore
from nameko.events import EventDispatcher, event_handler
from nameko.exceptions import MethodNotFound, RemoteError, RpcTimeout, UnknownService
from nameko.extensions import DependencyProvider
from nameko.messaging import Publisher, consume
from nameko.rpc import RpcProxy, rpc
from nameko.standalone.events import async_event_dispatcher, event_dispatcher
from nameko.standalone.rpc import (
    AsyncClusterRpcClient,
    AsyncServiceRpcClient,
    ClusterRpcProxy,
    ServiceRpcProxy,
)
from nameko.testing.services import dummy, entrypoint_hook, entrypoint_waiter


class WorkerThread(DependencyProvider):
    def get_dependency(self, worker_ctx):
        return threading.current_thread()


@pytest.fixture
def service(serve, uid):
    class ServiceY:
        name = "service-y-" + uid

        @rpc
        def append_id(self, value):
            return "{}-y".format(value)

    class ServiceX:
        name = "service-x-" + uid
        y = RpcProxy(ServiceY.name)
        unknown = RpcProxy("unknown-" + uid)
        thread = WorkerThread()
        publish = Publisher()

        @rpc
        async def remote_method(self, value):
            return await self.y.append_id("{}-x".format(value))

        @rpc
        async def many(self, count):
            return await asyncio.gather(*[self.y.append_id(i) for i in range(count)])

        @rpc
        async def in_tasks(self):
            tasks = [asyncio.create_task(self.y.append_id(i)) for i in range(2)]
            return [await task for task in tasks]

        @rpc
        async def overlapping(self):
            replies = [self.y.append_id.call_async(i) for i in range(3)]
            return [await reply for reply in replies]

        @rpc
        async def call_unknown(self):
            try:
                await self.unknown.method()
            except UnknownService as exc:
                return str(exc)

        @rpc
        async def fails(self):
            await asyncio.sleep(0)
            raise ValueError("async")

        @rpc
        async def on_one_loop(self):
            return [threading.current_thread().name, self.thread.name]

        @rpc
        async def publishes(self):
            await self.publish("lost", routing_key="nowhere-" + uid)
            return "published"

    serve(ServiceY)
    serve(ServiceX)
    return ServiceX.name


def test_methods_may_be_coroutines(service, cluster, uid):
    x = cluster[service]
    assert x.remote_method("hello") == "hello-x-y"
    assert x.many(30) == ["{}-y".format(i) for i in range(30)]
    assert x.in_tasks() == ["0-y", "1-y"]
    assert x.overlapping() == ["0-y", "1-y", "2-y"]
    assert x.call_unknown() == "Unknown service `unknown-{}`".format(uid)
    assert x.publishes() == "published"
    with pytest.raises(RemoteError, match="ValueError async"):
        x.fails()


def test_coroutines_share_a_loop_and_hooks_run_in_the_worker_thread(service, cluster):
    first, second = cluster[service].on_one_loop(), cluster[service].on_one_loop()
    assert first[0] == second[0] == "nameko-loop"
    assert first[1].startswith(service + "-worker-")


def test_handlers_of_messages_and_events_run_concurrently(serve, config, uid):
    class Service:
        name = "service-" + uid
        publish = Publisher()
        dispatch = EventDispatcher()
        arrived = set()
        all_here = None

        async def meet(self, who):
            """Returns when three workers run it concurrently."""
            cls = type(self)
            if cls.all_here is None:
                cls.all_here = asyncio.Event()
            cls.arrived.add(who)
            if len(cls.arrived) == 3:
                cls.all_here.set()
            await asyncio.wait_for(cls.all_here.wait(), 10)
            return len(cls.arrived)

        @dummy
        async def send(self):
            await self.dispatch("changed", "event")
            await asyncio.gather(
                *[self.publish(n, routing_key="queue-" + uid) for n in ("one", "two")]
            )

        @consume(Queue("queue-" + uid, auto_delete=True))
        async def receive(self, body):
            return await self.meet(body)

        @event_handler(name, "changed")
        async def on_event(self, data):
            return await self.meet(data)

    container = serve(Service, max_workers=4)
    with (
        entrypoint_waiter(container, "receive") as received,
        entrypoint_waiter(container, "on_event") as handled,
        entrypoint_hook(container, "send") as send,
    ):
        send()
    assert (received.get(), handled.get()) == (3, 3)


class TestPublishingOnALoop:
    @pytest.fixture
    def publish(self, serve, uid):
        """``publish(*calls)`` publishes each ``(payload, options)`` in one worker, concurrently if
        there are several."""
        exchange = Exchange("exchange-" + uid, auto_delete=True, durable=False)

        class Service:
            name = "service-" + uid
            publish = Publisher(exchange=exchange, retry=False)

            @dummy
            async def send(self, calls):
                await asyncio.gather(*[self.publish(body, **kwargs) for body, kwargs in calls])

        with entrypoint_hook(serve(Service), "send") as send:
            yield lambda *calls: send(calls)

    @pytest.fixture
    def bodies(self, broker_uri, uid):
        """The bodies of the received messages."""
        with kombu.Connection(broker_uri) as connection, connection.channel() as channel:
            queue = channel.queue_declare(exclusive=True).queue

            def read(bind=False):
                if bind:
                    channel.exchange_declare("exchange-" + uid, "direct", auto_delete=True)
                    channel.queue_bind(queue, "exchange-" + uid, "key")
                got = iter(lambda: channel.basic_get(queue, no_ack=True), None)
                return [message.body for message in got]

            read.delete_exchange = lambda: channel.exchange_delete("exchange-" + uid)
            yield read

    def test_messages_are_published_concurrently(self, publish, bodies):
        bodies(bind=True)
        publish(*[(n, {"routing_key": "key"}) for n in range(50)])
        assert sorted(map(int, bodies())) == list(range(50))

    def test_errors_are_those_of_publishing_in_a_thread(self, publish):
        with pytest.raises(UndeliverableMessage):
            publish(("x", {"mandatory": True, "routing_key": "nowhere"}))
        with pytest.raises(NotFound):
            publish(("x", {"exchange": "no-such-exchange"}))
        with pytest.raises(EncodeError):
            publish((object(), {}))
        with pytest.warns(UserWarning, match="Mandatory delivery was requested"):
            publish(("x", {"mandatory": True, "use_confirms": False}))

    def test_deleted_queues_are_declared_again(self, publish, bodies):
        bodies(bind=True)
        publish(("one", {"routing_key": "key"}))
        bodies.delete_exchange()
        publish(("lost", {"routing_key": "key"}))
        bodies(bind=True)
        publish(("two", {"routing_key": "key"}))
        assert bodies() == ['"two"']

    def test_a_patched_publisher_is_used(self, publish, monkeypatch):
        published = []
        monkeypatch.setattr(
            PublisherCore, "publish", lambda self, payload, **kwargs: published.append(payload)
        )
        publish(("x", {}))
        assert published == ["x"]


def test_a_message_of_a_failed_coroutine_can_be_requeued(serve, config, uid, caplog):
    queue = Queue("queue-" + uid, auto_delete=True)
    attempts = []

    class Expected(Exception):
        pass

    class Service:
        name = "service-" + uid

        @consume(queue, requeue_on_error=True, expected_exceptions=Expected)
        async def receive(self, body):
            attempts.append(body)
            await asyncio.sleep(0)
            if len(attempts) < 3:
                raise Expected("again")

    container = serve(Service)
    with entrypoint_waiter(container, "receive", callback=lambda ctx, res, exc: exc is None):
        PublisherCore(config["AMQP_URI"]).publish("body", routing_key=queue.name)
    assert attempts == ["body"] * 3
    logged = [record for record in caplog.records if record.name == "nameko.containers"]
    assert [record.levelname for record in logged] == ["WARNING", "WARNING"]


def test_killing_a_container_cancels_its_coroutines(serve, config, uid):
    began, cancelled = threading.Event(), threading.Event()

    class Service:
        name = "service-" + uid

        @event_handler(name, "changed")
        async def on_event(self, data):
            began.set()
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                cancelled.set()
                raise

    container = serve(Service)
    event_dispatcher(config)(Service.name, "changed", 1)
    assert began.wait(10)
    container.kill()
    assert cancelled.wait(10)


class TestBlockingCodeOnALoop:
    """Code written for Nameko 2, called on an asyncio loop that is not ours."""

    @pytest.fixture
    def events(self, serve, uid):
        """The events that a service has received."""
        received = queue.Queue()

        class Listener:
            name = "listener-" + uid

            @event_handler("caller-" + uid, "called")
            def on_call(self, data):
                received.put(data)

            @consume(Queue("queue-" + uid, auto_delete=True))
            def on_message(self, body):
                received.put(body)

        serve(Listener)
        return received

    def test_clients_block_and_return_the_result(self, service, config, uid, events):
        async def route():
            with ClusterRpcProxy(config, timeout=10) as cluster:
                assert cluster[service].remote_method("a") == "a-x-y"
                assert cluster[service].remote_method.call_async("b").result() == "b-x-y"
                with pytest.raises(RemoteError):
                    cluster[service].fails()
            with ServiceRpcProxy(service, config, timeout=10) as x:
                assert x.remote_method("c") == "c-x-y"
            event_dispatcher(config)("caller-" + uid, "called", "by a client")

        asyncio.run(route())
        assert events.get(timeout=10) == "by a client"

    def test_dependencies_of_a_plain_method_block(self, serve, service, uid, events):
        class Caller:
            name = "caller-" + uid
            x = RpcProxy(service)
            dispatch = EventDispatcher()
            publish = Publisher()

            @dummy
            def method(self):
                async def main():
                    self.dispatch("called", "an event")
                    self.publish("a message", routing_key="queue-" + uid)
                    return self.x.remote_method("a")

                return asyncio.run(main())

        with entrypoint_hook(serve(Caller), "method") as method:
            assert method() == "a-x-y"
        assert {events.get(timeout=10) for _ in range(2)} == {"an event", "a message"}

    def test_a_client_may_be_used_in_both_ways(self, service, config):
        client = ClusterRpcProxy(config, timeout=10)

        async def main():
            async with client as cluster:
                assert await cluster[service].remote_method("a") == "a-x-y"
            with client as cluster:
                assert cluster[service].remote_method("b") == "b-x-y"

        asyncio.run(main())


def test_a_call_that_is_not_awaited_is_reported(serve, service, uid):
    class Caller:
        name = "caller-" + uid
        x = RpcProxy(service)

        @dummy
        async def method(self):
            self.x.remote_method("a")

    with (
        entrypoint_hook(serve(Caller), "method") as method,
        pytest.warns(RuntimeWarning, match="'{}.remote_method' was never awaited".format(service)),
    ):
        method()


def test_a_client_can_be_awaited(service, config):
    async def main():
        async with ClusterRpcProxy(config, timeout=10) as cluster:
            x = cluster[service]
            calls = [x.remote_method(i) for i in range(20)]
            assert await asyncio.gather(*calls) == ["{}-x-y".format(i) for i in range(20)]
            with pytest.raises(MethodNotFound):
                await x.nothing()
            with pytest.raises(RemoteError):
                await x.fails()

    asyncio.run(main())
    asyncio.run(main())


def test_an_awaited_call_times_out_and_can_be_cancelled(serve, config, uid):
    go = threading.Event()

    class Service:
        name = "service-" + uid

        @rpc
        def slow(self):
            go.wait(20)

        @rpc
        def quick(self):
            return "quick"

    serve(Service)

    async def main():
        async with ServiceRpcProxy(Service.name, config, timeout=0.05) as service:
            with pytest.raises(RpcTimeout):
                await service.slow()
            task = asyncio.create_task(service.slow())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        async with ServiceRpcProxy(Service.name, config, timeout=10) as service:
            assert await service.quick() == "quick"

    asyncio.run(main())
    go.set()


class TestAsyncClients:
    @pytest.fixture
    def echo(self, serve, uid):
        class Echo:
            name = "echo-" + uid

            @rpc
            def echo(self, value):
                return value

            @rpc
            async def never(self):
                await asyncio.Event().wait()

        serve(Echo, max_workers=50)
        return Echo.name

    def test_calls_are_concurrent(self, echo, config):
        async def main():
            async with AsyncServiceRpcClient(echo, config=config, timeout=20) as service:
                return await asyncio.gather(*[service.echo(n) for n in range(200)])

        assert asyncio.run(main()) == list(range(200))

    def test_cancelled_calls_leave_nothing_behind(self, echo, config):
        async def main():
            client = AsyncClusterRpcClient(config=config, timeout=0.05)
            async with client as cluster:
                cancelled = asyncio.ensure_future(cluster[echo].never())
                await cluster[echo].echo(1)
                cancelled.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await cancelled
                with pytest.raises(RpcTimeout):
                    await cluster[echo].never()
                return client._reply_listener._native.pending

        assert asyncio.run(main()) == 0

    def test_a_plain_with_block_is_an_error_that_names_async_with(self, config):
        with pytest.raises(TypeError, match="async with"), AsyncClusterRpcClient(config=config):
            pass

    def test_events_can_be_awaited(self, serve, config, uid):
        class Listener:
            name = "listener-" + uid

            @event_handler("source-" + uid, "changed")
            def on_event(self, data):
                return data

        container = serve(Listener)
        dispatch = async_event_dispatcher(config)
        with entrypoint_waiter(container, "on_event") as handled:
            asyncio.run(dispatch("source-" + uid, "changed", "data"))
        assert handled.get() == "data"


def test_one_client_serves_many_threads_even_if_calls_time_out(serve, config, uid):
    class Echo:
        name = "echo-" + uid

        @rpc
        def echo(self, value):
            return value

        @rpc
        async def never(self):
            await asyncio.Event().wait()

    container = serve(Echo, max_workers=50)
    failures = []
    client = ClusterRpcProxy(config, timeout=20)
    with client as cluster:

        def calls(number):
            try:
                for n in range(20):
                    assert cluster[Echo.name].echo([number, n]) == [number, n]
                given_up = cluster[Echo.name].never.call_async()
                given_up.reply_event.timeout = 0.01
                with pytest.raises(RpcTimeout):
                    given_up.result()
            except BaseException as exc:
                failures.append(exc)

        threads = [threading.Thread(target=calls, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert failures == []
        assert client._reply_listener._native.pending == 0
    container.kill()


def test_a_method_that_stops_the_loop_does_not_affect_others(serve, cluster, uid, caplog):
    """`sys.exit()` in a task or a callback ends asyncio's loop."""

    class Service:
        name = "service-" + uid

        @rpc
        async def exits_in_a_callback(self):
            asyncio.get_running_loop().call_soon(sys.exit)
            await asyncio.sleep(0.01)
            return "continued"

        @rpc
        async def exits_in_a_task(self):
            async def exits():
                sys.exit(2)

            task = asyncio.create_task(exits())
            await asyncio.wait([task])
            return type(task.exception()).__name__

        @rpc
        async def stops_the_loop(self):
            asyncio.get_running_loop().stop()
            await asyncio.sleep(0.01)
            return "continued"

    serve(Service)
    service = cluster[Service.name]
    assert service.exits_in_a_callback() == "continued"
    assert service.exits_in_a_task() == "SystemExit"
    assert service.stops_the_loop() == "continued"
    assert caplog.text.count("stopped by an exception") == 2
    assert "must not stop the loop" in caplog.text


def test_a_coroutine_cancelled_before_its_start_ends():
    async def never():
        raise AssertionError("it ran")

    go, ended = threading.Event(), queue.SimpleQueue()
    loop.process_loop().call_soon_threadsafe(go.wait, 10)
    running = loop.CoroutineRun(never(), contextvars.Context(), lambda *end: ended.put(end))
    running.start()
    running.cancel()
    go.set()
    result, exc = ended.get(timeout=10)
    assert result is None
    assert isinstance(exc, asyncio.CancelledError)


class TestBlocking:
    """The watchdog for coroutines that block the loop."""

    @pytest.fixture(autouse=True)
    def soon(self, monkeypatch):
        monkeypatch.setattr(watchdog, "THRESHOLD", 0.2)

    @pytest.fixture
    def logged(self):
        """The log records of the watchdog."""
        records, handler = queue.SimpleQueue(), logging.Handler()
        handler.emit = records.put
        logger = logging.getLogger("nameko.watchdog")
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        yield records
        logger.setLevel(logging.NOTSET)
        logger.removeHandler(handler)

    @pytest.fixture
    def blocking(self, serve, uid):
        go = threading.Event()

        class Service:
            name = "service-" + uid

            @rpc
            async def block(self):
                self.wait()

            @rpc
            async def block_in_a_task(self):
                await asyncio.create_task(self.wait_in_a_task())

            @rpc
            async def block_in_a_callback(self):
                asyncio.get_running_loop().call_soon(self.wait)
                await asyncio.sleep(0)

            def wait(self):
                assert go.wait(10)

            async def wait_in_a_task(self):
                self.wait()

        serve(Service)
        Service.go = go
        yield Service
        go.set()

    @pytest.mark.parametrize(
        ("method", "says"),
        [
            ("block", "`{0}.block` has blocked the asyncio loop"),
            ("block_in_a_task", "wait_in_a_task`{1} has blocked the asyncio loop"),
            ("block_in_a_callback", "A callback has blocked the asyncio loop"),
        ],
    )
    def test_a_blocking_task_is_logged_once_with_its_stack(
        self, blocking, cluster, logged, method, says
    ):
        of = " of `{}.{}`".format(blocking.name, method) if sys.version_info >= (3, 12) else ""
        reply = getattr(cluster[blocking.name], method).call_async()
        warning = logged.get(timeout=10)
        blocking.go.set()
        end = logged.get(timeout=10)
        reply.result()
        assert logged.empty()
        assert warning.levelno == logging.WARNING
        assert says.format(blocking.name, of) in warning.getMessage()
        assert "blocked the asyncio loop for more than " in end.getMessage()
        # The stack begins at the method, without asyncio's frames.
        message = warning.getMessage()
        assert "assert go.wait(10)" in message
        assert "run_forever" not in message
        assert "nameko-loop" not in message
        assert end.levelno == logging.INFO

    @pytest.fixture
    def watch(self):
        """``watch(has_work)`` returns a watchdog of a fake loop and the probes of that loop."""
        asked, closed, dogs = queue.SimpleQueue(), threading.Event(), []
        loop = SimpleNamespace(is_closed=closed.is_set, call_soon_threadsafe=asked.put)

        def watch(has_work):
            dogs.append(watchdog.Watchdog(loop, 0, has_work, str))
            return dogs[0], asked

        yield watch
        closed.set()
        while dogs[0]._thread.is_alive():
            dogs[0].wake()
            try:
                asked.get(timeout=0.05)()
            except queue.Empty:
                pass

    def test_many_short_steps_are_not_logged(self, watch, monkeypatch, logged):
        looked = queue.SimpleQueue()

        def current_task(_loop):
            task = object()
            looked.put(task)
            return task

        monkeypatch.setattr(watchdog.asyncio, "current_task", current_task)
        _, asked = watch(lambda: True)
        for _ in range(2):
            alive = asked.get(timeout=10)
            # Waits in between.
            looked.get(timeout=10)
            looked.get(timeout=10)
            alive()
        assert logged.empty()

    def test_an_idle_loop_is_not_probed(self, watch):
        looks = threading.Semaphore(0)

        def has_work():
            looks.release()
            return False

        dog, asked = watch(has_work)
        assert looks.acquire(timeout=10)
        dog.wake()
        # Checked again after the wake-up, and before the next sleep.
        for _ in range(2):
            assert looks.acquire(timeout=10)
        assert not looks.acquire(timeout=0.4)
        assert asked.empty()
