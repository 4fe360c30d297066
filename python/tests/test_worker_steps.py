"""The steps of a worker, for each kind of entrypoint, and their failures."""

import asyncio
import gc
import json
import queue
import threading
import weakref
from contextlib import closing
from unittest.mock import patch

import pytest
from kombu import Exchange, Queue
from socketclient import call
from webclient import LOCAL, Client, address_of

import websocket
from nameko.amqp.publish import Publisher as PublisherCore
from nameko.containers import ServiceContainer
from nameko.events import event_handler
from nameko.exceptions import ConfigurationError, RemoteError
from nameko.extensions import DependencyProvider, Entrypoint
from nameko.messaging import QueueConsumer, consume
from nameko.outcome import Outcome, WorkerEnd
from nameko.rpc import RpcProxy, rpc
from nameko.standalone.events import event_dispatcher
from nameko.testing.services import dummy, entrypoint_hook
from nameko.testing.utils import get_extension
from nameko.timer import timer
from nameko.web.handlers import http
from nameko.web.websocket import rpc as websocket_rpc

STEPS = [
    "layer",
    "z.get_dependency",
    "a.get_dependency",
    "z.worker_setup",
    "a.worker_setup",
    "method",
    "z.before_reply",
    "a.before_reply",
    "layer returns",
    "reply",
    "z.worker_result",
    "a.worker_result",
    "z.worker_teardown",
    "a.worker_teardown",
]


class Noting(DependencyProvider):
    """Notes its hooks, and how the worker ended."""

    def __init__(self, name, steps, ended=None):
        self.name = name
        self.steps = steps
        self.ended = ended

    def note(self, hook):
        self.steps.append("{}.{}".format(self.name, hook))

    def get_dependency(self, worker_ctx):
        worker_ctx.state[self] = self.name
        self.note("get_dependency")
        return self.steps.append

    def worker_setup(self, worker_ctx):
        self.note("worker_setup")

    def before_reply(self, worker_ctx, outcome):
        assert worker_ctx.end is None
        self.note("before_reply")

    def worker_result(self, worker_ctx, result=None, exc_info=None):
        self.note("worker_result")

    def worker_teardown(self, worker_ctx):
        assert worker_ctx.state.pop(self) == self.name
        self.note("worker_teardown")
        if self.ended is not None:
            self.ended.put((worker_ctx.end, worker_ctx.outcome))


class AsyncNoting(Noting):
    """The same with ``async def`` hooks."""

    async def get_dependency(self, worker_ctx):
        await asyncio.sleep(0)
        return super().get_dependency(worker_ctx)

    async def worker_setup(self, worker_ctx):
        await asyncio.sleep(0)
        super().worker_setup(worker_ctx)

    async def before_reply(self, worker_ctx, outcome):
        await asyncio.sleep(0)
        super().before_reply(worker_ctx, outcome)

    async def worker_result(self, worker_ctx, result=None, exc_info=None):
        await asyncio.sleep(0)
        super().worker_result(worker_ctx, result, exc_info)

    async def worker_teardown(self, worker_ctx):
        await asyncio.sleep(0)
        super().worker_teardown(worker_ctx)


@pytest.fixture
def steps():
    return []


@pytest.fixture
def ended():
    """The ends of workers and their outcomes, by the last provider."""
    return queue.Queue()


@pytest.fixture(params=[False, True], ids=["sync hooks", "async hooks"])
def provider_cls(request):
    return AsyncNoting if request.param else Noting


@pytest.fixture(params=[False, True], ids=["sync layer", "async layer"])
def layer(request, steps):
    def layer(call, next):
        steps.append("layer")
        result = next()
        steps.append("layer returns")
        return result

    async def async_layer(call, next):
        steps.append("layer")
        result = await next()
        steps.append("layer returns")
        return result

    return async_layer if request.param else layer


