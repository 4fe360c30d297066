"""The lifecycle of containers and of their workers."""

import gc
import sys
import threading
import time
import weakref

import pytest

import nameko
from nameko.constants import MAX_WORKERS_CONFIG_KEY
from nameko.containers import ServiceContainer, WorkerContext
from nameko.exceptions import ContainerBeingKilled
from nameko.extensions import DependencyProvider, Entrypoint, Extension
from nameko.rpc import RpcProxy, rpc
from nameko.runners import ServiceRunner
from nameko.standalone.rpc import ClusterRpcProxy
from nameko.testing.services import dummy, entrypoint_hook, once
from nameko.testing.utils import DummyProvider, get_extension
from nameko.utils.threads import Event, ManagedThread, ThreadKilled


class Recorder(DependencyProvider):
    """Records the hooks and their threads."""

    calls = None

    def setup(self):
        self.calls = []
        self.threads = set()

    def note(self, name, *values):
        self.calls.append((name, *values))
        self.threads.add(threading.current_thread())

    def get_dependency(self, worker_ctx):
        self.note("get_dependency")
        return self.note

    def worker_setup(self, worker_ctx):
        self.note("worker_setup")

    def worker_result(self, worker_ctx, result=None, exc_info=None):
        self.note("worker_result", result, exc_info and exc_info[0])

    def worker_teardown(self, worker_ctx):
        self.note("worker_teardown")


class RecordedService:
    name = "recorded"
    note = Recorder()

    @dummy
    def works(self, value):
        self.note("method", value)
        return value.upper()

    @dummy
    def fails(self):
        raise ValueError("no")

    @dummy
    async def waits(self):
        return "waited"


@pytest.fixture
def start():
    """Starts a container without a broker."""
    containers = []

    def start(service_cls, config=None):
        container = ServiceContainer(service_cls, {} if config is None else config)
        containers.append(container)
        container.start()
        return container

    yield start
    for container in containers:
        container.kill()


def test_hooks_run_in_order_in_one_thread(start):
    container = start(RecordedService)
    recorder = get_extension(container, Recorder)
    with entrypoint_hook(container, "works") as works:
        assert works("abc") == "ABC"
    assert recorder.calls == [
        ("get_dependency",),
        ("worker_setup",),
        ("method", "abc"),
        ("worker_result", "ABC", None),
        ("worker_teardown",),
    ]
    assert len(recorder.threads) == 1


def test_hooks_receive_the_result_of_an_async_method(start):
    container = start(RecordedService)
    with entrypoint_hook(container, "waits") as waits:
        assert waits() == "waited"
    assert ("worker_result", "waited", None) in get_extension(container, Recorder).calls


def test_hooks_receive_the_exception_of_a_method(start):
    container = start(RecordedService)
    with entrypoint_hook(container, "fails") as fails, pytest.raises(ValueError, match="no"):
        fails()
    assert ("worker_result", None, ValueError) in get_extension(container, Recorder).calls
    assert not container._died.ready()


@pytest.mark.parametrize("hook", ["worker_setup", "worker_result", "worker_teardown"])
def test_an_exception_in_a_hook_of_nameko_2_kills_the_container(start, hook):
    error = RuntimeError("broken " + hook)

    def broken(*args, **kwargs):
        raise error

    class Service:
        name = "service"
        dependency = type("Broken", (DependencyProvider,), {hook: broken})()

        @dummy
        def method(self):
            pass

    container = start(Service)
    container.spawn_worker(get_extension(container, Entrypoint), (), {})
    with pytest.raises(RuntimeError) as raised:
        container.wait()
    assert raised.value is error


def test_handle_result_replaces_the_result_for_hooks(start):
    container = start(RecordedService)
    done = threading.Event()

    def handle_result(worker_ctx, result, exc_info):
        return "changed", None

    recorder = get_extension(container, Recorder)
    recorder.worker_teardown = lambda worker_ctx: done.set()
    entrypoint = get_extension(container, Entrypoint, method_name="fails")
    container.spawn_worker(entrypoint, (), {}, handle_result=handle_result)
    assert done.wait(10)
    assert ("worker_result", "changed", None) in recorder.calls


def test_at_most_max_workers_run_at_once(start):
    lock, go = threading.Lock(), threading.Event()
    running, most, all_busy = [], [0], threading.Semaphore(0)

    class Service:
        name = "service"

        @dummy
        def method(self):
            with lock:
                running.append(1)
                most[0] = max(most[0], len(running))
            all_busy.release()
            go.wait(10)
            with lock:
                running.pop()

    container = start(Service, {MAX_WORKERS_CONFIG_KEY: 3})
    entrypoint = get_extension(container, Entrypoint)
    spawners = [
        threading.Thread(target=container.spawn_worker, args=(entrypoint, (), {})) for _ in range(8)
    ]
    for spawner in spawners:
        spawner.start()
    for _ in range(3):
        assert all_busy.acquire(timeout=10)
    assert len(container._worker_threads) == 3
    assert container._worker_pool.free() == 0
    go.set()
    for spawner in spawners:
        spawner.join(10)
    container.stop()
    assert most[0] == 3
    assert container._worker_pool.free() == 3


