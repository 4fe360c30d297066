"""Where and when workers run, and what happens to those who wait for them."""

import threading

import pytest

from nameko.constants import MAX_WORKERS_CONFIG_KEY
from nameko.containers import ServiceContainer
from nameko.exceptions import ContainerBeingKilled
from nameko.extensions import Entrypoint
from nameko.rpc import Rpc, rpc
from nameko.standalone.rpc import ServiceRpcProxy
from nameko.testing.services import dummy
from nameko.testing.utils import get_extension
from nameko.utils.threads import Event, ThreadKilled
from nameko.workers import prompt


class Service:
    name = "service"

    # Where the methods ran, and what they wait for.
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
    """Start a container without a broker."""
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
    """Spawn a worker; returns our Event, which is sent its result."""
    done = Event()

    def handle_result(worker_ctx, result, exc_info):
        done.send(result, exc_info)
        return result, exc_info

    entrypoint = get_extension(container, Entrypoint, method_name=method)
    container.spawn_worker(entrypoint, args, {}, handle_result=handle_result)
    return done


def handle(container, handler):
    """Have a message handled, as one that came; returns our Event, which is sent the result."""
    pool, outcome = container._worker_pool, Event()

    def handle_message():
        try:
            outcome.send(handler())
        except BaseException as exc:
            outcome.send(exc=exc)
            raise

    pool.jobs.put(lambda: pool.handle(handle_message))
    return outcome


@pytest.fixture
def prompt_entrypoints(monkeypatch):
    """Entrypoints say that their handler waits for nothing but an Event."""
    monkeypatch.setattr(Entrypoint, "handle_message", prompt(lambda *args: None), raising=False)


class TestHandlerThatWaitsForItsWorker:
    @pytest.mark.usefixtures("prompt_entrypoints")
    def test_with_our_event_the_worker_runs_on_its_thread(self, start):
        container = start()

        def handler():
            done = spawn(container, "method", "result")
            assert container.service_cls.threads == []
            return threading.current_thread(), done.wait()

        thread, result = handle(container, handler).wait(10)
        assert result == "result"
        assert container.service_cls.threads == [thread]

    @pytest.mark.usefixtures("prompt_entrypoints")
    def test_not_waiting_the_worker_begins_when_it_has_returned(self, start):
        container = start()
        outcome = handle(
            container, lambda: (threading.current_thread(), spawn(container, "method", 1))
        )
        thread, done = outcome.wait(10)
        assert done.wait(10) == 1
        assert container.service_cls.threads == [thread]

    @pytest.mark.usefixtures("prompt_entrypoints")
    def test_a_timeout_is_kept(self, start):
        container = start()

        def handler():
            done = spawn(container, "held")
            with pytest.raises(TimeoutError):
                done.wait(0.01)
            container.service_cls.go.set()
            return done.wait(10)

        assert handle(container, handler).wait(10) is None

    @pytest.mark.parametrize("size", [1, 2])
    def test_with_any_other_event_the_worker_runs_on_another_thread(self, start, size):
        container = start(**{MAX_WORKERS_CONFIG_KEY: size})

        def handler():
            done = threading.Event()
            spawn(container).link(lambda event: done.set())
            assert done.wait(10)
            return threading.current_thread()

        thread = handle(container, handler).wait(10)
        assert thread not in container.service_cls.threads

    @pytest.mark.usefixtures("prompt_entrypoints")
    def test_of_two_workers_one_may_wait_for_the_other(self, start):
        container = start()

        def handler():
            held = spawn(container, "held")
            done = spawn(container)
            done.link(lambda event: container.service_cls.go.set())
            held.wait()
            return done.wait()

        assert handle(container, handler).wait(10) is None

    @pytest.mark.usefixtures("prompt_entrypoints")
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

    @pytest.mark.usefixtures("prompt_entrypoints")
    def test_kill_ends_it(self, start):
        container = start()
        outcome = handle(container, lambda: spawn(container, "held").wait())
        assert container.service_cls.began.acquire(timeout=10)
        container.kill()
        container.service_cls.go.set()
        with pytest.raises(ThreadKilled):
            outcome.wait(10)

    @pytest.mark.usefixtures("prompt_entrypoints")
    def test_kill_ends_it_while_its_worker_waits_for_a_slot(self, start):
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
    """Over a broker: what an extension may do with the messages of Nameko's own entrypoints."""

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

    def test_a_patched_consumer_may_wait_too(self, serve, config, uid, monkeypatch):
        from nameko.messaging import QueueConsumer

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


def test_a_stopped_container_runs_no_worker(start):
    container = start(**{MAX_WORKERS_CONFIG_KEY: 1})
    container.stop()
    for _ in range(3):
        with pytest.raises(ContainerBeingKilled):
            spawn(container)


def test_a_spawner_that_waits_while_the_container_is_killed_is_told(start):
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
