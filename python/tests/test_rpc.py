"""RPC: results and errors, the wire format, hooks, and robustness against any message."""

import asyncio
import datetime
import json
import logging
import sys
import threading
import time
import uuid
import zlib
from unittest.mock import patch

import pytest
from kombu.exceptions import DecodeError, SerializerNotInstalled
from kombu.serialization import registry

from nameko.amqp.publish import Publisher
from nameko.constants import MAX_WORKERS_CONFIG_KEY
from nameko.containers import ServiceContainer
from nameko.exceptions import (
    IncorrectSignature,
    MalformedRequest,
    MethodNotFound,
    RemoteError,
    RpcTimeout,
    UnknownService,
    deserialize_to_instance,
)
from nameko.extensions import DependencyProvider
from nameko.messaging import QueueConsumer
from nameko.rpc import (
    ClusterRpc,
    ReplyListener,
    Responder,
    Rpc,
    RpcConsumer,
    RpcProxy,
    ServiceRpc,
    get_rpc_exchange,
    rpc,
)
from nameko.standalone.rpc import ClusterRpcProxy, ServiceRpcProxy
from nameko.testing.services import entrypoint_hook, replace_dependencies
from nameko.testing.utils import get_extension


class Context(DependencyProvider):
    def get_dependency(self, worker_ctx):
        return worker_ctx


@pytest.fixture
def service_cls(uid):
    class Service:
        name = "service-" + uid
        context = Context()
        itself = RpcProxy("service-" + uid)
        unknown = ServiceRpc("unknown-" + uid)
        everyone = ClusterRpc()

        @rpc
        def echo(self, *args, **kwargs):
            return args, kwargs

        @rpc
        def two(self, a, b=None):
            return [a, b]

        @rpc
        def fails(self):
            raise ValueError("bad", 1, {"k": object})

        @rpc(expected_exceptions=KeyError)
        def fails_as_expected(self):
            raise KeyError("expected")

        @rpc
        def unserializable(self):
            return object()

        @rpc
        def call_unknown(self):
            return self.unknown.method()

        @rpc
        def call_async(self):
            replies = [self.itself.echo.call_async(i) for i in range(3)]
            return [reply.result()[0][0] for reply in replies]

        @rpc
        def call_by_name(self):
            return self.everyone[self.name].two("x")

        @rpc
        def stack(self):
            return self.context.call_id_stack

        @rpc
        def deeper(self):
            self.context.data["added"] = "by the method"
            return [self.stack(), self.itself.stack(), self.itself.data()]

        @rpc
        def data(self):
            return self.context.data

    return Service


@pytest.fixture
def service(serve, service_cls, cluster):
    serve(service_cls)
    return cluster[service_cls.name]


def test_arguments_and_results_arrive_unchanged(service):
    assert service.echo() == [[], {}]
    assert service.echo("a", 1, key=[None, {"x": 1.5}]) == [["a", 1], {"key": [None, {"x": 1.5}]}]
    assert service.two("a", b="é") == ["a", "é"]


def test_large_messages_arrive_whole(service):
    big = "x" * 5_000_000
    assert service.echo(big) == [[big], {}]


def test_an_exception_is_raised_as_a_remote_error(service):
    with pytest.raises(RemoteError) as raised:
        service.fails()
    assert raised.value.exc_type == "ValueError"
    assert raised.value.value == "('bad', 1, {'k': <class 'object'>})"
    assert str(raised.value) == "ValueError ('bad', 1, {'k': <class 'object'>})"
    assert raised.value.exc_path == "builtins.ValueError"
    assert raised.value.exc_args == ["bad", "1", {"k": "<class 'object'>"}]


def test_sys_exit_and_cancellation_end_the_call_not_the_service(serve, cluster, uid):
    class Service:
        name = "exits_" + uid

        @rpc
        def leave(self):
            sys.exit(3)

        @rpc
        async def cancelled(self):
            raise asyncio.CancelledError()

        @rpc
        def still_here(self):
            return True

    serve(Service)
    service = cluster[Service.name]
    with pytest.raises(RemoteError, match="SystemExit 3"):
        service.leave()
    with pytest.raises(RemoteError, match="CancelledError"):
        service.cancelled()
    assert service.still_here()