@pytest.fixture(params=[False, True], ids=["method", "async method"])
def entry(request, provider_cls, layer, steps, ended, uid):
    """``entry(decorator)`` returns a service whose method ``entry`` has this entrypoint."""

    def make(decorator):
        class Service:
            name = "service-" + uid
            layers = [layer]

            # Not in the order of the alphabet.
            z = a = None

            if request.param:

                @decorator
                async def entry(self, *args):
                    await asyncio.sleep(0)
                    self.z("method")
                    return "result"

            else:

                @decorator
                def entry(self, *args):
                    self.z("method")
                    return "result"

        Service.z = provider_cls("z", steps)
        Service.a = provider_cls("a", steps, ended)
        return Service

    return make


@pytest.fixture
def serve_noting_replies(config, steps):
    """Starts a service and notes when the result is handled, which sends the reply."""
    containers = []

    def start(service_cls, **extra):
        container = ServiceContainer(service_cls, {**config, **extra})
        containers.append(container)
        entrypoint = get_extension(container, Entrypoint, method_name="entry")
        handle_result = entrypoint.handle_result

        def noting(*args, **kwargs):
            steps.append("reply")
            return handle_result(*args, **kwargs)

        entrypoint.handle_result = noting
        container.start()
        return container

    yield start
    for container in containers:
        container.kill()


def check(steps, ended):
    end, outcome = ended.get(timeout=10)
    assert end is WorkerEnd.COMPLETED
    assert outcome.result == "result"
    assert steps == STEPS


class TestOrder:
    def test_rpc(self, entry, serve_noting_replies, cluster, steps, ended):
        container = serve_noting_replies(entry(rpc))
        assert cluster[container.service_name].entry() == "result"
        check(steps, ended)

    def test_event_handler(self, entry, serve_noting_replies, config, steps, ended, uid):
        serve_noting_replies(entry(event_handler("source-" + uid, "happened")))
        event_dispatcher(config)("source-" + uid, "happened", 1)
        check(steps, ended)

    def test_consume(self, entry, serve_noting_replies, config, steps, ended, uid):
        queue = Queue("queue-" + uid, Exchange("exchange-" + uid, auto_delete=True), "key")
        ack = QueueConsumer.ack_message

        def ack_message(self, message):
            steps.append("ack")
            ack(self, message)

        container = serve_noting_replies(entry(consume(queue)))
        with patch.object(QueueConsumer, "ack_message", ack_message):
            publisher = PublisherCore(config["AMQP_URI"])
            publisher.publish("body", exchange="exchange-" + uid, routing_key="key")
            ended.get(timeout=10)
            container.stop()
        assert steps.pop(steps.index("reply") + 1) == "ack"
        assert steps == STEPS

    def test_timer(self, entry, serve_noting_replies, steps, ended):
        container = serve_noting_replies(entry(timer(interval=3600, eager=True)))
        check(steps, ended)
        container.stop()

    def test_http(self, entry, serve_noting_replies, steps, ended):
        container = serve_noting_replies(entry(http("GET", "/")), **LOCAL)
        assert Client(container).get("/").text == "result"
        # The worker has ended before the response is sent.
        assert steps == STEPS

    def test_websocket(self, entry, serve_noting_replies, steps, ended):
        container = serve_noting_replies(entry(websocket_rpc), **LOCAL)
        url = "ws://{}:{}/ws".format(*address_of(container))
        with closing(websocket.create_connection(url, timeout=10)) as connection:
            assert json.loads(connection.recv())["event"] == "connected"
            assert call(connection, "entry")["data"] == "result"
        assert steps == STEPS

    def test_custom_entrypoint(self, entry, serve, steps, ended):
        container = serve(entry(dummy))

        def handle_result(worker_ctx, result, exc_info):
            steps.append("reply")
            return result, exc_info

        entrypoint = get_extension(container, Entrypoint)
        container.spawn_worker(entrypoint, (), {}, handle_result=handle_result)
        check(steps, ended)


