"""The worker pool: threads and slots of workers, and waits for them."""

import asyncio
import contextvars
import sys
import threading

import pytest

from nameko.constants import MAX_WORKERS_CONFIG_KEY
from nameko.containers import ServiceContainer
from nameko.events import EventHandler
from nameko.exceptions import ContainerBeingKilled
from nameko.extensions import Entrypoint
from nameko.messaging import Consumer, QueueConsumer
from nameko.rpc import Rpc, RpcConsumer, rpc
from nameko.standalone.rpc import ServiceRpcProxy
from nameko.testing.services import dummy
from nameko.testing.utils import get_extension
from nameko.utils.threads import Event, ThreadKilled
from nameko.workers import handle_result_is_nonblocking, is_nonblocking, nonblocking


class Service:
    name = "service"

    # The threads of the methods, and the gates that they wait for.
    threads: list = []
    began = go = None

    @dummy
    def method(self, value=None):
        type(self).threads.append(threading.current_thread())
        return value

    @dummy
    def held(self):
        type(self).began.release()
        type(self).go.wait(10)


@pytest.fixture
def start():
    """Starts a container without a broker."""
    containers = []

    def start(**config):
        service = type("Service", (Service,), {"threads": []})
        service.began, service.go = threading.Semaphore(0), threading.Event()
        container = ServiceContainer(service, config)
        containers.append(container)
        container.start()
        return container

    yield start
    for container in containers:
        container.service_cls.go.set()
        container.kill()


def spawn(container, method="method", *args):
    """Spawns a worker. Returns an Event of its result."""
    done = Event()

    def handle_result(worker_ctx, result, exc_info):
        done.send(result, exc_info)
        return result, exc_info

    entrypoint = get_extension(container, Entrypoint, method_name=method)
    container.spawn_worker(entrypoint, args, {}, handle_result=handle_result)
    return done


def handle(container, handler):
    """Handles a message on a thread of the pool. Returns an Event of the handler's result."""
    pool, outcome = container._worker_pool, Event()

    def handle_message():
        try:
            outcome.send(handler())
        except BaseException as exc:
            outcome.send(exc=exc)
            raise

    pool.jobs.put(lambda _: pool.handle(handle_message))
    return outcome


@pytest.fixture
def nonblocking_entrypoints(monkeypatch):
    """Marks the handlers of entrypoints as non-blocking."""
    monkeypatch.setattr(
        Entrypoint, "handle_message", nonblocking(lambda *args: None), raising=False
    )


def thread_names():
    return [thread.name for thread in threading.enumerate()]


