"""What community extensions do with this package beyond the documented: each habit, in short.

The extensions themselves are tried in ``community/``, which needs them installed.
"""

import contextvars
import gc
import sqlite3
import sys
import threading
import time
import types
import weakref
from queue import SimpleQueue
from unittest.mock import patch

import pytest
from amqp.exceptions import AccessRefused
from kombu import Exchange, Queue

from nameko.amqp.publish import Publisher as PublisherCore
from nameko.amqp.publish import get_connection
from nameko.containers import ServiceContainer, WorkerContext
from nameko.events import EventHandler
from nameko.exceptions import RpcTimeout
from nameko.extensions import DependencyProvider, Entrypoint, SharedExtension
from nameko.messaging import Consumer, Publisher, QueueConsumer, consume
from nameko.rpc import MethodProxy, ReplyListener, Rpc, RpcCall, RpcConsumer, RpcProxy, rpc
from nameko.runners import ServiceRunner
from nameko.standalone.events import event_dispatcher
from nameko.standalone.rpc import (
    ClusterRpcProxy,
    ServiceRpcProxy,
    SingleThreadedReplyListener,
)
from nameko.testing.services import dummy, entrypoint_hook, entrypoint_waiter
from nameko.testing.utils import get_extension
from nameko.utils.threads import ThreadKilled


@pytest.fixture
def queue(uid):
    return Queue(
        "habit-" + uid, Exchange("habits-" + uid, auto_delete=True), "key", auto_delete=True
    )


@pytest.fixture
def send(config, queue):
    """``send(payload, **options)`` puts a message into the queue."""
    publisher = PublisherCore(
        config["AMQP_URI"], exchange=queue.exchange, routing_key="key", declare=[queue]
    )
    return publisher.publish