class Hook(DependencyProvider):
    """A provider whose hooks are given as functions, with the arguments of the hooks."""

    fatal_hooks = ()

    def __init__(self, **hooks):
        for name, hook in hooks.items():
            setattr(self, name, hook)


def make_service(uid, *methods, **attributes):
    def echo(self, value=None):
        return value

    def fail(self):
        raise ValueError("by the method")

    async def later(self, value=None):
        await asyncio.sleep(0)
        return value

    body = {"name": "service-" + uid, "echo": rpc(echo), "fail": rpc(fail), "later": rpc(later)}
    return type("Service", (), {**body, **attributes})


@pytest.fixture
def hooked(serve, cluster, uid):
    """``hooked(**hooks)`` starts a service with these hooks and returns a client of it."""

    def start(provider=None, **hooks):
        container = serve(make_service(uid, hook=provider or Hook(**hooks)))
        proxy = cluster["service-" + uid]
        proxy.__dict__["container"] = container
        return proxy

    return start


class TestBeforeReply:
    def test_it_runs_before_the_reply_leaves(self, hooked):
        committed = []
        service = hooked(before_reply=lambda ctx, outcome: committed.append(outcome.result))
        for number in range(100):
            assert service.echo(number) == number
            assert committed[-1] == number

    def test_replies_without_result_hooks_are_not_delayed(self, hooked):
        service = hooked(before_reply=lambda ctx, outcome: None)
        assert service.echo(1) == 1
        assert not service.container.has_result_hooks()

    @pytest.mark.parametrize("method", ["echo", "later"])
    def test_it_may_replace_the_result(self, hooked, method):
        def before_reply(worker_ctx, outcome):
            outcome.result = [outcome.result]

        assert hooked(before_reply=before_reply)[method](1) == [1]

    @pytest.mark.parametrize("method", ["echo", "later"])
    def test_it_may_replace_the_result_by_an_exception(self, hooked, method):
        def before_reply(worker_ctx, outcome):
            outcome.exception = KeyError("missing")

        with pytest.raises(RemoteError, match="KeyError 'missing'"):
            hooked(before_reply=before_reply)[method](1)

    def test_it_may_replace_an_exception_by_a_result(self, hooked):
        def before_reply(worker_ctx, outcome):
            if isinstance(outcome.exception, ValueError):
                outcome.result = "default"

        assert hooked(before_reply=before_reply).fail() == "default"

    @pytest.mark.parametrize("method", ["echo", "later"])
    def test_its_exception_is_the_callers_error(self, hooked, method, caplog):
        def before_reply(worker_ctx, outcome):
            raise RuntimeError("commit failed")

        service = hooked(before_reply=before_reply)
        for _ in range(2):
            with pytest.raises(RemoteError, match="RuntimeError commit failed"):
                service[method](1)
        assert not service.container.death.ready()
        assert "`before_reply` of <Hook [service-" in caplog.text

    def test_each_provider_sees_the_outcome_of_those_before_it(self, serve, cluster, uid):
        def fails(worker_ctx, outcome):
            raise RuntimeError("first")

        def maps(worker_ctx, outcome):
            outcome.result = str(outcome.exception)

        first, second = Hook(before_reply=fails), Hook(before_reply=maps)
        serve(make_service(uid, first=first, second=second))
        assert cluster["service-" + uid].echo(1) == "first"

    def test_an_exception_is_never_anything_else(self):
        with pytest.raises(TypeError, match="not 'text'"):
            Outcome().exception = "text"

    def test_a_slow_hook_delays_only_its_reply(self, hooked):
        gate = threading.Event()

        def before_reply(worker_ctx, outcome):
            if outcome.result == "slow":
                assert gate.wait(10)

        service = hooked(before_reply=before_reply)
        slow = service.echo.call_async("slow")
        assert service.echo("fast") == "fast"
        gate.set()
        assert slow.result() == "slow"

    def test_patching_a_hook_takes_effect(self, hooked):
        service = hooked()
        assert service.echo(1) == 1
        provider = get_extension(service.container, Hook)

        def before_reply(worker_ctx, outcome):
            outcome.result = "patched"

        with patch.object(provider, "before_reply", before_reply):
            assert service.echo(1) == "patched"
        assert service.echo(1) == 1