def test_an_exception_that_cannot_be_serialized_ends_the_call_not_the_service(serve, cluster, uid):
    class Closed:
        def __iter__(self):
            raise RuntimeError("the cursor is closed")

        def __str__(self):
            return "a cursor"

    class Service:
        name = "service-" + uid

        @rpc
        def raises_a_loop(self):
            loop = ["a"]
            loop.append(loop)
            raise ValueError(loop)

        @rpc
        def raises_a_closed_cursor(self):
            raise ValueError("bad", Closed())

    container = serve(Service)
    with pytest.raises(RemoteError) as caught:
        cluster[Service.name].raises_a_loop()
    assert (caught.value.exc_type, caught.value.value) == ("ValueError", "['a', [...]]")
    with pytest.raises(RemoteError) as caught:
        cluster[Service.name].raises_a_closed_cursor()
    assert caught.value.exc_args == ["bad", "a cursor"]
    assert not container._died.ready()


def test_registered_exceptions_are_raised_as_their_own_class(serve, cluster, uid):
    @deserialize_to_instance
    class NotEnough(Exception):
        pass

    class Service:
        name = "service-" + uid

        @rpc
        def method(self):
            raise NotEnough("money")

    serve(Service)
    with pytest.raises(NotEnough, match="money"):
        cluster[Service.name].method()


def test_wrong_arguments_and_unknown_methods_are_reported(service, uid):
    with pytest.raises(MethodNotFound) as raised:
        service.nothing()
    assert str(raised.value) == "nothing"
    with pytest.raises(IncorrectSignature, match="missing 1 required positional argument: 'a'"):
        service.two()
    with pytest.raises(IncorrectSignature, match="unexpected keyword argument 'c'"):
        service.two(1, c=2)


def test_a_call_to_an_unknown_service_is_reported(cluster, service, uid):
    with pytest.raises(UnknownService) as raised:
        cluster["unknown-" + uid].method()
    assert str(raised.value) == "Unknown service `unknown-{}`".format(uid)
    with pytest.raises(UnknownService):
        cluster["unknown-" + uid].method.call_async()
    with pytest.raises(RemoteError, match="UnknownService Unknown service"):
        service.call_unknown()


def test_a_result_that_cannot_be_serialized_is_reported(service):
    with pytest.raises(RemoteError) as raised:
        service.unserializable()
    assert raised.value.exc_type == "UnserializableValueError"
    assert raised.value.value.startswith("Unserializable value: `<object object at")


def test_an_argument_that_cannot_be_serialized_is_reported(service):
    from kombu.exceptions import EncodeError

    with pytest.raises(EncodeError):
        service.echo(object())


def test_a_service_calls_another_service(service):
    assert service.call_async() == [0, 1, 2]
    assert service.call_by_name() == ["x", None]