class TestSubclassing:
    def test_rpc(self, serve, cluster, uid):
        class Adding(Rpc):
            def handle_message(self, body, message):
                body["kwargs"]["added"] = message.headers.get("nameko.call_id_stack", [""])[0]
                super().handle_message(body, message)

            def handle_result(self, message, worker_ctx, result, exc_info):
                if exc_info is not None:
                    result, exc_info = "recovered from {!r}".format(exc_info[1]), None
                return super().handle_result(message, worker_ctx, result, exc_info)

        class Service:
            name = "service-" + uid

            @Adding.decorator
            def method(self, fail, added):
                if fail:
                    raise ValueError("that")
                return added

        serve(Service)
        assert cluster[Service.name].method(fail=False).startswith("standalone_rpc_proxy.call")
        assert cluster[Service.name].method(fail=True) == "recovered from ValueError('that')"

    def test_rpc_consumer_that_looks_elsewhere_for_the_method(self, serve, cluster, uid):
        class ByHeader(RpcConsumer):
            def handle_message(self, body, message):
                target = message.headers.get("nameko.target")
                provider = self.get_provider_for_method(
                    target or message.delivery_info["routing_key"]
                )
                provider.handle_message(body, message)

            def handle_result(self, message, result, exc_info):
                return super().handle_result(message, [result], exc_info)

        class HeaderRpc(Rpc):
            rpc_consumer = ByHeader()

        class Service:
            name = "service-" + uid

            @HeaderRpc.decorator
            def one(self):
                return "one"

            @HeaderRpc.decorator
            def two(self):
                return "two"

        serve(Service)
        assert cluster[Service.name].one() == ["one"]
        with ClusterRpcProxy(
            {"AMQP_URI": cluster._worker_ctx.config["AMQP_URI"]},
            context_data={"target": Service.name + ".two"},
            timeout=10,
        ) as proxy:
            assert proxy[Service.name].one() == ["two"]

    def test_consumer_that_gives_failed_messages_back_once(self, serve, queue, send, uid):
        class OnceMore(Consumer):
            def handle_result(self, message, worker_ctx, result=None, exc_info=None):
                if exc_info is not None and not message.delivery_info["redelivered"]:
                    self.queue_consumer.requeue_message(message)
                    return None, None
                return super().handle_result(message, worker_ctx, result, exc_info)

        class Service:
            name = "service-" + uid
            calls = []

            @OnceMore.decorator(queue)
            def receive(self, body):
                self.calls.append(body)
                if len(self.calls) == 1:
                    raise ValueError()

        container = serve(Service)
        with entrypoint_waiter(
            container, "receive", callback=lambda *_: len(Service.calls) == 2
        ) as result:
            send("twice")
        assert (result.get(), Service.calls) == (None, ["twice"] * 2)

    def test_event_handler_with_a_queue_of_its_own(self, serve, config, uid):
        class Named(EventHandler):
            def setup(self):
                super().setup()
                self.queue = Queue(
                    "habit-" + uid, self.queue.exchange, self.queue.routing_key, auto_delete=True
                )

        class Service:
            name = "service-" + uid

            @Named.decorator("source-" + uid, "happened")
            def handle(self, data):
                return data

        container = serve(Service)
        with get_connection(config["AMQP_URI"]) as connection:
            assert Queue("habit-" + uid).bind(connection).queue_declare(passive=True)
        with entrypoint_waiter(container, "handle") as result:
            event_dispatcher(config)("source-" + uid, "happened", 1)
        assert result.get() == 1

    def test_event_handler_mixed_with_a_consumer(self, serve, config, uid):
        """As nameko-amqp-retry does, to have one handle_result for both."""

        class Recording(Consumer):
            results = []

            def __init__(self, *args, **kwargs):
                expected = kwargs.pop("expected_exceptions", ())
                super().__init__(*args, expected_exceptions=(*expected, KeyError), **kwargs)

            def handle_result(self, message, worker_ctx, result=None, exc_info=None):
                self.results.append(result)
                return super().handle_result(message, worker_ctx, result=result, exc_info=exc_info)

        class Mixed(EventHandler, Recording):
            pass

        class Service:
            name = "service-" + uid

            @Mixed.decorator("source-" + uid, "happened", expected_exceptions=(ValueError,))
            def handle(self, data):
                return data

        container = serve(Service)
        with entrypoint_waiter(container, "handle"):
            event_dispatcher(config)("source-" + uid, "happened", 1)
        assert Recording.results == [1]
        assert get_extension(container, Mixed).expected_exceptions == (ValueError, KeyError)

    def test_reply_listener(self, serve, uid):
        bodies = []

        class Tapped(ReplyListener):
            def handle_message(self, body, message):
                bodies.append((body, message.properties["correlation_id"], message.payload))
                super().handle_message(body, message)

        class TappedProxy(RpcProxy):
            rpc_reply_listener = Tapped()

        class Service:
            name = "service-" + uid
            peer = TappedProxy("service-" + uid, timeout=10)

            @rpc
            def echo(self, value):
                return value

            @dummy
            def call(self, value):
                return self.peer.echo(value)

        container = serve(Service)
        with entrypoint_hook(container, "call") as call:
            assert call("hello") == "hello"
        [(body, correlation_id, payload)] = bodies
        assert body == payload == {"result": "hello", "error": None}
        assert correlation_id

    def test_reply_listener_of_a_standalone_client(self, serve, config, uid):
        bodies = []

        class Tapped(SingleThreadedReplyListener):
            def handle_message(self, body, message):
                bodies.append(body)
                super().handle_message(body, message)

        class Service:
            name = "service-" + uid

            @rpc
            def echo(self, value):
                return value

        serve(Service)
        with ServiceRpcProxy(
            Service.name, config, timeout=10, reply_listener_cls=Tapped
        ) as service:
            assert service.echo(1) == 1
        assert bodies == [{"result": 1, "error": None}]

    def test_reply_listener_that_fails_or_keeps_replies(self, serve, config, uid):
        class Keeping(SingleThreadedReplyListener):
            def handle_message(self, body, message):
                if body["result"] == "fail":
                    raise KeyError("as asked")

        class Service:
            name = "service-" + uid

            @rpc
            def echo(self, value):
                return value

        serve(Service)
        with ServiceRpcProxy(
            Service.name, config, timeout=0.2, reply_listener_cls=Keeping
        ) as service:
            # Whoever waits is told, and nothing is left behind.
            with pytest.raises(KeyError, match="as asked"):
                service.echo("fail")
            with pytest.raises(RpcTimeout):
                service.echo("keep")
            assert not service.reply_listener._reply_events

    def test_publisher(self, serve, queue, uid):
        class Stamped(PublisherCore):
            def publish(self, payload, **kwargs):
                super().publish({"stamped": payload}, **kwargs)

        class StampedPublisher(Publisher):
            publisher_cls = Stamped

            def get_dependency(self, worker_ctx):
                publish = super().get_dependency(worker_ctx)
                return lambda payload: publish(payload, routing_key="key")

        class Service:
            name = "service-" + uid
            publish = StampedPublisher(exchange=queue.exchange, declare=[queue])

            @dummy
            def send(self):
                self.publish("letter")

            @consume(queue)
            def receive(self, body):
                return body

        container = serve(Service)
        with (
            entrypoint_hook(container, "send") as send,
            entrypoint_waiter(container, "receive") as result,
        ):
            send()
        assert result.get() == {"stamped": "letter"}

    def test_rpc_proxy_that_wraps_what_it_injects(self, serve, cluster, uid):
        class Adapter(RpcProxy):
            def get_dependency(self, worker_ctx):
                proxy = super().get_dependency(worker_ctx)
                return lambda value: proxy.echo(value) + " through " + self.target_service

        class Service:
            name = "service-" + uid
            peer = Adapter("service-" + uid)

            @rpc
            def echo(self, value):
                return value

            @rpc
            def call(self):
                return self.peer("hello")

        serve(Service)
        assert cluster[Service.name].call() == "hello through " + Service.name

    def test_queue_consumer_with_a_sharing_key_has_its_own_connection(
        self, serve, queue, send, uid
    ):
        class Second(QueueConsumer):
            sharing_key = "second"
            prefetch_count = 1

        class SecondConsumer(Consumer):
            queue_consumer = Second()

        class Service:
            name = "service-" + uid

            @SecondConsumer.decorator(queue)
            def receive(self, body):
                return body

            @rpc
            def method(self):
                pass

        container = serve(Service)
        first, second = (container.shared_extensions[key] for key in (QueueConsumer, "second"))
        assert first is not second
        assert {type(provider) for provider in second._providers} == {SecondConsumer}
        with entrypoint_waiter(container, "receive") as result:
            send(1)
        assert result.get() == 1

    def test_container_class_from_the_configuration(self, config, cluster, uid, monkeypatch):
        steps = []

        class Custom(ServiceContainer):
            def start(self):
                super().start()
                steps.append("started")

            def spawn_worker(self, *args, **kwargs):
                steps.append("spawn")
                return super().spawn_worker(*args, **kwargs)

            def _worker_setup(self, worker_ctx):
                steps.append("setup")
                super()._worker_setup(worker_ctx)

            def _worker_result(self, worker_ctx, result=None, exc_info=None):
                steps.append(result)
                super()._worker_result(worker_ctx, result, exc_info)

            def _worker_teardown(self, worker_ctx):
                super()._worker_teardown(worker_ctx)
                steps.append("teardown")

        module = types.ModuleType("custom_container_" + uid)
        module.Custom = Custom
        monkeypatch.setitem(sys.modules, module.__name__, module)

        class Service:
            name = "service-" + uid

            @rpc
            def method(self):
                return "result"

        runner = ServiceRunner({**config, "SERVICE_CONTAINER_CLS": module.__name__ + ".Custom"})
        runner.add_service(Service)
        runner.start()
        try:
            assert cluster[Service.name].method() == "result"
        finally:
            runner.stop()
        assert steps == ["started", "spawn", "setup", "result", "teardown"]

    def test_extensions_need_not_call_the_init_of_their_base(self, serve, uid):
        class Shared(SharedExtension):
            def __init__(self):
                self.seen = []

        class Provider(DependencyProvider):
            shared = Shared()

            def __init__(self, word):
                self.word = word

            def get_dependency(self, worker_ctx):
                self.shared.seen.append(self.word)
                return self.word

        class Ticker(Entrypoint):
            shared = Shared()

            def __init__(self, word, **kwargs):
                self.word = word

            def start(self):
                self.container.spawn_managed_thread(self.run)

            def run(self):
                self.container.spawn_worker(self, (self.word,), {})

        class Service:
            name = "service-" + uid
            word = Provider("provided")

            @Ticker.decorator("ticked")
            def tick(self, word):
                return word + self.word

        done = threading.Event()
        with patch.object(
            ServiceContainer,
            "_worker_teardown",
            lambda container, ctx: done.set(),
        ):
            container = serve(Service)
            assert done.wait(10)
        assert get_extension(container, Shared).seen == ["provided"]