class TestFailedHooks:
    @pytest.mark.parametrize("hook", ["get_dependency", "worker_setup", "before_reply"])
    @pytest.mark.parametrize("method", ["echo", "later"])
    def test_before_the_reply_they_fail_their_call(self, hooked, hook, method):
        def fail(*args):
            raise RuntimeError("in the hook")

        service = hooked(**{hook: fail})
        for _ in range(2):
            with pytest.raises(RemoteError, match="RuntimeError in the hook"):
                service[method](1)
        assert not service.container.death.ready()

    @pytest.mark.parametrize("hook", ["worker_result", "worker_teardown"])
    @pytest.mark.parametrize("method", ["echo", "later"])
    def test_after_the_reply_they_are_logged(self, hooked, hook, method, expect_log, uid):
        def fail(*args):
            raise RuntimeError("in the hook")

        service = hooked(**{hook: fail})
        with expect_log("nameko.containers", ", call service-{}.{}.".format(uid, method)):
            assert service[method](1) == 1
        with expect_log("nameko.containers", "`{}` of <Hook [service-".format(hook)):
            assert service[method](2) == 2
        assert service[method](2) == 2
        assert not service.container.death.ready()

    @pytest.mark.parametrize(
        "hook", ["get_dependency", "worker_setup", "before_reply", "worker_result"]
    )
    def test_a_fatal_hook_kills_the_container_after_the_teardown(self, hooked, hook, ended):
        error = RuntimeError("fatal")

        def fail(*args):
            raise error

        def worker_teardown(worker_ctx):
            ended.put(worker_ctx.end)

        provider = Hook(**{hook: fail, "worker_teardown": worker_teardown})
        with patch.object(Hook, "fatal_hooks", [hook]):
            service = hooked(provider)
            service.echo.call_async(1)
            with pytest.raises(RuntimeError) as raised:
                service.container.wait()
        assert raised.value is error
        if hook == "get_dependency":
            assert ended.empty()  # nothing to tear down
        else:
            completed = hook == "worker_result"
            assert ended.get(timeout=10) is (WorkerEnd.COMPLETED if completed else WorkerEnd.KILLED)

    def test_a_failed_hook_spares_the_other_providers(self, serve, cluster, uid):
        seen = queue.Queue()

        def fail(*args):
            raise RuntimeError("in the hook")

        first = Hook(
            before_reply=lambda ctx, outcome: seen.put(repr(outcome.exception)),
            worker_teardown=lambda ctx: seen.put(ctx.end),
        )
        second = Hook(get_dependency=fail, worker_teardown=lambda ctx: seen.put("second"))
        serve(make_service(uid, first=first, second=second))
        with pytest.raises(RemoteError, match="in the hook"):
            cluster["service-" + uid].echo(1)
        assert seen.get(timeout=10) == "RuntimeError('in the hook')"
        assert seen.get(timeout=10) is WorkerEnd.COMPLETED
        assert seen.empty()

    def test_all_teardowns_run_though_one_fails(self, serve, cluster, uid):
        torn_down = queue.Queue()

        def fail(worker_ctx):
            raise RuntimeError("in the hook")

        first = Hook(worker_teardown=fail)
        second = Hook(worker_teardown=lambda ctx: torn_down.put(ctx.end))
        serve(make_service(uid, first=first, second=second))
        assert cluster["service-" + uid].echo(1) == 1
        assert torn_down.get(timeout=10) is WorkerEnd.COMPLETED

    def test_an_unknown_fatal_hook_is_an_error(self, uid, serve):
        with (
            patch.object(Hook, "fatal_hooks", ["teardown"]),
            pytest.raises(ConfigurationError, match=r"`Hook.fatal_hooks` contains 'teardown'"),
        ):
            serve(make_service(uid, hook=Hook()))

    def test_a_hook_that_exits_fails_only_its_call(self, hooked):
        def leave(*args):
            raise SystemExit(3)

        service = hooked(before_reply=leave)
        with pytest.raises(RemoteError, match="SystemExit"):
            service.echo(1)
        assert not service.container.death.ready()