def test_a_stop_waits_for_running_workers(start):
    began, go, ended = threading.Event(), threading.Event(), []

    class Service:
        name = "service"

        @once
        def method(self):
            began.set()
            go.wait(10)
            ended.append(True)

    container = start(Service)
    assert began.wait(10)
    stopper = threading.Thread(target=container.stop)
    stopper.start()
    assert not ended
    go.set()
    stopper.join(10)
    assert ended == [True]
    assert container._died.ready()


def test_a_stop_ends_entrypoints_then_dependencies_then_shared_extensions():
    order = []

    class Inner(Extension):
        def stop(self):
            order.append("sub-extension")

    class Provider(DependencyProvider):
        def __init__(self):
            self.inner = Inner()

        def stop(self):
            order.append("dependency")

    class Trigger(Entrypoint):
        def stop(self):
            order.append("entrypoint")

    class Service:
        name = "service"
        provider = Provider()

        @Trigger.decorator
        def method(self):
            pass

    container = ServiceContainer(Service, {})
    container.stop()
    container.stop()
    assert order == ["entrypoint", "dependency", "sub-extension"]
    container.wait()


def test_an_exception_in_a_managed_thread_kills_the_container_and_its_other_threads(start):
    class Service:
        name = "service"

    container = start(Service)
    stuck = container.spawn_managed_thread(lambda: _spin(), identifier="stuck")
    error = ValueError("boom")

    def fail():
        raise error

    container.spawn_managed_thread(fail)
    with pytest.raises(ValueError, match="boom") as raised:
        container.wait()
    assert raised.value is error
    with pytest.raises(ThreadKilled):
        stuck.wait(10)


def _spin():
    while True:
        time.sleep(0.001)


def test_sys_exit_in_a_managed_thread_stops_all_services_of_the_process():
    class Exits(Extension):
        def start(self):
            self.container.spawn_managed_thread(lambda: sys.exit(3))

    class Exiting(DependencyProvider):
        exits = Exits()

    class First:
        name = "first"
        exiting = Exiting()

    class Second:
        name = "second"

    runner = ServiceRunner({})
    runner.add_service(First)
    runner.add_service(Second)
    runner.start()
    with pytest.raises(SystemExit) as caught:
        runner.wait()
    assert caught.value.code == 3
    assert all(container._died.ready() for container in runner.containers)
    # All services have stopped without a failure.
    runner.kill()


def test_a_thread_killed_while_it_ends_counts_as_dead():
    class Interrupted(Event):
        # The kill arrives while the thread notifies its links.
        arrived = False

        def send(self, *args):
            if not self.arrived:
                self.arrived = True
                raise ThreadKilled
            super().send(*args)

    links = []
    thread = ManagedThread(lambda: "result")
    thread._event = Interrupted()
    thread.link(links.append)
    thread.start()
    assert thread.wait(10) == "result"
    thread._thread.join(10)
    assert links == [thread]


def test_managed_threads_notify_their_links(start):
    class Service:
        name = "service"

    container = start(Service)
    seen = []
    thread = container.spawn_managed_thread(lambda: 42)
    assert thread.wait(10) == 42
    thread.link(lambda handle, tag: seen.append((handle, tag)), "tag")
    assert thread.dead
    assert seen == [(thread, "tag")]
    assert container._managed_threads == {}


def test_a_kill_ends_a_stop_that_waits_for_the_queue(start):
    class Service:
        name = "service"

    container = start(Service)
    began, go = threading.Event(), threading.Event()
    jobs = container._worker_pool.jobs
    # A job taken from the queue, not yet known to be a worker or a message.
    jobs.put(lambda _: (began.set(), go.wait(20)))
    assert began.wait(10)
    stopper = threading.Thread(target=container.stop, daemon=True)
    stopper.start()
    deadline = time.monotonic() + 10
    while not jobs.pending():
        assert time.monotonic() < deadline, "stop() does not wait for the queue"
    container.kill()
    stopper.join(10)
    go.set()
    assert not stopper.is_alive()


def test_a_kill_returns_at_once_and_wait_raises_its_exception(start):
    began = threading.Event()

    class Service:
        name = "service"

        @once
        def method(self):
            began.set()
            _spin()

    container = start(Service)
    assert began.wait(10)
    try:
        raise KeyError("why")
    except KeyError:
        exc_info = sys.exc_info()
    container.kill(exc_info)
    container.kill()
    with pytest.raises(KeyError, match="why"):
        container.wait()
    with pytest.raises(ContainerBeingKilled):
        container.spawn_worker(get_extension(container, Entrypoint), (), {})