class TestPatchingOnTheClass:
    """What is patched on a class takes effect in containers that run already."""

    @pytest.fixture
    def service(self, serve, uid):
        class Service:
            name = "service-" + uid
            peer = RpcProxy("service-" + uid, timeout=10)

            @rpc
            def echo(self, value):
                return value

            @rpc
            def call(self, value):
                return self.peer.echo(value)

        return serve(Service)

    @pytest.mark.parametrize(
        ("cls", "method"),
        [
            (Rpc, "handle_message"),
            (Rpc, "handle_result"),
            (RpcConsumer, "handle_message"),
            (RpcConsumer, "handle_result"),
            (QueueConsumer, "handle_message"),
            (QueueConsumer, "ack_message"),
            (ReplyListener, "handle_message"),
            (ReplyListener, "get_reply_event"),
            (RpcProxy, "get_dependency"),
            (MethodProxy, "__call__"),
            (MethodProxy, "_call"),
            (RpcCall, "get_response"),
            (PublisherCore, "publish"),
            (ServiceContainer, "spawn_worker"),
            (ServiceContainer, "_run_worker"),
            (ServiceContainer, "_inject_dependencies"),
            (ServiceContainer, "_worker_setup"),
            (ServiceContainer, "_worker_result"),
            (ServiceContainer, "_worker_teardown"),
        ],
        ids=lambda value: getattr(value, "__name__", value),
    )
    def test_the_patch_is_called(self, service, cluster, cls, method):
        original, calls = getattr(cls, method), []

        def spy(self, *args, **kwargs):
            calls.append(self)
            return original(self, *args, **kwargs)

        proxy = cluster[service.service_name]
        assert proxy.call("before") == "before"
        with patch.object(cls, method, spy):
            assert proxy.call("patched") == "patched"
            # What comes after the reply may be under way still.
            service.stop()
        assert calls

    def test_of_a_consumer(self, serve, queue, send, uid):
        class Service:
            name = "service-" + uid

            @consume(queue)
            def receive(self, body):
                return body

        container = serve(Service)
        with (
            patch.object(
                Consumer, "handle_message", autospec=True, side_effect=Consumer.handle_message
            ) as handle_message,
            patch.object(
                Consumer, "handle_result", autospec=True, side_effect=Consumer.handle_result
            ) as handle_result,
            entrypoint_waiter(container, "receive"),
        ):
            send(1)
        assert handle_message.call_count == handle_result.call_count == 1