class TestHandlerWaitingForItsWorker:
    @pytest.mark.usefixtures("nonblocking_entrypoints")
    def test_waiting_for_an_event_runs_the_worker_on_its_thread(self, start):
        container = start()

        def handler():
            done = spawn(container, "method", "result")
            assert container.service_cls.threads == []
            return threading.current_thread(), done.wait()

        thread, result = handle(container, handler).wait(10)
        assert result == "result"
        assert container.service_cls.threads == [thread]

    @pytest.mark.usefixtures("nonblocking_entrypoints")
    def test_without_a_wait_the_worker_starts_when_it_has_returned(self, start):
        container = start()
        outcome = handle(
            container, lambda: (threading.current_thread(), spawn(container, "method", 1))
        )
        thread, done = outcome.wait(10)
        assert done.wait(10) == 1
        assert container.service_cls.threads == [thread]

    @pytest.mark.usefixtures("nonblocking_entrypoints")
    def test_a_timeout_of_its_wait_is_kept(self, start):
        container = start()

        def handler():
            done = spawn(container, "held")
            with pytest.raises(TimeoutError):
                done.wait(0.01)
            container.service_cls.go.set()
            return done.wait(10)

        assert handle(container, handler).wait(10) is None

    @pytest.mark.parametrize("size", [1, 2])
    def test_waiting_for_another_event_class_runs_the_worker_on_another_thread(self, start, size):
        container = start(**{MAX_WORKERS_CONFIG_KEY: size})

        def handler():
            done = threading.Event()
            spawn(container).link(lambda event: done.set())
            assert done.wait(10)
            return threading.current_thread()

        thread = handle(container, handler).wait(10)
        assert thread not in container.service_cls.threads

    @pytest.mark.usefixtures("nonblocking_entrypoints")
    def test_one_of_two_workers_may_wait_for_the_other(self, start):
        container = start()

        def handler():
            held = spawn(container, "held")
            done = spawn(container)
            done.link(lambda event: container.service_cls.go.set())
            held.wait()
            return done.wait()

        assert handle(container, handler).wait(10) is None

    @pytest.mark.usefixtures("nonblocking_entrypoints")
    def test_its_worker_waits_for_a_slot(self, start):
        container = start(**{MAX_WORKERS_CONFIG_KEY: 1})
        held = spawn(container, "held")
        assert container.service_cls.began.acquire(timeout=10)
        spawned = threading.Semaphore(0)

        def handler():
            done = spawn(container, "method", "late")
            spawned.release()
            return done.wait()

        outcomes = [handle(container, handler) for _ in range(3)]
        for _ in outcomes:
            assert spawned.acquire(timeout=10)
        assert container.service_cls.threads == []
        container.service_cls.go.set()
        assert [outcome.wait(10) for outcome in outcomes] == ["late"] * 3
        held.wait(10)
        container.stop()
        assert container._worker_pool.free() == 1

    @pytest.mark.parametrize("event_class", [Event, threading.Event])
    def test_more_messages_than_threads_are_handled(self, start, event_class):
        container = start(**{MAX_WORKERS_CONFIG_KEY: 1})

        def handler():
            done = spawn(container, "method", "result")
            if event_class is Event:
                return done.wait()
            plain = threading.Event()
            done.link(lambda event: plain.set())
            assert plain.wait(10)
            return "result"

        count = container._worker_pool._max_threads * 3
        outcomes = [handle(container, handler) for _ in range(count)]
        assert [outcome.wait(10) for outcome in outcomes] == ["result"] * count
        container.stop()

    @pytest.mark.skipif(sys.version_info < (3, 11), reason="needs the exception tables of 3.11")
    @pytest.mark.usefixtures("nonblocking_entrypoints")
    def test_a_kill_ends_its_wait(self, start):
        container = start()
        outcome = handle(container, lambda: spawn(container, "held").wait())
        assert container.service_cls.began.acquire(timeout=10)
        container.kill()
        container.service_cls.go.set()
        with pytest.raises(ThreadKilled):
            outcome.wait(10)

    @pytest.mark.usefixtures("nonblocking_entrypoints")
    def test_a_kill_ends_its_wait_while_the_worker_waits_for_a_slot(self, start):
        container = start(**{MAX_WORKERS_CONFIG_KEY: 1})
        spawn(container, "held")
        assert container.service_cls.began.acquire(timeout=10)
        spawned = Event()

        def handler():
            done = spawn(container)
            spawned.send()
            return done.wait()

        outcome = handle(container, handler)
        spawned.wait(10)
        container.kill()
        with pytest.raises(ThreadKilled):
            outcome.wait(10)
        assert container.service_cls.threads == []


class TestOverriddenHandleMessage:
    """Extensions that override handle_message, on a broker."""

    @pytest.mark.parametrize("event_class", [Event, threading.Event])
    def test_it_may_wait_for_its_worker(self, serve, config, uid, event_class):
        class WaitingRpc(Rpc):
            def handle_message(self, body, message):
                self.handled = event_class()
                super().handle_message(body, message)
                self.handled.wait()

            def handle_result(self, message, worker_ctx, result, exc_info):
                outcome = super().handle_result(message, worker_ctx, result, exc_info)
                getattr(self.handled, "send", getattr(self.handled, "set", None))()
                return outcome

        class Echo:
            name = "echo-{}".format(uid)

            @WaitingRpc.decorator
            def echo(self, value):
                return value

        serve(Echo)
        with ServiceRpcProxy(Echo.name, config, timeout=10) as proxy:
            assert [proxy.echo(number) for number in range(3)] == [0, 1, 2]

    def test_a_patched_consumer_may_wait_for_its_worker(self, serve, config, uid, monkeypatch):
        handled = threading.Semaphore(0)
        original = QueueConsumer.handle_message

        def handle_message(self, provider, body, message):
            original(self, provider, body, message)
            assert handled.acquire(timeout=10)

        monkeypatch.setattr(QueueConsumer, "handle_message", handle_message)

        class Echo:
            name = "echo-{}".format(uid)

            @rpc
            def echo(self, value):
                handled.release()
                return value

        serve(Echo)
        with ServiceRpcProxy(Echo.name, config, timeout=10) as proxy:
            assert proxy.echo(1) == 1


def test_a_stopped_container_starts_no_worker(start):
    container = start(**{MAX_WORKERS_CONFIG_KEY: 1})
    container.stop()
    for _ in range(3):
        with pytest.raises(ContainerBeingKilled):
            spawn(container)


