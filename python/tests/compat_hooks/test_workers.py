"""Workers and their contexts, as used by extensions."""

import contextvars
import gc
import sqlite3
import threading
import time
import weakref

from nameko.extensions import DependencyProvider, Entrypoint
from nameko.rpc import RpcProxy, rpc
from nameko.testing.services import dummy, entrypoint_hook
from nameko.testing.utils import get_extension


class TestWorkers:
    def test_a_context_is_a_weak_key(self, serve, uid):
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

    def test_data_can_be_changed_and_the_call_id_stack_is_a_copy(self, serve, cluster, uid):
        class Editing(DependencyProvider):
            def worker_setup(self, worker_ctx):
                worker_ctx.data["added"] = worker_ctx.entrypoint.method_name
                # As in nameko-amqp-retry, for a header.
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

    def test_running_workers_can_be_counted(self, serve, uid):
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

    def test_running_workers_can_be_iterated_while_they_change(self, serve, uid):
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

    def test_the_current_frame_of_a_worker_is_available(self, serve, uid):
        """nameko-chassis shows it on a status page."""
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
        """SQLite refuses the connection of another thread, and `:memory:` is empty there."""
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


def test_a_dependency_may_add_rpc_methods(serve, cluster, uid):
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