class TestMessage:
    @pytest.fixture
    def receive(self, serve, queue, send, uid):
        """``receive(payload, **options)`` sends it, and gives the message that a handler gets.
        The handler leaves it to the test what becomes of it."""
        messages = SimpleQueue()

        class Held(Consumer):
            def handle_message(self, body, message):
                messages.put(message)

        class Service:
            name = "service-" + uid

            @Held.decorator(queue)
            def method(self, body):
                pass

        serve(Service)

        def receive(*args, **options):
            if args:
                send(*args, **options)
            return messages.get(timeout=10)

        yield receive
        assert messages.empty()

    def test_attributes(self, receive, queue):
        message = receive({"é": 1}, headers={"a": [1]}, correlation_id="id", priority=3)
        assert message.body == '{"\\u00e9": 1}'
        assert message.payload == message.decode() == {"é": 1}
        assert message.headers == {"a": [1]}
        assert message.headers is message.properties["application_headers"]
        assert message.properties["correlation_id"] == "id"
        assert message.properties["priority"] == 3
        assert message.properties["content_type"] == message.content_type == "application/json"
        assert message.content_encoding == "utf-8"
        assert set(message.delivery_info) == {
            "consumer_tag",
            "delivery_tag",
            "exchange",
            "redelivered",
            "routing_key",
        }
        assert message.delivery_info["exchange"] == queue.exchange.name
        assert message.delivery_info["routing_key"] == "key"
        assert message.delivery_info["redelivered"] is False
        assert message.delivery_tag == message.delivery_info["delivery_tag"]
        assert message.channel.connection
        assert not message.acknowledged
        message.ack()
        assert message.acknowledged

    def test_without_headers(self, receive):
        message = receive("x")
        assert message.headers == {}
        message.ack()

    def test_headers_may_be_edited(self, receive):
        message = receive("x", headers={"a": 1})
        message.headers["b"] = 2
        assert message.properties["application_headers"] == {"a": 1, "b": 2}
        message.delivery_info["routing_key"] = "another"
        assert message.delivery_info["routing_key"] == "another"
        message.ack()

    def test_requeue_and_reject(self, receive, queue, config):
        message = receive("x")
        message.requeue()
        message = receive()
        assert message.delivery_info["redelivered"] is True
        with pytest.raises(message.MessageStateError):
            message.reject() or message.ack()
        with get_connection(config["AMQP_URI"]) as connection:
            assert queue.bind(connection).queue_declare(passive=True).message_count == 0

    def test_it_may_be_published_again(self, receive, send):
        """With its body as it came, and all its properties: nothing is serialised twice."""
        message = receive({"a": 1}, headers={"h": 1}, correlation_id="id", expiration=10)
        properties = message.properties.copy()
        headers = properties.pop("application_headers", {})
        properties.pop("expiration")
        message.ack()
        again = receive(message.body, headers=headers, **properties)
        assert again.body == message.body
        assert again.payload == {"a": 1}
        assert again.headers == {"h": 1}
        assert again.properties["correlation_id"] == "id"
        again.ack()

    def test_binary_bodies_stay_bytes(self, receive):
        message = receive(b"\xff\x00", content_type="application/data", content_encoding="binary")
        assert message.body == message.payload == b"\xff\x00"
        message.ack()

    def test_x_death_of_a_delayed_message(self, receive, send, queue, config, uid):
        """Delays by dead letters: a message waits in a queue without consumers until it expires."""
        delay = Queue(
            "delay-" + uid,
            Exchange("delay-" + uid, auto_delete=True),
            routing_key=queue.name,
            expires=10,
            queue_arguments={"x-dead-letter-exchange": ""},
        )
        PublisherCore(config["AMQP_URI"]).publish(
            "late",
            exchange=delay.exchange,
            routing_key=queue.name,
            declare=[delay],
            expiration=0.05,
            mandatory=True,
            headers={"kept": 1},
        )
        message = receive()
        assert message.payload == "late"
        assert message.headers["kept"] == 1
        [death] = message.headers["x-death"]
        assert death["exchange"] == delay.exchange.name
        assert (death["queue"], death["reason"], death["count"]) == (delay.name, "expired", 1)
        assert death["routing-keys"] == [queue.name]
        message.ack()


