"""RPC requests for ``async def`` methods, which start on the loop if nothing may block before."""

import asyncio
import subprocess
import sys
import threading

import pytest
from python.tests.program import environment

from nameko.exceptions import IncorrectSignature, RemoteError
from nameko.extensions import DependencyProvider
from nameko.rpc import rpc


class Blocking(DependencyProvider):
    """A dependency that waits before the method."""

    def __init__(self, entered, leave):
        self.entered, self.leave = entered, leave

    def get_dependency(self, worker_ctx):
        self.entered.set()
        assert self.leave.wait(10)
        return threading.current_thread().name


def test_many_requests_are_answered_each_with_its_own_result(serve, cluster, uid):
    class Service:
        name = "service-" + uid

        @rpc
        async def echo(self, value):
            if value % 3 == 0:
                await asyncio.sleep(0)
            if value % 7 == 0:
                raise ValueError(value)
            return value

        @rpc
        def sync(self, value):
            return -value

    serve(Service)
    proxy = cluster[Service.name]
    replies = [
        (proxy.sync if value % 5 == 0 else proxy.echo).call_async(value) for value in range(300)
    ]
    for value, reply in enumerate(replies):
        if value % 5 == 0:
            assert reply.result() == -value
        elif value % 7 == 0:
            with pytest.raises(RemoteError, match="ValueError {}".format(value)):
                reply.result()
        else:
            assert reply.result() == value


def test_wrong_arguments_are_the_callers_error(serve, cluster, uid):
    class Service:
        name = "service-" + uid

        @rpc
        async def method(self, value):
            return value

    serve(Service)
    with pytest.raises(IncorrectSignature):
        cluster[Service.name].method()
    assert cluster[Service.name].method(1) == 1


def test_a_dependency_that_blocks_does_not_stop_the_loop(serve, cluster, uid):
    entered, leave = threading.Event(), threading.Event()

    class Slow:
        name = "slow-" + uid
        thread = Blocking(entered, leave)

        @rpc
        async def method(self):
            return self.thread

    class Quick:
        name = "quick-" + uid

        @rpc
        async def method(self):
            return threading.current_thread().name

    serve(Slow)
    serve(Quick)
    slow = cluster[Slow.name].method.call_async()
    assert entered.wait(10)
    assert cluster[Quick.name].method() == "nameko-loop"
    leave.set()
    assert slow.result().startswith(Slow.name + "-worker-")


def test_a_constructor_of_the_service_runs_on_a_worker_thread(serve, cluster, uid):
    class Service:
        name = "service-" + uid

        def __init__(self):
            self.thread = threading.current_thread().name

        @rpc
        async def method(self):
            return self.thread

    serve(Service)
    assert cluster[Service.name].method().startswith(Service.name + "-worker-")


def test_a_method_that_is_patched_while_running_takes_effect(serve, cluster, uid, monkeypatch):
    class Service:
        name = "service-" + uid

        @rpc
        async def method(self):
            return "original"

    serve(Service)
    assert cluster[Service.name].method() == "original"
    monkeypatch.setattr(Service, "method", lambda self: "patched")
    assert cluster[Service.name].method() == "patched"


def test_workers_are_limited_by_max_workers(serve, cluster, uid):
    class Service:
        name = "service-" + uid
        running = highest = 0

        @rpc
        async def method(self):
            cls = type(self)
            cls.running += 1
            cls.highest = max(cls.highest, cls.running)
            await asyncio.sleep(0.01)
            cls.running -= 1

    serve(Service, max_workers=3)
    replies = [cluster[Service.name].method.call_async() for _ in range(12)]
    for reply in replies:
        reply.result()
    assert Service.highest == 3


class Busy:
    """A service whose method blocks the loop until `leave` is set, and five requests behind it."""

    def __init__(self, serve, cluster, uid):
        self.leave = leave = threading.Event()
        arrived = threading.Event()

        class Service:
            name = "service-" + uid

            @rpc
            async def block(self):
                arrived.set()
                assert leave.wait(10)

            @rpc
            async def method(self, value):
                return value

        self.service_cls = Service
        self.container = serve(Service)
        proxy = cluster[Service.name]
        self.blocked = proxy.block.call_async()
        assert arrived.wait(10)
        self.replies = [proxy.method.call_async(value) for value in range(5)]


@pytest.fixture
def busy(serve, cluster, uid):
    return Busy(serve, cluster, uid)


def test_a_stop_answers_the_requests_that_have_arrived(serve, busy):
    stop = threading.Thread(target=busy.container.stop)
    stop.start()
    busy.leave.set()
    stop.join(20)
    assert not stop.is_alive()
    busy.blocked.result()
    answered = [reply.reply_event.ready() for reply in busy.replies]
    # Those behind them stay in the queue for the next instance.
    assert answered == sorted(answered, reverse=True)
    serve(busy.service_cls)
    assert [reply.result() for reply in busy.replies] == list(range(5))


def test_a_kill_requeues_the_requests_that_have_not_started(serve, busy):
    busy.container.kill()
    busy.leave.set()
    serve(busy.service_cls)
    assert [reply.result() for reply in busy.replies] == list(range(5))


def test_uvloop_is_used_where_it_is_installed(tmp_path):
    (tmp_path / "uvloop.py").write_text(
        "import asyncio\n"
        "class Loop(asyncio.SelectorEventLoop): pass\n"
        "def new_event_loop(): return Loop()\n"
    )
    program = "from nameko.loop import process_loop; print(type(process_loop()).__module__)"
    env = environment()
    for path, expected in ((str(tmp_path) + ":", "uvloop"), ("", "asyncio.unix_events")):
        printed = subprocess.run(
            [sys.executable, "-c", program],
            env={**env, "PYTHONPATH": path + env["PYTHONPATH"]},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        assert printed.strip() == expected