def test_a_killed_coroutine_is_cancelled(start):
    began, cancelled = threading.Event(), threading.Event()

    class Service:
        name = "service"

        @once
        async def method(self):
            import asyncio

            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

    container = start(Service)
    assert began.wait(10)
    container.kill()
    assert cancelled.wait(10)


def test_a_method_may_kill_its_own_container(start):
    class Killer(DependencyProvider):
        def get_dependency(self, worker_ctx):
            return worker_ctx.container.kill

    class Service:
        name = "service"
        kill = Killer()

        @once
        def method(self):
            self.kill()

    container = start(Service)
    container.wait()


def test_a_kill_ignores_failing_extensions(start, caplog):
    class Broken(DependencyProvider):
        def kill(self):
            raise RuntimeError("cannot even die")

    class Service:
        name = "service"
        broken = Broken()

    container = start(Service)
    container.kill()
    container.wait()
    assert "Extension raised `cannot even die` during kill" in caplog.text


def test_thread_locals_and_context_variables_do_not_leak_between_workers(start):
    import contextvars

    variable = contextvars.ContextVar("variable", default=None)

    class Service:
        name = "service"

        @dummy
        def method(self, value):
            before = variable.get()
            variable.set(value)
            return before

    container = start(Service, {MAX_WORKERS_CONFIG_KEY: 1})
    with entrypoint_hook(container, "method") as method:
        assert [method(1), method(2), method(3)] == [None, None, None]


class TestWorkerContext:
    @pytest.fixture
    def container(self):
        class Service:
            name = "service"

        return ServiceContainer(Service, {"parent_calls_tracked": 2})

    def test_call_ids_of_the_callers_are_kept(self, container):
        data = {"call_id_stack": ["a", "b", "c"], "language": "en"}
        ctx = WorkerContext(container, None, DummyProvider("method"), data=data)
        assert ctx.call_id.startswith("service.method.")
        assert ctx.call_id_stack == ["b", "c", ctx.call_id]
        assert ctx.origin_call_id == "a"
        assert ctx.immediate_parent_call_id == "c"
        assert ctx.data == {"language": "en"}
        assert ctx.context_data == {"language": "en", "call_id_stack": ctx.call_id_stack}

    def test_a_call_without_a_caller_has_no_parents(self, container):
        ctx = WorkerContext(container, None, DummyProvider("method"))
        assert ctx.origin_call_id is None
        assert ctx.immediate_parent_call_id is None
        assert ctx.call_id_stack == [ctx.call_id]

    def test_changes_of_context_data_apply_to_the_worker(self, container):
        ctx = WorkerContext(container, None, DummyProvider("method"), data={"a": 1})
        ctx.context_data["b"] = 2
        ctx.context_data.update(c=3)
        del ctx.context_data["a"]
        assert ctx.data == {"b": 2, "c": 3}

    def test_a_context_can_be_a_weak_key(self, container):
        import weakref

        ctx = WorkerContext(container, None, DummyProvider("method"))
        assert weakref.WeakKeyDictionary({ctx: 1})[ctx] == 1


def test_the_configuration_defaults_to_nameko_config():
    class Service:
        name = "service"

    with nameko.config.patch({"max_workers": 7}, clear=True):
        assert ServiceContainer(Service).max_workers == 7
    assert ServiceContainer(Service, {}).max_workers == 10


def test_a_process_patched_by_eventlet_does_not_start(start, monkeypatch):
    import _thread

    def start_new_thread():
        pass

    start_new_thread.__module__ = "eventlet.green.thread"
    monkeypatch.setattr(_thread, "start_new_thread", start_new_thread)

    class Service:
        name = "service"

    with pytest.raises(RuntimeError, match="remove the call to monkey_patch"):
        ServiceContainer(Service, {}).start()


def test_a_stopped_container_can_be_collected(config, uid):
    class Service:
        name = "service-" + uid
        itself = RpcProxy("service-" + uid)

        @rpc
        def method(self):
            return self.itself.other()

        @rpc
        def other(self):
            return "result"

    container = ServiceContainer(Service, config)
    container.start()
    with ClusterRpcProxy(config, timeout=10) as cluster:
        assert cluster[Service.name].method() == "result"
    container.stop()
    gone = [threading.Event() for _ in (container, *container.extensions)]
    for event, owned in zip(gone, (container, *container.extensions), strict=True):
        weakref.finalize(owned, event.set)
    del container, owned
    # Its threads are ending.
    deadline = time.monotonic() + 10
    while not all(event.is_set() for event in gone):
        assert time.monotonic() < deadline, "something still holds it"
        gc.collect()