class TestWorkers:
    def test_the_context_is_a_key_and_leaves_weak_dictionaries(self, serve, uid):
        starts = weakref.WeakKeyDictionary()

        class Timing(DependencyProvider):
            def worker_setup(self, worker_ctx):
                starts[worker_ctx] = time.perf_counter()

            def worker_result(self, worker_ctx, result=None, exc_info=None):
                durations.append(time.perf_counter() - starts[worker_ctx])

        durations = []

        class Service:
            name = "service-" + uid
            timing = Timing()

            @dummy
            def method(self):
                pass

        container = serve(Service)
        with entrypoint_hook(container, "method") as method:
            method()
        assert len(durations) == 1
        container.stop()
        gc.collect()
        assert not starts

    def test_data_is_edited_in_place_and_a_call_id_stack_is_a_copy(self, serve, cluster, uid):
        class Editing(DependencyProvider):
            def worker_setup(self, worker_ctx):
                worker_ctx.data["added"] = worker_ctx.entrypoint.method_name
                # As nameko-amqp-retry does, for a header.
                stack = worker_ctx.call_id_stack
                stack[-1] += ".backoff"

        class Data(DependencyProvider):
            def get_dependency(self, worker_ctx):
                return worker_ctx

        class Peer:
            name = "peer-" + uid
            ctx = Data()

            @rpc
            def look(self):
                return [self.ctx.data["added"], self.ctx.call_id_stack[-2]]

        class Service:
            name = "service-" + uid
            editing = Editing()
            peer = RpcProxy("peer-" + uid)

            @rpc
            def call(self):
                return self.peer.look()

        serve(Peer)
        serve(Service)
        added, parent = cluster[Service.name].call()
        assert added == "call"
        assert parent.startswith(Service.name + ".call.")
        assert not parent.endswith(".backoff")

    def test_the_worker_that_runs_is_counted(self, serve, uid):
        class Gauge(DependencyProvider):
            def worker_result(self, worker_ctx, result=None, exc_info=None):
                counts.append(len(self.container._worker_threads))
                assert worker_ctx in self.container._worker_threads

        counts = []

        class Service:
            name = "service-" + uid
            gauge = Gauge()

            @dummy
            def method(self):
                pass

        with entrypoint_hook(serve(Service), "method") as method:
            method()
        assert counts == [1]

    def test_workers_may_come_and_go_while_they_are_looked_at(self, serve, uid):
        go, begun = threading.Event(), threading.Event()

        class Service:
            name = "service-" + uid

            @dummy
            def waits(self):
                begun.set()
                go.wait(10)

        container = serve(Service)
        entrypoint = get_extension(container, Entrypoint, method_name="waits")
        container.spawn_worker(entrypoint, (), {})
        assert begun.wait(10)
        for _, thread in container._worker_threads.items():
            container.spawn_worker(entrypoint, (), {})
            go.set()
            thread.wait()

    def test_where_a_running_worker_is_can_be_looked_up(self, serve, uid):
        """As nameko-chassis does, for a page of what a service is doing."""
        go, begun = threading.Event(), threading.Event()

        class Service:
            name = "service-" + uid

            @dummy
            def waits(self):
                begun.set()
                go.wait(10)

        container = serve(Service)
        entrypoint = get_extension(container, Entrypoint, method_name="waits")
        container.spawn_worker(entrypoint, (), {})
        assert begun.wait(10)
        [(worker_ctx, thread)] = container._worker_threads.items()
        frame, names = thread.gr_frame, []
        while frame is not None:
            names.append(frame.f_code.co_name)
            frame = frame.f_back
        del frame
        go.set()
        assert "waits" in names
        thread.wait()
        assert worker_ctx.entrypoint is entrypoint
        assert thread.gr_frame is None

    def test_one_thread_runs_all_hooks_of_a_worker(self, serve, cluster, uid):
        """SQLite refuses a connection that another thread made, and `:memory:` is empty there."""
        local = threading.local()

        class Database(DependencyProvider):
            def get_dependency(self, worker_ctx):
                local.connection = sqlite3.connect(":memory:")
                return local.connection

            def worker_setup(self, worker_ctx):
                local.connection.execute("create table seen (value)")

            def worker_result(self, worker_ctx, result=None, exc_info=None):
                rows.extend(local.connection.execute("select value from seen"))

            def worker_teardown(self, worker_ctx):
                local.connection.close()
                done.set()

        rows, done = [], threading.Event()

        class Service:
            name = "service-" + uid
            db = Database()

            @rpc
            def remember(self, value):
                self.db.execute("insert into seen values (?)", (value,))

        serve(Service)
        cluster[Service.name].remember("x")
        assert done.wait(10)
        assert rows == [("x",)]

    def test_context_variables_live_as_long_as_a_worker(self, serve, uid):
        request = contextvars.ContextVar("request")

        class Tagging(DependencyProvider):
            def worker_setup(self, worker_ctx):
                before.append(request.get(None))
                request.set(worker_ctx.args[0])

            def worker_result(self, worker_ctx, result=None, exc_info=None):
                results.append((result, request.get()))

        before, results = [], []

        class Service:
            name = "service-" + uid
            tagging = Tagging()

            @dummy
            def method(self, value):
                return request.get()

        with entrypoint_hook(serve(Service, max_workers=1), "method") as method:
            assert [method(1), method(2)] == [1, 2]
        assert (before, results) == ([None, None], [(1, 1), (2, 2)])


