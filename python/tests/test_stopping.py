"""Stops during a start, and stops that are delayed."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from program import TERM, TIMEOUT, Program
from stalling import STAGES, StallingBroker

from nameko.containers import ServiceContainer
from nameko.events import EventDispatcher
from nameko.extensions import DependencyProvider
from nameko.rpc import RpcConsumer, RpcProxy, rpc
from nameko.runners import ServiceRunner
from nameko.utils.threads import spawn

# Seconds that a stop of an idle service may take. With work in progress the limit is 30.
SOON = 10


@pytest.fixture
def make(config, uid):
    """A container of a service that is called and calls others."""
    containers = []

    def make(uri=None, **attributes):
        class Service:
            name = "service-" + uid
            other = RpcProxy("other")

            @rpc
            def method(self):
                return 1

        for name, value in attributes.items():
            setattr(Service, name, value)
        container = ServiceContainer(Service, {**config, "AMQP_URI": uri or config["AMQP_URI"]})
        containers.append(container)
        return container

    yield make
    for container in containers:
        container.kill()


class Recorder(DependencyProvider):
    """Records the calls of its methods in ``seen``."""

    def __init__(self, seen, **actions):
        self.seen = seen
        # Functions that setup(), start() and stop() call before they return.
        self.actions = actions

    def _do(self, name):
        if name in self.actions:
            self.actions[name](self)
        self.seen.append(name)

    def setup(self):
        self._do("setup")

    def start(self):
        self._do("start")

    def stop(self):
        self._do("stop")

    def kill(self):
        self.seen.append("kill")


class TestDuringAStart:
    def test_a_service_stops_during_its_setup(self, make, monkeypatch):
        # The request queue is registered after the methods, and after their stop.
        set_up, stopping = RpcConsumer.setup, []

        def setup(self):
            stopping.append(spawn(container.stop))
            with pytest.raises(TimeoutError):
                stopping[0].wait(0.2)
            set_up(self)

        monkeypatch.setattr(RpcConsumer, "setup", setup)
        container = make()
        spawn(container.start).wait(SOON)
        stopping[0].wait(SOON)
        container.wait()

    @pytest.mark.parametrize(
        ("during", "calls"),
        [("setup", ["setup", "stop"]), ("start", ["setup", "start", "stop"])],
    )
    def test_an_extension_is_stopped_after_its_setup_and_start(self, make, during, calls):
        seen, stopping = [], []

        def stop(extension):
            stopping.append(spawn(extension.container.stop))
            with pytest.raises(TimeoutError):
                stopping[0].wait(0.1)

        make(recorder=Recorder(seen, **{during: stop})).start()
        stopping[0].wait(SOON)
        assert seen == calls

    def test_an_extension_with_an_endless_start_is_stopped(self, make):
        seen, starting, never = [], threading.Event(), threading.Event()

        def start(extension):
            starting.set()
            never.wait(TIMEOUT)

        container = make(recorder=Recorder(seen, start=start))
        spawn(container.start)
        assert starting.wait(SOON)
        container.stop()
        assert seen == ["setup", "stop"]
        never.set()

    def test_an_extension_killed_during_its_start_is_killed_again_after_it(self, make):
        seen = []
        container = make(recorder=Recorder(seen, start=lambda extension: container.kill()))
        container.start()
        assert seen == ["setup", "kill", "start", "kill"]

    def test_a_failing_start_is_raised_while_others_wait_for_the_broker(self, make):
        def fail(extension):
            raise ValueError("no database")

        container = make("amqp://127.0.0.1:1", recorder=Recorder([], start=fail))
        with pytest.raises(ValueError, match="no database"):
            spawn(container.start).wait(SOON)

    def test_a_failing_service_is_raised_while_others_wait_for_the_broker(self, make):
        class Broken:
            name = "broken"
            recorder = Recorder([], setup=lambda extension: 1 / 0)

        runner = ServiceRunner({"AMQP_URI": "amqp://127.0.0.1:1"})
        runner.add_service(make().service_cls)
        runner.add_service(Broken)
        with pytest.raises(ZeroDivisionError):
            spawn(runner.start).wait(SOON)
        runner.kill()

    def test_a_stop_ends_the_wait_of_a_publisher_for_a_broker_that_does_not_answer(
        self, config, make
    ):
        with StallingBroker(config["AMQP_URI"], "exchange.declare") as broker:
            container = make(broker.uri, dispatch=EventDispatcher())
            starting = spawn(container.start)
            assert broker.stalled.wait(SOON)
            spawn(container.stop).wait(SOON)
            container.wait()
            starting.wait(SOON)

    def test_concurrent_stops_stop_each_extension_once(self, make):
        seen, go = [], threading.Event()
        container = make(recorder=Recorder(seen, stop=lambda each: go.wait(SOON)))
        container.start()
        first, second = spawn(container.stop), spawn(container.stop)
        with pytest.raises(TimeoutError):
            second.wait(0.1)
        go.set()
        first.wait(SOON)
        second.wait(SOON)
        assert seen == ["setup", "start", "stop"]

    def test_an_extension_stopped_before_its_start_is_not_started(self, make):
        seen = []
        container = make(recorder=Recorder(seen))
        container.stop()
        container.start()
        assert seen == ["stop"]


def test_a_broker_that_stops_answering_does_not_delay_a_stop(config, make):
    """After any last request. All services stop concurrently, because most stops wait seconds."""

    def stop(stage):
        with StallingBroker(config["AMQP_URI"], stage) as broker:
            container = make(broker.uri)
            starting = spawn(container.start)
            if stage == "basic.cancel":
                starting.wait(SOON)
            else:
                assert broker.stalled.wait(SOON)
            spawn(container.stop).wait(SOON)
            starting.wait(SOON)
            assert broker.stalled.is_set()

    with ThreadPoolExecutor(len(STAGES)) as pool:
        stops = {stage: pool.submit(stop, stage) for stage in STAGES}
    assert {stage: stop.exception() for stage, stop in stops.items() if stop.exception()} == {}


class TestRun:
    """Stops of ``nameko run``."""

    def test_a_signal_during_a_start_stops_the_service(self, folder, broker_uri):
        folder.write("waits.py", SETS_UP_SLOWLY)
        with Program("run", "waits", "--broker", broker_uri, cwd=folder.path) as program:
            program.wait_for("setting up")
            program.signal(TERM)
            program.wait_for("shutting down (press Ctrl-C again to force)")
            folder.path.joinpath("go").touch()
            program.wait_for("stopped")
            assert program.wait() == 0
        assert "cleaned up" in "".join(program.seen)
        assert "ready at" not in "".join(program.seen)

    def test_a_signal_ends_an_endless_start(self, folder, broker_uri):
        folder.write("waits.py", SETS_UP_SLOWLY)
        arguments = ("run", "waits", "--broker", broker_uri, "-dstop_timeout=0.5")
        with Program(*arguments, cwd=folder.path) as program:
            program.wait_for("setting up")
            program.signal(TERM)
            program.wait_for("not stopped within 0.5 seconds")
            assert program.wait() == 0

    def test_a_second_signal_ends_an_endless_start_at_once(self, folder, broker_uri):
        folder.write("waits.py", SETS_UP_SLOWLY)
        with Program("run", "waits", "--broker", broker_uri, cwd=folder.path) as program:
            program.wait_for("setting up")
            program.signal(TERM)
            program.wait_for("shutting down (press Ctrl-C again to force)")
            program.signal(TERM)
            assert program.wait() == 128 + TERM


SETS_UP_SLOWLY = """
    import os, time
    from nameko.extensions import DependencyProvider
    from nameko.rpc import rpc

    class Slow(DependencyProvider):
        def setup(self):
            print("setting up", flush=True)
            while not os.path.exists("go"):
                time.sleep(0.01)
            self.is_set_up = True

        def stop(self):
            assert self.is_set_up
            print("cleaned up", flush=True)

    class Service:
        name = "service_{uid}"
        slow = Slow()

        @rpc
        def method(self):
            pass
"""
