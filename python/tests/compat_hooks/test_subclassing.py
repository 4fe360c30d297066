"""Overridden methods of Nameko 2's classes take effect."""

import sys
import threading
import types
from unittest.mock import patch

import pytest
from kombu import Queue

from nameko.amqp.publish import Publisher as PublisherCore
from nameko.amqp.publish import get_connection
from nameko.containers import ServiceContainer
from nameko.events import EventHandler
from nameko.exceptions import RpcTimeout
from nameko.extensions import DependencyProvider, Entrypoint, SharedExtension
from nameko.messaging import Consumer, Publisher, QueueConsumer, consume
from nameko.rpc import ReplyListener, Rpc, RpcConsumer, RpcProxy, rpc
from nameko.runners import ServiceRunner
from nameko.standalone.events import event_dispatcher
from nameko.standalone.rpc import (
    ClusterRpcProxy,
    ServiceRpcProxy,
    SingleThreadedReplyListener,
)
from nameko.testing.services import dummy, entrypoint_hook, entrypoint_waiter
from nameko.testing.utils import get_extension


class TestSubclassing:
    def test_rpc_with_overridden_handlers(self, serve, cluster, uid):
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

    def test_rpc_consumer_that_selects_the_method_by_a_header(self, serve, cluster, uid):
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

    def test_consumer_that_requeues_failed_messages_once(self, serve, queue, send, uid):
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

    def test_event_handler_with_its_own_queue(self, serve, config, uid):
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
        """nameko-amqp-retry shares one handle_result that way."""

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

    def test_reply_listener_with_an_overridden_handler(self, serve, uid):
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
            # The caller gets the error, and nothing is left behind.
            with pytest.raises(KeyError, match="as asked"):
                service.echo("fail")
            with pytest.raises(RpcTimeout):
                service.echo("keep")
            assert not service.reply_listener._reply_events

    def test_publisher_with_an_overridden_core(self, serve, queue, uid):
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