class TestManagedThreads:
    def test_an_entrypoint_of_ones_own(self, serve, uid):
        """A poller: a managed thread that spawns a worker for each thing it finds."""

        class Poll(Entrypoint):
            def __init__(self, source, **kwargs):
                self.source = source
                super().__init__(**kwargs)

            def setup(self):
                assert self.container.config["AMQP_URI"]

            def start(self):
                self.thread = self.container.spawn_managed_thread(self.run, identifier="poll")

            def run(self):
                while True:
                    found = self.source.get()
                    self.container.spawn_worker(
                        self, (found,), {}, context_data={"k": "v"}, handle_result=self.handle
                    )

            def handle(self, worker_ctx, result, exc_info):
                outcomes.put((worker_ctx.data, result, exc_info and exc_info[0]))
                return result, exc_info

            def stop(self):
                self.thread.kill()

        source, outcomes = SimpleQueue(), SimpleQueue()
        poll = Poll.decorator

        class Service:
            name = "service-" + uid

            @poll(source, expected_exceptions=ValueError)
            def receive(self, found):
                if found == "bad":
                    raise ValueError()
                return found

        container = serve(Service)
        source.put("good")
        source.put("bad")
        assert {outcomes.get(timeout=10)[1:] for _ in range(2)} == {
            ("good", None),
            (None, ValueError),
        }
        thread = get_extension(container, Poll).thread
        assert not thread.dead
        stopper = threading.Thread(target=container.stop)
        stopper.start()
        # Until something comes, the thread is inside a blocking call; it is dead all the same.
        stopper.join(10)
        assert not stopper.is_alive()
        assert thread.dead

    def test_handles(self, serve, uid):
        class Service:
            name = "service-" + uid

        container, told = serve(Service), SimpleQueue()
        thread = container.spawn_managed_thread(lambda: "result")
        thread.link(lambda handle, word: told.put((handle, word)), "word")
        assert thread.wait() == "result"
        assert told.get(timeout=10) == (thread, "word")
        assert thread.dead

    def test_a_thread_that_works_is_stopped_where_it_is(self, serve, uid):
        begun, ended = threading.Event(), SimpleQueue()

        def busy():
            try:
                begun.set()
                while True:
                    time.sleep(0.001)
            except BaseException as exc:
                ended.put(type(exc))
                raise

        class Service:
            name = "service-" + uid

        container = serve(Service)
        thread = container.spawn_managed_thread(busy)
        assert begun.wait(10)
        thread.kill()
        assert ended.get(timeout=10) is ThreadKilled
        with pytest.raises(ThreadKilled):
            thread.wait()
        # It was told to end: that is no failure.
        assert not container._died.ready()


