"""Timers."""

import logging
import threading
import time
from decimal import Decimal
from fractions import Fraction

import pytest

from nameko import timer as timer_module
from nameko.containers import ServiceContainer
from nameko.exceptions import ConfigurationError
from nameko.testing.services import entrypoint_hook, entrypoint_waiter
from nameko.testing.utils import get_extension
from nameko.timer import Timer, timer


@pytest.fixture
def run():
    """``run(cls, **config)`` starts a container without a broker. Killed after the test."""
    containers = []

    def start(service_cls, **config):
        container = ServiceContainer(service_cls, config)
        containers.append(container)
        container.start()
        return container

    yield start
    for container in containers:
        container.kill()


class Clock:
    """A clock that advances only while a timer waits, or by a test."""

    def __init__(self, end):
        self.now = 100.0
        self.end = self.now + end
        self.over = threading.Event()

    def monotonic(self):
        return self.now

    def wait(self, seconds):
        """Replaces a timer's ``should_stop.wait``; true at the end of the test's time."""
        assert seconds >= 0
        self.now += seconds
        if self.now >= self.end:
            self.over.set()
            return True
        return False

    def set(self):
        self.end = self.now


@pytest.fixture
def ticks(monkeypatch):
    """``ticks(seconds, durations, interval, **options)`` returns the times of the ticks within
    ``seconds``. ``durations`` are those of the first workers, others take no time."""

    def run_timer(seconds, durations, *args, **kwargs):
        clock, times, takes = Clock(seconds), [], iter(durations)
        monkeypatch.setattr(timer_module, "monotonic", clock.monotonic)

        class Service:
            name = "service"

            @timer(*args, **kwargs)
            def tick(self):
                times.append(round(clock.now - 100, 6))
                clock.now += next(takes, 0)

        container = ServiceContainer(Service, {})
        get_extension(container, Timer).should_stop = clock
        container.start()
        assert clock.over.wait(10)
        container.stop()
        return times

    return run_timer


class TestSchedule:
    def test_the_first_tick_is_after_an_interval(self, ticks):
        assert ticks(3.5, [], 1) == [1, 2, 3]

    def test_an_eager_timer_ticks_at_once(self, ticks):
        assert ticks(3.5, [], interval=1, eager=True) == [0, 1, 2, 3]

    def test_the_duration_of_workers_does_not_accumulate(self, ticks):
        assert ticks(4.5, [0.9, 0.2, 0.5], 1) == [1, 2, 3, 4]

    def test_overdue_ticks_follow_without_a_pause(self, ticks):
        assert ticks(6.5, [3.5], 1) == [1, 4.5, 4.5, 4.5, 5, 6]
        assert ticks(4.5, [2.5], 1, eager=True) == [0, 2.5, 2.5, 3, 4]


def test_a_tick_waits_for_the_previous_worker(run):
    go, began, running = threading.Event(), threading.Semaphore(0), []

    class Service:
        name = "service"

        @timer(0, eager=True)
        def tick(self):
            running.append(1)
            assert len(running) == 1
            began.release()
            go.wait(10)
            running.pop()

    run(Service)
    assert began.acquire(timeout=10)
    go.set()
    for _ in range(5):
        assert began.acquire(timeout=10)


def test_a_stop_does_not_wait_for_the_interval(run):
    class Service:
        name = "service"

        @timer(3600)
        def tick(self):
            raise AssertionError("never")

    container = run(Service)
    stopper = threading.Thread(target=container.stop, daemon=True)
    stopper.start()
    stopper.join(10)
    assert not stopper.is_alive()


def test_a_stop_waits_for_the_worker(run):
    began, go, log = threading.Event(), threading.Event(), []

    class Service:
        name = "service"

        @timer(0)
        def tick(self):
            began.set()
            go.wait(10)
            log.append("tick")

    container = run(Service)
    assert began.wait(10)
    stopper = threading.Thread(target=lambda: (container.stop(), log.append("stopped")))
    stopper.start()
    go.set()
    stopper.join(10)
    assert log == ["tick", "stopped"]


