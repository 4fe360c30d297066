"""Layers around workers."""

import asyncio
import contextvars
import logging
import queue
import sys
import threading
import types

import pytest
from webclient import LOCAL, Client

from nameko.containers import ServiceContainer
from nameko.exceptions import ConfigurationError, RemoteError
from nameko.extensions import DependencyProvider, Entrypoint
from nameko.rpc import RpcProxy, rpc
from nameko.runners import ServiceRunner, run_services
from nameko.standalone.rpc import ClusterRpcProxy
from nameko.testing.services import dummy, entrypoint_hook
from nameko.testing.utils import get_extension
from nameko.utils.threads import ThreadKilled
from nameko.web.handlers import HttpRequestHandler, http


class Denied(Exception):
    pass


class Tag:
    """A layer that notes its name."""

    def __init__(self, name, notes):
        self.name = name
        self.notes = notes

    def __call__(self, call, next):
        self.notes.append(self.name)
        return next()


class AsyncTag(Tag):
    async def __call__(self, call, next):
        self.notes.append(self.name)
        return await next()


@pytest.fixture(params=["sync", "async"])
def kind(request):
    """The kind of the layers."""
    return request.param


@pytest.fixture
def echo(serve, cluster, uid):
    """``echo(*layers)`` starts a service with these layers and returns a client of it."""

    def start(*layers_of_service, **config):
        class Service:
            name = "service-" + uid
            layers = list(layers_of_service)

            @rpc(expected_exceptions=KeyError, sensitive_arguments="secret")
            def echo(self, value=None, secret=None):
                return value

            @rpc
            async def later(self, value=None):
                await asyncio.sleep(0)
                return value

            @rpc
            def fail(self):
                raise ValueError("by the method")

        proxy = cluster[Service.name]
        proxy.__dict__["container"] = serve(Service, **config)
        return proxy

    return start