def test_call_id_stack_and_context_data_travel(service, uid):
    own, nested, data = service.deeper()
    assert [call_id.rsplit(".", 1)[0] for call_id in nested] == [
        "standalone_rpc_proxy.call",
        "service-{}.deeper".format(uid),
        "service-{}.stack".format(uid),
    ]
    assert own == nested[:2]
    assert data == {"added": "by the method"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800"], ids=ascii)
def test_context_data_that_cannot_be_sent_is_an_error_of_the_call(service, config, value):
    name = service.service_name
    with ServiceRpcProxy(name, config, context_data={"rate": value}, timeout=10) as client:
        for call in (client.two, client.two.call_async):
            with pytest.raises(ValueError, match=r"`nameko\.rate`"):
                call(1)
    assert service.two(1) == [1, None]


def test_expected_exceptions_are_logged_as_warnings(service, caplog):
    with pytest.raises(RemoteError):
        service.fails_as_expected()
    (record,) = [r for r in caplog.records if r.name == "nameko.containers"]
    assert record.levelno == logging.WARNING
    assert record.message.startswith("(expected) error handling worker <WorkerContext [service-")


@pytest.fixture
def no_msgpack():
    """Registers msgpack as kombu does if the package is not installed."""

    def not_installed(value):
        raise SerializerNotInstalled("No decoder installed for msgpack.")

    name, content_type = "msgpack", "application/x-msgpack"
    codec, decoder = registry._encoders[name], registry._decoders[content_type]
    registry.register(name, not_installed, not_installed, content_type, "binary")
    yield
    registry._encoders[name], registry._decoders[content_type] = codec, decoder


class TestWire:
    """Requests and replies on the wire."""

    def test_a_reply_has_nameko_2s_format(self, serve, service_cls, caller, uid):
        serve(service_cls)
        body = '{"args": ["é"], "kwargs": {}}'
        key = "service-{}.two".format(uid)
        reply = caller.call(key, body, correlation_id="abc")
        assert reply == {"result": ["é", None], "error": None}
        assert caller.reply.body == '{"result": ["\\u00e9", null], "error": null}'
        properties = caller.reply.properties
        assert properties["correlation_id"] == "abc"
        assert properties["delivery_mode"] == 2
        assert caller.reply.content_type == "application/json"
        assert caller.reply.content_encoding == "utf-8"
        assert caller.reply.headers == {}

    def test_an_error_reply_has_nameko_2s_format(self, serve, service_cls, caller, uid):
        serve(service_cls)
        reply = caller.call("service-{}.fails".format(uid), '{"args": [], "kwargs": {}}')
        assert reply == {
            "result": None,
            "error": {
                "exc_type": "ValueError",
                "exc_path": "builtins.ValueError",
                "exc_args": ["bad", "1", {"k": "<class 'object'>"}],
                "value": "('bad', 1, {'k': <class 'object'>})",
            },
        }

    @pytest.mark.parametrize(
        ("body", "exc_type"),
        [
            ('{"args": []}', "MalformedRequest"),
            ('{"kwargs": {}}', "MalformedRequest"),
            ("[]", "MalformedRequest"),
            ("[1, 2]", "MalformedRequest"),
            ('"text"', "MalformedRequest"),
            ("null", "MalformedRequest"),
            ("", "MalformedRequest"),
            ("[" * 10_000 + "]" * 10_000, "MalformedRequest"),
            ('{"args": null, "kwargs": {}}', "IncorrectSignature"),
            ('{"args": [], "kwargs": []}', "IncorrectSignature"),
            ('{"args": [', "MalformedRequest"),
            (b"\xff\xfe", "MalformedRequest"),
        ],
    )
    def test_malformed_requests_are_answered(self, serve, service_cls, caller, uid, body, exc_type):
        container = serve(service_cls)
        reply = caller.call("service-{}.two".format(uid), body)
        assert reply["result"] is None
        assert reply["error"]["exc_type"] == exc_type
        self.assert_still_serving(container, caller, uid)

    def test_a_request_without_a_content_type_is_malformed(self, serve, service_cls, caller, uid):
        container = serve(service_cls)
        body = '{"args": [1], "kwargs": {}}'
        reply = caller.call("service-{}.two".format(uid), body, content_type=None)
        assert reply["error"]["exc_type"] == "MalformedRequest"
        assert "not an object with `args` and `kwargs`" in reply["error"]["value"]
        self.assert_still_serving(container, caller, uid)

    @pytest.mark.parametrize("accept", [["json"], ["json", "msgpack"]], ids=str)
    def test_a_request_whose_serializer_is_not_installed_is_answered_in_json(
        self, serve, service_cls, caller, uid, accept, no_msgpack
    ):
        container = serve(service_cls, ACCEPT=accept)
        reply = caller.call(
            "service-{}.two".format(uid),
            b"\x82\xa4args\x90\xa6kwargs\x80",
            content_type="application/x-msgpack",
            content_encoding="binary",
        )
        assert caller.reply.content_type == "application/json"
        assert reply["error"]["exc_type"] == "MalformedRequest"
        self.assert_still_serving(container, caller, uid)

    @pytest.mark.parametrize("body", ["{", "[]"], ids=["unreadable", "malformed"])
    @pytest.mark.parametrize("hook", ["send_response", "publisher_cls"])
    def test_a_request_whose_error_cannot_be_sent_is_dropped(
        self, serve, service_cls, caller, uid, expect_log, hook, body
    ):
        container = serve(service_cls)
        failing = patch.object(Responder, hook, side_effect=RuntimeError("no reply"))
        with failing, expect_log("nameko.rpc", "could not be sent", logging.ERROR):
            caller.send("service-{}.two".format(uid), body, reply_to=caller.reply_to)
        self.assert_still_serving(container, caller, uid)
        container.stop()
        queue = caller.channel.queue_declare("rpc-service-" + uid, passive=True)
        assert queue.message_count == 0

    @pytest.mark.parametrize(
        "properties",
        [
            {"content_type": "application/x-python-serialize", "content_encoding": "binary"},
            {"content_type": "application/data"},
            {"content_type": "no/such-type"},
            {"content_type": ""},
            {"content_encoding": "no-such-encoding", "content_type": "text/x"},
            {"headers": {"compression": "no-such-compression"}},
            {"headers": {"nameko.call_id_stack": "not a list"}},
            {"headers": {"nameko.call_id_stack": [1, None]}},
        ],
        ids=str,
    )
    def test_no_properties_kill_a_service(self, serve, service_cls, caller, uid, properties):
        container = serve(service_cls)
        properties = {"reply_to": caller.reply_to, **properties}
        caller.send("service-{}.two".format(uid), '{"args": [1], "kwargs": {}}', **properties)
        assert caller.next_reply()
        self.assert_still_serving(container, caller, uid)

    def test_a_request_without_reply_to_is_logged(
        self, serve, service_cls, caller, uid, expect_log
    ):
        container = serve(service_cls)
        with expect_log("nameko.rpc", "has no reply_to", logging.WARNING):
            caller.send("service-{}.two".format(uid), '{"args": [1], "kwargs": {}}')
        self.assert_still_serving(container, caller, uid)

    def test_a_deleted_reply_queue_is_ignored(self, serve, service_cls, caller, uid):
        container = serve(service_cls)
        caller.send("service-{}.two".format(uid), '{"args": [1], "kwargs": {}}', reply_to="gone")
        self.assert_still_serving(container, caller, uid)

    def test_every_request_is_acknowledged(self, serve, service_cls, caller, uid):
        container = serve(service_cls)
        for body in ("", "[]", "{", '{"args": [1], "kwargs": {}}'):
            caller.call("service-{}.two".format(uid), body)
        container.stop()
        queue = caller.channel.queue_declare("rpc-service-" + uid, passive=True)
        assert queue.message_count == 0

    def assert_still_serving(self, container, caller, uid):
        reply = caller.call("service-{}.two".format(uid), '{"args": [7], "kwargs": {}}')
        assert reply == {"result": [7, None], "error": None}
        assert not container._died.ready()

    def test_a_reply_is_serialized_like_its_request(self, serve, service_cls, caller, uid):
        serve(service_cls, ACCEPT=["json", "yaml"])
        key = "service-{}.two".format(uid)
        caller.send(
            key,
            "args: [1]\nkwargs: {}\n",
            content_type="application/x-yaml",
            reply_to=caller.reply_to,
        )
        reply = caller.next_reply()
        assert reply.content_type == "application/x-yaml"
        assert "result:" in reply.body


class TestReplies:
    """Replies of another program, read by a client."""

    @pytest.fixture
    def answer(self, config, caller, uid):
        """``answer(body)`` calls a program that replies with this body."""
        name = "program-" + uid
        caller.exchange(caller.channel).declare()
        requests = []
        channel = caller.channel
        channel.queue_declare(name, auto_delete=True)
        channel.queue_bind(name, "nameko-rpc", name + ".*")
        channel.basic_consume(name, callback=requests.append, no_ack=True)

        def answer(body):
            with ClusterRpcProxy(config, timeout=10) as cluster:
                reply = cluster[name].method.call_async()
                while not requests:
                    caller.connection.drain_events(timeout=10)
                properties = requests.pop().properties
                caller.send(
                    properties["reply_to"], body, correlation_id=properties["correlation_id"]
                )
                return reply.result()

        return answer

    @pytest.mark.parametrize("error", ['"oops"', "[1]", "17"])
    def test_an_error_of_another_form_is_a_remote_error(self, answer, error):
        with pytest.raises(RemoteError) as raised:
            answer('{"result": null, "error": ' + error + "}")
        assert repr(json.loads(error)) in str(raised.value)

    def test_a_registered_error_with_other_arguments_is_a_remote_error(self, answer):
        error = {
            "exc_type": "MethodNotFound",
            "exc_path": "nameko.exceptions.UnknownService",
            "exc_args": ["too", "many"],
            "value": "what the program says",
        }
        registered = patch.dict("nameko.exceptions.registry", {error["exc_path"]: UnknownService})
        with registered, pytest.raises(RemoteError, match="what the program says") as raised:
            answer(json.dumps({"result": None, "error": error}))
        assert raised.value.exc_args == ["too", "many"]

    def test_a_reply_that_is_nested_too_deeply_is_a_decode_error(self, answer):
        with pytest.raises(DecodeError, match="nested too deeply"):
            answer('{"result": ' + "[" * 100_000 + "]" * 100_000 + ', "error": null}')


def test_a_result_that_is_nested_too_deeply_is_reported(serve, cluster, uid):
    class Service:
        name = "service-" + uid

        @rpc
        def deep(self):
            value = []
            for _ in range(10_000):
                value = [value]
            return value

    serve(Service)
    with pytest.raises(RemoteError) as raised:
        cluster[Service.name].deep()
    assert raised.value.exc_type == "UnserializableValueError"


@pytest.mark.parametrize("args", [property(lambda self: 1 / 0), 5], ids=["raises", "a number"])
def test_an_exception_with_arguments_of_its_own_is_reported(serve, cluster, uid, args):
    class Odd(Exception):
        pass

    Odd.args = args

    class Service:
        name = "service-" + uid

        @rpc
        def method(self):
            raise Odd("text")

    serve(Service)
    with pytest.raises(RemoteError) as raised:
        cluster[Service.name].method()
    assert raised.value.exc_type == "Odd"


def test_dependencies_see_the_result_after_the_request_is_acknowledged(serve, cluster, uid):
    states = []

    class Watcher(DependencyProvider):
        def worker_result(self, worker_ctx, result=None, exc_info=None):
            states.append((messages[0].acknowledged, result))

    messages = []

    class WatchedRpc(Rpc):
        def handle_message(self, body, message):
            messages.append(message)
            super().handle_message(body, message)

    class Service:
        name = "service-" + uid
        watcher = Watcher()

        @WatchedRpc.decorator
        def method(self):
            states.append((messages[0].acknowledged, "running"))
            return "done"

    container = serve(Service)
    assert cluster[Service.name].method() == "done"
    container.stop()
    assert states == [(False, "running"), (True, "done")]


def test_handle_message_may_be_patched_on_the_class(service):
    with patch("nameko.rpc.Rpc.handle_message") as handle_message:
        handle_message.side_effect = MalformedRequest("patched")
        with pytest.raises(MalformedRequest, match="patched"):
            service.echo()
    assert service.echo() == [[], {}]


def test_handle_result_may_be_overridden(serve, cluster, uid):
    class LoudConsumer(RpcConsumer):
        def handle_result(self, message, result, exc_info):
            return super().handle_result(message, result.upper(), exc_info)

    class LoudRpc(Rpc):
        rpc_consumer = LoudConsumer()

    class Service:
        name = "service-" + uid

        @LoudRpc.decorator
        def method(self):
            return "quiet"

    serve(Service)
    assert cluster[Service.name].method() == "QUIET"


def test_a_message_has_kombus_interface(serve, cluster, uid):
    seen = {}

    class Looking(Rpc):
        def handle_message(self, body, message):
            seen.update(
                body=message.body,
                payload=message.payload,
                headers_are_properties=message.headers is message.properties["application_headers"],
                routing_key=message.delivery_info["routing_key"],
                exchange=message.delivery_info["exchange"],
                connected=bool(message.channel.connection),
            )
            super().handle_message(body, message)

    class Service:
        name = "service-" + uid

        @Looking.decorator
        def method(self):
            pass

    serve(Service)
    cluster[Service.name].method()
    assert seen == {
        "body": '{"args": [], "kwargs": {}}',
        "payload": {"args": [], "kwargs": {}},
        "headers_are_properties": True,
        "routing_key": Service.name + ".method",
        "exchange": "nameko-rpc",
        "connected": True,
    }


def test_a_stop_waits_for_running_calls(serve, cluster, uid):
    began, go = threading.Event(), threading.Event()

    class Service:
        name = "service-" + uid

        @rpc
        def method(self):
            began.set()
            go.wait(10)
            return "finished"

    container = serve(Service)
    reply = cluster[Service.name].method.call_async()
    assert began.wait(10)
    stopper = threading.Thread(target=container.stop)
    stopper.start()
    go.set()
    assert reply.result() == "finished"
    stopper.join(10)


def test_a_stop_serves_the_requests_received_before_it(serve, cluster, uid):
    go, begun = threading.Event(), threading.Semaphore(0)

    class SlowRpc(Rpc):
        def handle_message(self, body, message):
            begun.release()
            assert go.wait(10)
            super().handle_message(body, message)

    class Service:
        name = "service-" + uid

        @SlowRpc.decorator
        def method(self):
            return "served"

    container = serve(Service, max_workers=1, prefetch_count=100)
    # One per thread, and three that are queued in the process.
    threads = container._worker_pool._max_threads
    replies = [cluster[Service.name].method.call_async() for _ in range(threads + 3)]
    for _ in range(threads):
        assert begun.acquire(timeout=10)
    jobs = container._worker_pool.jobs
    deadline = time.monotonic() + 10
    while jobs.pending() < 3:
        assert time.monotonic() < deadline, "the requests have not come"
    consumer = get_extension(container, RpcConsumer)
    stopper = threading.Thread(target=container.stop)
    stopper.start()
    # No further request can arrive, and the entrypoint has left.
    consumer._last_provider_unregistered.wait(10)
    go.set()
    assert [reply.result() for reply in replies] == ["served"] * len(replies)
    stopper.join(10)


def test_calls_of_a_killed_service_are_redelivered(serve, cluster, uid):
    began, runs = threading.Event(), []

    class Service:
        name = "service-" + uid

        @rpc
        def method(self):
            runs.append(1)
            if len(runs) == 1:
                began.set()
                threading.Event().wait(20)
            return "second run"

    first = serve(Service)
    reply = cluster[Service.name].method.call_async()
    assert began.wait(10)
    first.kill()
    serve(Service)
    assert reply.result() == "second run"


def test_a_container_being_killed_requeues_requests(serve, cluster, service_cls):
    dying = serve(service_cls)
    dying._being_killed = True
    reply = cluster[service_cls.name].two.call_async(1)
    serve(service_cls)
    assert reply.result() == [1, None]
    dying._being_killed = False


def test_a_proxy_may_have_a_timeout(serve, uid):
    go = threading.Event()

    class Slow:
        name = "slow-" + uid

        @rpc
        def method(self):
            go.wait(20)

    class Service:
        name = "service-" + uid
        slow = RpcProxy("slow-" + uid, timeout=0.05)

        @rpc
        def method(self):
            return self.slow.method()

    serve(Slow)
    container = serve(Service)
    with entrypoint_hook(container, "method") as method, pytest.raises(RpcTimeout):
        method()
    go.set()


def test_issue_428_replies_never_wait_for_a_worker(serve, uid, cluster):
    class Upstream:
        name = "upstream-" + uid

        @rpc
        def method(self, value):
            return value

    class Service:
        name = "service-" + uid
        upstream = RpcProxy("upstream-" + uid)

        @rpc
        def one(self, value):
            return self.upstream.method(value)

        @rpc
        def two(self, value):
            return self.upstream.method(value)

    serve(Upstream)
    serve(Service, **{MAX_WORKERS_CONFIG_KEY: 1, "prefetch_count": 10})
    service = cluster[Service.name]
    replies = [getattr(service, name).call_async(i) for i in range(5) for name in ("one", "two")]
    assert [reply.result() for reply in replies] == [i for i in range(5) for _ in range(2)]


def test_a_service_that_calls_itself_with_one_worker_times_out(serve, uid):
    class Service:
        name = "service-" + uid
        itself = RpcProxy("service-" + uid, timeout=0.1)

        @rpc
        def method(self):
            return self.itself.method()

    container = serve(Service, **{MAX_WORKERS_CONFIG_KEY: 1})
    with entrypoint_hook(container, "method") as method, pytest.raises(RpcTimeout):
        method()


def test_max_workers_limits_concurrent_calls(serve, cluster, uid):
    lock, running, most = threading.Lock(), [], []
    go, busy = threading.Event(), threading.Semaphore(0)

    class Service:
        name = "service-" + uid

        @rpc
        def method(self):
            with lock:
                running.append(1)
                most.append(len(running))
            busy.release()
            go.wait(10)
            with lock:
                running.pop()

    serve(Service, **{MAX_WORKERS_CONFIG_KEY: 2, "prefetch_count": 6})
    replies = [cluster[Service.name].method.call_async() for _ in range(6)]
    assert busy.acquire(timeout=10)
    assert busy.acquire(timeout=10)
    go.set()
    for reply in replies:
        reply.result()
    assert max(most) == 2


def test_a_dependency_can_be_mocked_beside_another_service(config, uid, cluster):
    class Service:
        name = "service-" + uid
        maths = RpcProxy("maths")

        @rpc
        def double(self, value):
            return self.maths.multiply(value, 2)

    container = ServiceContainer(Service, config)
    maths = replace_dependencies(container, "maths")
    maths.multiply.return_value = 42
    container.start()
    assert cluster[Service.name].double(21) == 42
    maths.multiply.assert_called_once_with(21, 2)
    container.stop()


def test_a_reply_without_a_pending_call_is_ignored(serve, service_cls, expect_log):
    container = serve(service_cls)
    listener = get_extension(container, ReplyListener)
    with expect_log("nameko.rpc", "Unknown correlation id: nobody"):
        Publisher(container.config["AMQP_URI"]).publish(
            {"result": 1, "error": None},
            exchange=get_rpc_exchange(container.config),
            routing_key=listener.routing_key,
            correlation_id="nobody",
        )


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        (QueueConsumer, "handle_message"),
        (RpcConsumer, "handle_message"),
        (RpcConsumer, "get_provider_for_method"),
        (RpcConsumer, "handle_result"),
        (Rpc, "handle_message"),
        (Rpc, "check_signature"),
        (Rpc, "unpack_message_headers"),
        (Rpc, "handle_result"),
        (ServiceContainer, "spawn_worker"),
        (ServiceContainer, "_run_worker"),
        (ServiceContainer, "_worker_setup"),
        (ServiceContainer, "_worker_result"),
        (ServiceContainer, "_worker_teardown"),
        (Responder, "send_response"),
    ],
)
def test_every_hook_of_a_call_may_be_replaced_at_any_time(serve, service_cls, cluster, cls, name):
    """On the class and on the instance, also after earlier calls."""
    container = serve(service_cls)
    service = cluster[service_cls.name]
    objects = {
        QueueConsumer: get_extension(container, QueueConsumer),
        RpcConsumer: get_extension(container, RpcConsumer),
        Rpc: get_extension(container, Rpc, method_name="two"),
        ServiceContainer: container,
    }
    passed = threading.Event()

    def spy(original):
        def method(*args, **kwargs):
            passed.set()
            return original(*args, **kwargs)

        return method

    assert service.two(1) == [1, None]
    for obj in filter(None, (cls, objects.get(cls))):
        passed.clear()
        with patch.object(obj, name, spy(getattr(obj, name))):
            assert service.two(2) == [2, None]
            assert passed.wait(10)
    assert service.two(4) == [4, None]