class TestTeardown:
    """It runs for every worker, and knows how the worker ended."""

    def start(self, serve, uid, ended, body, **hooks):
        hooks.setdefault("worker_teardown", lambda ctx: ended.put((ctx.end, ctx.outcome)))

        class Service:
            name = "service-" + uid
            hook = Hook(**hooks)
            method = dummy(body)

        container = serve(Service)
        container.spawn_worker(get_extension(container, Entrypoint), (), {})
        return container

    def test_of_a_killed_worker(self, serve, uid, ended):
        began = threading.Event()

        def spin(self):
            began.set()
            while True:
                threading.Event().wait(0.001)

        container = self.start(serve, uid, ended, spin)
        assert began.wait(10)
        container.kill()
        assert ended.get(timeout=10) == (WorkerEnd.KILLED, None)
        assert ended.empty()

    def test_of_a_killed_coroutine(self, serve, uid, ended):
        began = threading.Event()

        async def wait(self):
            began.set()
            await asyncio.Event().wait()

        container = self.start(serve, uid, ended, wait)
        assert began.wait(10)
        container.kill()
        assert ended.get(timeout=10) == (WorkerEnd.KILLED, None)

    def test_of_a_worker_killed_in_an_async_hook(self, serve, uid, ended):
        began = threading.Event()

        async def worker_setup(worker_ctx):
            began.set()
            await asyncio.Event().wait()

        container = self.start(serve, uid, ended, lambda self: None, worker_setup=worker_setup)
        assert began.wait(10)
        container.kill()
        assert ended.get(timeout=10) == (WorkerEnd.KILLED, None)

    def test_of_a_cancelled_coroutine(self, serve, uid, ended):
        async def cancelled(self):
            asyncio.current_task().cancel()
            await asyncio.sleep(10)

        container = self.start(serve, uid, ended, cancelled)
        end, outcome = ended.get(timeout=10)
        assert end is WorkerEnd.CANCELLED
        assert isinstance(outcome.exception, asyncio.CancelledError)
        assert not container.death.ready()

    def test_an_async_teardown_of_a_killed_worker_runs_to_its_end(self, serve, uid, ended):
        began = threading.Event()

        async def wait(self):
            began.set()
            await asyncio.Event().wait()

        async def worker_teardown(worker_ctx):
            await asyncio.sleep(0.01)
            ended.put((worker_ctx.end, worker_ctx.outcome))

        container = self.start(serve, uid, ended, wait, worker_teardown=worker_teardown)
        assert began.wait(10)
        container.kill()
        assert ended.get(timeout=10) == (WorkerEnd.KILLED, None)

    @pytest.mark.parametrize("kind", ["sync", "async"])
    @pytest.mark.parametrize(
        "hook", ["get_dependency", "worker_setup", "before_reply", "worker_result"]
    )
    def test_of_a_worker_killed_in_a_hook_that_hangs(self, serve, uid, ended, hook, kind):
        began = threading.Event()

        def hang(*args):
            began.set()
            while True:
                threading.Event().wait(0.001)

        async def hang_on_the_loop(*args):
            began.set()
            await asyncio.Event().wait()

        class Service:
            name = "service-" + uid
            first = Hook(worker_teardown=lambda ctx: ended.put(ctx.end))
            hook = Hook()
            method = dummy(lambda self: None)

        container = serve(Service)
        [_, provider] = container.dependencies
        setattr(provider, hook, hang if kind == "sync" else hang_on_the_loop)
        container.spawn_worker(get_extension(container, Entrypoint), (), {})
        assert began.wait(10)
        assert ended.empty()
        container.kill()
        replied = hook == "worker_result"
        end = WorkerEnd.COMPLETED if replied else WorkerEnd.KILLED
        assert ended.get(timeout=20) is end

    def test_of_a_worker_whose_result_cannot_be_handled(self, serve, uid, ended):
        class Service:
            name = "service-" + uid
            hook = Hook(worker_teardown=lambda ctx: ended.put(ctx.end))
            method = dummy(lambda self: None)

        def handle_result(worker_ctx, result, exc_info):
            raise RuntimeError("broken entrypoint")

        container = serve(Service)
        entrypoint = get_extension(container, Entrypoint)
        container.spawn_worker(entrypoint, (), {}, handle_result=handle_result)
        assert ended.get(timeout=10) is WorkerEnd.KILLED
        with pytest.raises(RuntimeError, match="broken entrypoint"):
            container.wait()

    def test_a_stop_waits_for_it(self, serve, uid, ended):
        began, go = threading.Event(), threading.Event()

        def worker_teardown(worker_ctx):
            began.set()
            assert go.wait(10)
            ended.put(worker_ctx.end)

        container = self.start(
            serve, uid, ended, lambda self: None, worker_teardown=worker_teardown
        )
        assert began.wait(10)
        stopping = threading.Thread(target=container.stop)
        stopping.start()
        go.set()
        stopping.join(10)
        assert ended.get(timeout=0) is WorkerEnd.COMPLETED

    def test_a_kill_does_not_interrupt_it(self, serve, uid, ended):
        began, go = threading.Event(), threading.Event()

        def worker_teardown(worker_ctx):
            began.set()
            while not go.wait(0.001):
                pass
            ended.put(worker_ctx.end)

        container = self.start(
            serve, uid, ended, lambda self: None, worker_teardown=worker_teardown
        )
        assert began.wait(10)
        container.kill()
        go.set()
        assert ended.get(timeout=10) is WorkerEnd.COMPLETED