class TestOneLayer:
    @pytest.mark.parametrize("method", ["echo", "later"])
    def test_it_may_change_the_result(self, echo, kind, method):
        def wrap(call, next):
            return [next()]

        async def async_wrap(call, next):
            return [await next()]

        assert echo(wrap if kind == "sync" else async_wrap)[method](1) == [1]

    @pytest.mark.parametrize("method", ["echo", "later"])
    def test_it_may_answer_itself(self, echo, kind, method):
        def answer(call, next):
            return "cached"

        async def async_answer(call, next):
            return "cached"

        service = echo(answer if kind == "sync" else async_answer)
        assert service[method](1) == "cached"

    def test_it_may_refuse_the_call(self, echo, kind, caplog):
        def refuse(call, next):
            raise Denied(call.method_name)

        async def async_refuse(call, next):
            raise Denied(call.method_name)

        service = echo(refuse if kind == "sync" else async_refuse)
        with pytest.raises(RemoteError, match="Denied echo"):
            service.echo(1)
        assert "error handling worker" in caplog.text
        assert not service.container.death.ready()

    def test_it_may_map_exceptions(self, echo, kind):
        def map_error(call, next):
            try:
                return next()
            except ValueError as exc:
                raise Denied(str(exc)) from exc

        async def async_map_error(call, next):
            try:
                return await next()
            except ValueError as exc:
                raise Denied(str(exc)) from exc

        service = echo(map_error if kind == "sync" else async_map_error)
        with pytest.raises(RemoteError, match="Denied by the method"):
            service.fail()

    def test_it_may_turn_an_exception_into_a_result(self, echo):
        def default(call, next):
            try:
                return next()
            except ValueError:
                return "default"

        assert echo(default).fail() == "default"

    def test_an_exception_of_the_method_is_logged_once(self, echo, caplog):
        service = echo(lambda call, next: next())
        with pytest.raises(RemoteError, match="by the method"):
            service.fail()
        errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert len(errors) == 1

    def test_an_expected_exception_of_a_layer_is_a_warning(self, echo, caplog):
        def refuse(call, next):
            raise KeyError("who")

        with pytest.raises(RemoteError, match="KeyError"):
            echo(refuse).echo(1)
        assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert "(expected) error handling worker" in caplog.text

    def test_the_method_runs_at_most_once(self, echo, kind):
        def twice(call, next):
            return [next(), next()]

        async def async_twice(call, next):
            return [await next(), await next()]

        with pytest.raises(RemoteError, match="RuntimeError a layer called `next` twice"):
            echo(twice if kind == "sync" else async_twice).echo(1)

    def test_it_may_return_next_without_awaiting_it(self, echo):
        async def passing(call, next):
            return next()

        service = echo(passing)
        assert service.echo(1) == 1
        assert service.later(2) == 2

    def test_it_knows_the_call(self, echo):
        calls = queue.Queue()

        def audit(call, next):
            result = next()
            calls.put((call, result, call.duration))
            return result

        service = echo(audit)
        service.echo([1], secret="s3cret")
        call, result, duration = calls.get(timeout=10)
        assert call.service_name == service.service_name
        assert call.method_name == "echo"
        assert call.entrypoint is get_extension(service.container, Entrypoint, method_name="echo")
        assert (list(call.args), call.kwargs) == ([[1]], {"secret": "s3cret"})
        assert call.redacted_args() == {"value": [1], "secret": "********"}
        assert call.call_id.startswith(service.service_name + ".echo.")
        assert result == [1]
        assert 0 <= duration < 10

    def test_it_may_change_the_context(self, serve, cluster, uid, kind):
        class Peer:
            name = "peer-" + uid
            layers = [lambda call, next: call.context_data["user_id"]]

            @rpc
            def who(self): ...

        def identify(call, next):
            call.context_data["user_id"] = 7
            return next()

        async def async_identify(call, next):
            call.context_data["user_id"] = 7
            return await next()

        class Service:
            name = "service-" + uid
            layers = [identify if kind == "sync" else async_identify]
            peer = RpcProxy("peer-" + uid)

            @rpc
            def who(self):
                return self.peer.who()

        serve(Peer)
        serve(Service)
        assert cluster[Service.name].who() == 7

    def test_an_async_layer_may_end_a_slow_coroutine(self, serve, cluster, uid):
        ended = queue.Queue()

        async def limit(call, next):
            return await asyncio.wait_for(next(), 0.01)

        class Provider(DependencyProvider):
            def before_reply(self, worker_ctx, outcome):
                ended.put(type(outcome.exception))

        class Service:
            name = "service-" + uid
            layers = [limit]
            provider = Provider()

            @rpc
            async def hang(self):
                await asyncio.Event().wait()

        serve(Service)
        for _ in range(3):
            with pytest.raises(RemoteError, match="TimeoutError"):
                cluster[Service.name].hang()
            assert ended.get(timeout=10) is asyncio.CancelledError

    def test_a_sync_method_outlives_the_timeout_of_an_async_layer(self, echo, uid):
        """Its thread cannot be interrupted: the caller gets the result, late."""
        began = threading.Event()

        async def limit(call, next):
            return await asyncio.wait_for(next(), 0.01)

        def slow(call, next):
            began.wait(0.1)
            return next()

        assert echo(limit, slow).echo(1) == 1

    def test_it_shares_context_variables_with_the_method(self, serve, uid):
        variable = contextvars.ContextVar("variable", default=None)
        seen = []

        def layer(call, next):
            variable.set("of the layer")
            next()
            seen.append(variable.get())

        class Service:
            name = "service-" + uid
            layers = [layer]

            @dummy
            async def method(self):
                seen.append(variable.get())
                variable.set("of the method")

        with entrypoint_hook(serve(Service), "method") as method:
            method()
        assert seen[0] == "of the layer"
        if sys.version_info >= (3, 11):
            assert seen[1] == "of the method"

    def test_a_layer_that_answers_runs_no_hook(self, serve, uid):
        called = []

        class Provider(DependencyProvider):
            def get_dependency(self, worker_ctx):
                called.append(worker_ctx)

            def before_reply(self, worker_ctx, outcome):
                called.append(worker_ctx)

            def worker_result(self, worker_ctx, result=None, exc_info=None):
                called.append(worker_ctx)

            worker_teardown = get_dependency

        class Service:
            name = "service-" + uid
            layers = [lambda call, next: "answer"]
            provider = Provider()

            @dummy
            def method(self): ...

        with entrypoint_hook(serve(Service), "method") as method:
            assert method() == "answer"
        assert not called

    def test_it_runs_on_the_thread_of_the_worker(self, serve, uid, kind):
        threads = []

        class Provider(DependencyProvider):
            def get_dependency(self, worker_ctx):
                threads.append(threading.current_thread())

            worker_setup = worker_teardown = get_dependency

            def worker_result(self, worker_ctx, result=None, exc_info=None):
                threads.append(threading.current_thread())

        async def async_layer(call, next):
            return await next()

        class Service:
            name = "service-" + uid
            layers = [async_layer if kind == "async" else (lambda call, next: next())]
            provider = Provider()

            @dummy
            def method(self):
                threads.append(threading.current_thread())

        with entrypoint_hook(serve(Service), "method") as method:
            method()
        assert len(threads) == 5
        assert len(set(threads)) == 1

    def test_it_wraps_http(self, serve, uid):
        def authenticate(call, next):
            if not isinstance(call.entrypoint, HttpRequestHandler):
                return next()
            [request] = call.args
            if request.headers.get("Authorization") != "Bearer good":
                return 401, "who are you?"
            return next()

        class Service:
            name = "service-" + uid
            layers = [authenticate]

            @http("GET", "/")
            def get(self, request):
                return "welcome"

        client = Client(serve(Service, **LOCAL))
        assert client.get("/").status == 401
        assert client.get("/", Authorization="Bearer good").text == "welcome"