@pytest.mark.parametrize("interval", [0, 3600])
def test_a_kill_ends_a_timer_at_once(run, interval):
    began, go, ended = threading.Event(), threading.Event(), threading.Event()

    class WatchedTimer(Timer):
        def _run(self):
            try:
                super()._run()
            finally:
                ended.set()

    class Service:
        name = "service"

        @WatchedTimer.decorator(interval, eager=True)
        def tick(self):
            began.set()
            go.wait(10)

    container = run(Service)
    assert began.wait(10)
    before = time.monotonic()
    container.kill()
    assert ended.wait(10)
    assert time.monotonic() - before < 0.9  # killing a thread that cannot be woken takes a second
    go.set()


@pytest.mark.parametrize(
    "interval", [Fraction(1, 1000), Decimal("0.001"), True, 0.001, 0], ids=repr
)
def test_an_interval_is_any_real_number(run, interval):
    ticked = threading.Event()

    class Service:
        name = "service"

        @timer(interval)
        def tick(self):
            ticked.set()

    run(Service)
    assert ticked.wait(10)


@pytest.mark.parametrize("hook", ["setup", "start"])
def test_a_subclass_may_set_the_interval_before_it_starts(run, hook):
    ticked = threading.Event()

    class Configured(Timer):
        def __init__(self, **kwargs):
            super().__init__(None, **kwargs)

        def setup(self):
            super().setup()
            if hook == "setup":
                self.interval = self.container.config["INTERVAL"]

        def start(self):
            if hook == "start":
                self.interval = self.container.config["INTERVAL"]
            super().start()

    class Service:
        name = "service"

        @Configured.decorator()
        def tick(self):
            ticked.set()

    run(Service, INTERVAL=0.001)
    assert ticked.wait(10)


def test_a_failing_worker_does_not_stop_a_timer(run, caplog):
    third = threading.Event()
    numbers = iter(range(100))

    class Expected(Exception):
        pass

    class Service:
        name = "service"

        @timer(0, expected_exceptions=Expected)
        def tick(self):
            number = next(numbers)
            if number == 0:
                raise ValueError("boom")
            if number == 1:
                raise Expected("expected boom")
            third.set()

    with caplog.at_level(logging.WARNING):
        container = run(Service)
        assert third.wait(10)
        container.stop()
    assert [(record.levelname, str(record.args[1])) for record in caplog.records] == [
        ("ERROR", "boom"),
        ("WARNING", "expected boom"),
    ]


def test_methods_may_be_coroutines(run):
    ticks = threading.Semaphore(0)

    class Service:
        name = "service"

        @timer(0)
        async def tick(self):
            assert threading.current_thread().name == "nameko-loop"
            ticks.release()

    container = run(Service)
    for _ in range(3):
        assert ticks.acquire(timeout=10)
    container.stop()


def test_a_method_can_be_called_by_a_hook_without_waiting(run):
    class Service:
        name = "service"

        @timer(3600)
        def tick(self):
            return "tick"

    with entrypoint_hook(run(Service), "tick") as tick:
        assert tick() == "tick"


def test_ticks_can_be_waited_for(run):
    class Service:
        name = "service"

        @timer(0.01)
        def tick(self):
            return "tick"

    with entrypoint_waiter(run(Service), "tick") as result:
        pass
    assert result.get() == "tick"


def test_a_container_that_never_started_can_be_stopped():
    class Service:
        name = "service"

        @timer(1)
        def tick(self):
            pass

    ServiceContainer(Service, {}).stop()
    ServiceContainer(Service, {}).kill()


@pytest.mark.parametrize("interval", ["5", None, -1, float("nan"), float("inf")])
def test_an_invalid_interval_is_an_error(run, interval):
    class Service:
        name = "service"

        @timer(interval)
        def tick(self):
            pass

    with pytest.raises(ConfigurationError, match=r"`service\.tick` is a number of seconds, not"):
        run(Service)