def test_a_method_of_the_service_class_may_be_replaced(service, service_cls):
    assert service.two(1) == [1, None]
    with patch.object(service_cls, "two", lambda self, a, b, c: [a, b, c]):
        assert service.two(1, 2, 3) == [1, 2, 3]
    with pytest.raises(IncorrectSignature):
        service.two(1, 2, 3)


def test_an_error_in_the_constructor_of_the_service_is_reported(serve, cluster, uid):
    class Service:
        name = "service-" + uid

        def __init__(self):
            raise RuntimeError("no service today")

        @rpc
        def method(self):
            """Not called."""

    serve(Service)
    for _ in range(2):
        with pytest.raises(RemoteError, match="no service today"):
            cluster[Service.name].method()


GOOD = '{"args": [1], "kwargs": {"b": "é"}}'


@pytest.mark.parametrize(
    ("body", "properties"),
    [
        (GOOD, {}),
        (" " + GOOD + "\n", {}),
        (GOOD + "x", {}),
        (GOOD[:-1], {}),
        ("", {}),
        ("[]", {}),
        ('"args"', {}),
        ("7", {}),
        ("{}", {}),
        ('{"args": [1]}', {}),
        ('{"args": [1], "kwargs": {"b": 2}, "more": 3}', {}),
        ('{"args": [0], "args": [1], "kwargs": {}}', {}),
        ('{"args": 1, "kwargs": {}}', {}),
        ('{"args": "x", "kwargs": {}}', {}),
        ('{"args": null, "kwargs": null}', {}),
        ('{"args": [1], "kwargs": []}', {}),
        ('{"args": {"a": 1}, "kwargs": {}}', {}),
        ('{"args": [], "kwargs": {}}', {}),
        ('{"args": [1, 2, 3], "kwargs": {}}', {}),
        ('{"args": [1], "kwargs": {"a": 2}}', {}),
        ('{"args": [1], "kwargs": {"c": 2}}', {}),
        ('{"args": [NaN, Infinity], "kwargs": {}}', {}),
        ('{"args": ["\\ud800"], "kwargs": {}}', {}),
        ('{"args": [12345678901234567890123456789], "kwargs": {}}', {}),
        ('{"args": [' + "[" * 5000 + "]" * 5000 + '], "kwargs": {}}', {}),
        ('{"args": [{"__type__": "uuid", "__value__": 7}], "kwargs": {}}', {}),
        (GOOD.encode("latin-1"), {}),
        (GOOD.encode("latin-1"), {"content_encoding": "latin-1"}),
        (GOOD, {"content_encoding": "UTF-8"}),
        (GOOD, {"content_encoding": "no-such"}),
        (GOOD, {"content_type": "text/plain"}),
        (GOOD, {"content_type": "application/x-unknown"}),
        (zlib.compress(GOOD.encode()), {"headers": {"compression": "application/x-gzip"}}),
        (GOOD, {"headers": {"compression": "no-such"}}),
        (GOOD, {"headers": {"nameko.call_id_stack": ["a", "b"], "nameko.x": 1, "own": None}}),
        (GOOD, {"headers": {"nameko.call_id_stack": 7}}),
    ],
    ids=lambda value: str(value)[:50] if isinstance(value, (str, bytes)) else None,
)
def test_fast_and_slow_path_send_the_same_replies(serve, caller, uid, body, properties):
    """Methods with an overridden hook, on the slow path, reply like the others."""

    class OwnRpc(Rpc):
        def handle_message(self, body, message):
            super().handle_message(body, message)

    def service_with(entrypoint, name):
        class Service:
            context = Context()

            @entrypoint
            def method(self, a, b=None):
                stack = self.context.call_id_stack[:-1]
                return [repr(a), b, stack, sorted(self.context.data)]

        Service.name = name + uid
        return Service

    replies = []
    for entrypoint, name in ((rpc, "short-"), (OwnRpc.decorator, "long-")):
        serve(service_with(entrypoint, name))
        reply = caller.call(name + uid + ".method", body, **properties)
        raw = caller.reply
        replies.append((reply, raw.properties["content_type"], raw.properties["content_encoding"]))
    assert replies[0] == replies[1]


def test_fast_and_slow_path_serialize_results_alike(serve, caller, uid):
    loop = []
    loop.append(loop)
    results = {
        "none": None,
        "truth": True,
        "number": -0.5,
        "not a number": float("nan"),
        "large": 10**30,
        "text": 'é "\u2028\ud800',
        "list": [1, [2, {"3": None}]],
        "keys": {1: "a", None: "b", "c": ()},
        "time": datetime.datetime(2020, 1, 2, 3, 4, 5),
        "uuid": uuid.UUID(int=7),
        "bytes": b"\xff",
        "set": {1},
        "object": object,
        "loop": loop,
    }

    class OwnRpc(Rpc):
        def handle_result(self, *args):
            return super().handle_result(*args)

    def service_with(entrypoint, name):
        class Service:
            @entrypoint
            def method(self, key):
                return results[key]

        Service.name = name + uid
        return Service

    serve(service_with(rpc, "short-"))
    serve(service_with(OwnRpc.decorator, "long-"))
    for key in results:
        bodies = []
        for name in ("short-", "long-"):
            caller.call(name + uid + ".method", json.dumps({"args": [key], "kwargs": {}}))
            bodies.append(caller.reply.body)
        assert bodies[0] == bodies[1], key