def test_a_kill_ends_the_wait_for_a_free_slot(start):
    container = start(**{MAX_WORKERS_CONFIG_KEY: 1})
    spawn(container, "held")
    assert container.service_cls.began.acquire(timeout=10)
    outcome = Event()

    def spawner():
        try:
            spawn(container)
        except ContainerBeingKilled as exc:
            outcome.send(exc)

    waiting = threading.Thread(target=spawner)
    waiting.start()
    while not container._worker_pool._waiting:
        assert waiting.is_alive()
    container.kill()
    assert isinstance(outcome.wait(10), ContainerBeingKilled)


def test_handlers_of_nameko_run_their_workers_on_their_threads():
    """Without the mark each call would need a second thread."""
    for cls in (QueueConsumer, RpcConsumer, Rpc, Consumer, EventHandler):
        assert is_nonblocking(cls.__new__(cls)), cls
    assert handle_result_is_nonblocking(Rpc.__new__(Rpc))


class TestCoroutines:
    def test_waiting_coroutines_hold_no_thread(self, serve, config, uid):
        gate: list = []
        began = threading.Semaphore(0)

        class Waits:
            name = "waits-{}".format(uid)

            @rpc
            async def wait(self):
                if not gate:
                    gate.append((asyncio.get_running_loop(), asyncio.Event()))
                began.release()
                await gate[0][1].wait()
                return "waited"

        container = serve(Waits, max_workers=200)
        with ServiceRpcProxy(Waits.name, config, timeout=20) as proxy:
            replies = [proxy.wait.call_async() for _ in range(200)]
            for _ in replies:
                assert began.acquire(timeout=20)
            assert container._worker_pool.free() == 0
            threads = [name for name in thread_names() if name.startswith(Waits.name)]
            assert len(threads) < 10
            loop, event = gate[0]
            loop.call_soon_threadsafe(event.set)
            assert [reply.result() for reply in replies] == ["waited"] * 200
        container.stop()
        assert container._worker_pool.free() == 200

    def test_the_rest_of_a_worker_runs_on_the_loop_without_result_hooks(self, serve, config, uid):
        class Echo:
            name = "echo-{}".format(uid)

            @rpc
            async def echo(self, value):
                return value

        serve(Echo)
        with ServiceRpcProxy(Echo.name, config, timeout=10) as proxy:
            assert [proxy.echo(number) for number in range(3)] == [0, 1, 2]
        runners = [name for name in thread_names() if name.startswith(Echo.name + "-runner")]
        assert not runners

    def test_a_stop_waits_for_coroutines(self, start):
        container = start()
        loops, done = [], []

        async def wait():
            loops.append((asyncio.get_running_loop(), asyncio.Event()))
            container.service_cls.began.release()
            await loops[0][1].wait()
            done.append(True)

        container.service_cls.method = lambda self: wait()
        spawn(container)
        assert container.service_cls.began.acquire(timeout=10)
        stopping = threading.Thread(target=container.stop)
        stopping.start()
        assert not done
        loops[0][0].call_soon_threadsafe(loops[0][1].set)
        stopping.join(10)
        assert done == [True]

    def test_setup_coroutine_and_teardown_share_a_context(self, start):
        variable: contextvars.ContextVar = contextvars.ContextVar("variable", default=None)
        container = start()

        async def run():
            variable.set("of the coroutine")
            await asyncio.sleep(0)
            return variable.get()

        seen = []
        container.service_cls.method = lambda self: run()
        container._worker_teardown = lambda worker_ctx: seen.append(variable.get())
        done = spawn(container)
        assert done.wait(10) == "of the coroutine"
        container.stop()
        if sys.version_info >= (3, 11):
            assert seen == ["of the coroutine"]

    def test_result_hooks_never_block_the_loop(self, start):
        container = start()
        threads = []

        async def run():
            return threading.current_thread()

        container.service_cls.method = lambda self: run()
        container._worker_result = lambda *args: threads.append(threading.current_thread())
        loop_thread = spawn(container).wait(10)
        container.stop()
        assert threads
        assert loop_thread not in threads

    def test_a_coroutine_that_cancels_itself_is_an_error_of_the_call(self, start):
        container = start()

        async def run():
            raise asyncio.CancelledError()

        container.service_cls.method = lambda self: run()
        with pytest.raises(asyncio.CancelledError):
            spawn(container).wait(10)
        assert not container._died.ready()