def test_passive_declaration_over_get_connection(config, queue, send):
    """How extensions look at how long a queue is."""
    send("x")
    with get_connection(config["AMQP_URI"]) as connection:
        declared = queue.bind(connection).queue_declare(passive=True)
    assert declared.message_count == 1


def test_a_dependency_that_adds_rpc_methods(serve, cluster, uid):
    class Crud(DependencyProvider):
        def __init__(self, model):
            self.model = model

        def bind(self, container, attr_name):
            bound = super().bind(container, attr_name)

            def get(self, key):
                return getattr(self, attr_name)[key]

            setattr(container.service_cls, "get_" + self.model, get)
            rpc(get)
            return bound

        def get_dependency(self, worker_ctx):
            return {"1": self.model + " 1"}

    class Service:
        name = "service-" + uid
        crud = Crud("item")

    serve(Service)
    assert cluster[Service.name].get_item("1") == "item 1"


class TestStandaloneClients:
    def test_context_data_may_be_set_for_each_call(self, serve, config, uid):
        class Data(DependencyProvider):
            def get_dependency(self, worker_ctx):
                return worker_ctx.data

        class Service:
            name = "service-" + uid
            data = Data()

            @rpc
            def look(self):
                return self.data.get("user_id")

        serve(Service)
        with ClusterRpcProxy(config, timeout=10) as proxy:
            assert proxy[Service.name].look() is None
            proxy._worker_ctx.data["user_id"] = "anna"
            assert proxy[Service.name].look() == "anna"
            assert isinstance(proxy._worker_ctx, WorkerContext)
            assert proxy._reply_listener.queue_consumer.connection.connected

    def test_a_wrong_password_is_told_as_that(self, own_broker):
        uri = own_broker.uri.replace("guest:guest", "guest:wrong")
        with pytest.raises(AccessRefused), ClusterRpcProxy({"AMQP_URI": uri}):
            pass

    def test_a_client_that_was_stopped_says_so(self, config):
        client = ServiceRpcProxy("nobody", config)
        proxy = client.start()
        client.stop()
        with pytest.raises(RuntimeError, match="This consumer has been stopped"):
            proxy.method()


def test_the_waiters_timeout_is_its_own(serve, uid):
    class Service:
        name = "service-" + uid

        @dummy
        def method(self):
            pass

    container = serve(Service)
    with (
        pytest.raises(entrypoint_waiter.Timeout, match=r"Timeout on .*\.method after 0.01 sec"),
        entrypoint_waiter(container, "method", timeout=0.01),
    ):
        pass