class TestKill:
    @pytest.mark.parametrize("where", ["layer", "method", "coroutine"])
    def test_it_ends_a_worker_inside_its_layers(self, serve, uid, kind, where):
        began, ended = threading.Event(), queue.Queue()

        def spin():
            began.set()
            while True:
                threading.Event().wait(0.001)

        async def hang():
            began.set()
            await asyncio.Event().wait()

        def layer(call, next):
            return spin() if where == "layer" else next()

        async def async_layer(call, next):
            return await (hang() if where == "layer" else next())

        class Provider(DependencyProvider):
            def worker_teardown(self, worker_ctx):
                ended.put(worker_ctx.end)

        class Service:
            name = "service-" + uid
            layers = [layer if kind == "sync" else async_layer]
            provider = Provider()

            @dummy
            def method(self):
                return hang() if where == "coroutine" else spin()

        container = serve(Service)
        container.spawn_worker(get_extension(container, Entrypoint), (), {})
        assert began.wait(10)
        [thread] = container.worker_threads.values()
        container.kill()
        if where != "layer":
            assert ended.get(timeout=10) == "killed"
        with pytest.raises(ThreadKilled):
            thread.wait()
        assert ended.empty()


class TestSeveralLayers:
    def test_they_are_nested_in_order_of_their_places(self, config, uid, monkeypatch):
        notes = []
        module = types.ModuleType("layers_" + uid)
        module.configured = Tag("configured", notes)
        monkeypatch.setitem(sys.modules, module.__name__, module)

        class Service:
            name = "service-" + uid
            layers = [Tag("service 1", notes), AsyncTag("service 2", notes), Tag("3", notes)]

            @rpc
            def method(self):
                notes.append("method")

        config = {**config, "LAYERS": [module.__name__ + ".configured"]}
        with (
            run_services(config, Service, layers=[AsyncTag("runner", notes)]),
            ClusterRpcProxy(config, timeout=10) as cluster,
        ):
            cluster[Service.name].method()
        assert notes == ["configured", "runner", "service 1", "service 2", "3", "method"]

    def test_those_of_a_container_are_outside_those_of_the_service(self, uid):
        notes = []

        class Service:
            name = "service-" + uid
            layers = [Tag("service", notes)]

            @dummy
            def method(self):
                notes.append("method")

        container = ServiceContainer(Service, {}, layers=[Tag("container", notes)])
        container.start()
        with entrypoint_hook(container, "method") as method:
            method()
        container.stop()
        assert notes == ["container", "service", "method"]

    def test_a_stream_passes_through_all_of_them(self, serve, uid):
        def first(call, next):
            return next()

        class Service:
            name = "service-" + uid
            layers = [first, first]

            @http("GET", "/")
            def get(self, request):
                from werkzeug.wrappers import Response

                return Response(iter(["one ", "two"]))

        assert Client(serve(Service, **LOCAL)).get("/").text == "one two"


class TestInvalidLayers:
    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ("shop.audit", r"LAYERS must be a list of import paths, such as .*, not 'shop.audit'"),
            (["no_such_module.audit"], "LAYERS contains 'no_such_module.audit', which cannot be"),
            ([7], r"LAYERS contains 7; a layer is a function `layer\(call, next\)`"),
        ],
    )
    def test_in_the_configuration(self, value, message):
        class Service:
            name = "service"

        with pytest.raises(ConfigurationError, match=message):
            ServiceContainer(Service, {"LAYERS": value})

    @pytest.mark.parametrize("value", ["text", ["text"], [Tag], 7, {"a": 1}])
    def test_of_a_service(self, value):
        service = type("Service", (), {"name": "service", "layers": value})
        with pytest.raises(ConfigurationError, match=r"`Service.layers`"):
            ServiceContainer(service, {})

    def test_of_a_runner(self):
        with pytest.raises(ConfigurationError, match="the argument `layers` contains None"):
            ServiceRunner({}, layers=[None])

    def test_a_method_or_dependency_may_have_their_name(self, serve, cluster, uid):
        class Service:
            name = "service-" + uid

            @rpc
            def layers(self):
                return ["roads", "rivers"]

        serve(Service)
        assert cluster[Service.name].layers() == ["roads", "rivers"]

    def test_a_container_of_another_kind_has_none(self):
        class Container:
            def __init__(self, service_cls, config):
                pass

        class Service:
            name = "service"

        runner = ServiceRunner({}, layers=[lambda call, next: next()])
        runner.container_cls = Container
        with pytest.raises(ConfigurationError, match="has no layers"):
            runner.add_service(Service)