class TestState:
    def test_it_is_dropped_with_the_worker(self, serve, cluster, uid):
        class Value:
            pass

        values, seen = [], queue.Queue()

        class Stateful(DependencyProvider):
            def get_dependency(self, worker_ctx):
                value = worker_ctx.state[self] = Value()
                values.append(weakref.ref(value))

            def before_reply(self, worker_ctx, outcome):
                assert worker_ctx.state[self] is values[-1]()

            def worker_result(self, worker_ctx, result=None, exc_info=None):
                assert worker_ctx.state[self] is values[-1]()

            def worker_teardown(self, worker_ctx):
                assert worker_ctx.state[self] is values[-1]()
                contexts.append(worker_ctx)
                seen.put(True)

        contexts = []
        container = serve(make_service(uid, stateful=Stateful()))
        cluster["service-" + uid].echo(1)
        assert seen.get(timeout=10)
        container.stop()
        gc.collect()
        assert values[0]() is None
        assert contexts[0].state == {}

    def test_workers_and_providers_do_not_share_it(self, serve, cluster, uid):
        class Stateful(DependencyProvider):
            def get_dependency(self, worker_ctx):
                state = worker_ctx.state.setdefault(self, [])
                state.append(self.attr_name)
                return state

        class Service:
            name = "service-" + uid
            one = Stateful()
            two = Stateful()

            @rpc
            def look(self):
                return [self.one, self.two]

        serve(Service)
        for _ in range(2):
            assert cluster[Service.name].look() == [["one"], ["two"]]


def test_without_hooks_no_step_is_added(serve, uid):
    class Service:
        name = "service-" + uid
        other = RpcProxy("other")

        @dummy
        def method(self):
            return 1

    container = serve(Service)
    assert not container._has_hooks()
    assert not container.has_result_hooks()
    with entrypoint_hook(container, "method") as method:
        assert method() == 1
