"""Killed threads release their locks and end."""

import contextlib
import io
import logging
import queue
import subprocess
import sys
import threading
import time
import weakref

import pytest

from nameko.utils import threads
from nameko.utils.threads import ManagedThread, ThreadKilled


@pytest.fixture
def logger():
    logger = logging.Logger("killed")
    logger.addHandler(logging.StreamHandler(io.StringIO()))
    return logger


def kill_all(count, body, together=1):
    """Kills ``count`` threads that run ``body`` in a loop, several at a time."""
    for _ in range(0, count, together):
        begun = threading.Semaphore(0)
        killed = [ManagedThread(again_and_again(begun, body)).start() for _ in range(together)]
        for _ in killed:
            assert begun.acquire(timeout=10)
        for thread in killed:
            thread.interrupt()
        for thread in killed:
            with pytest.raises(ThreadKilled):
                thread.wait(50)


def again_and_again(begun, body):
    def run():
        begun.release()
        while True:
            body()

    return run


@pytest.mark.parametrize(("together", "pause"), [(1, None), (20, 0.001)])
def test_a_killed_thread_that_logs_leaves_no_lock_behind(logger, together, pause):
    def body():
        logger.warning("still here")
        if pause is not None:
            time.sleep(pause)

    kill_all(200 if pause is None else 2000, body, together)
    lock = logger.handlers[0].lock
    assert lock.acquire(timeout=1), lock
    lock.release()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_thread_killed_in_the_callback_of_a_weak_reference_ends():
    # Python drops exceptions that leave such a callback.
    entered = threading.Event()

    def run():
        thing = threading.Event()
        reference = weakref.ref(thing, lambda _: (entered.set(), time.sleep(0.1)))
        del thing
        while reference() is None:
            time.sleep(0.01)

    thread = ManagedThread(run).start()
    assert entered.wait(10)
    thread.interrupt()
    with pytest.raises(ThreadKilled):
        thread.wait(30)


def test_a_killed_thread_finishes_its_cleanup():
    cleaned = []

    def body():
        try:
            time.sleep(0.01)
        finally:
            if sys.exc_info()[0] is ThreadKilled:
                # Longer than the delay of the check whether the thread ended.
                time.sleep(threads.INTERRUPT_CHECK_DELAY * 2)
                cleaned.append(threading.get_ident())

    kill_all(2, body, together=2)
    assert len(cleaned) == 2


# The deadlock that it looks for cannot be interrupted, so it runs in a process of its own.
KILLS_AMONG_FINALIZERS = """
import gc, threading, time
from nameko.utils.threads import ManagedThread, ThreadKilled

class Cycle:
    def __init__(self):
        self.itself = self
    def __del__(self):
        time.sleep(0)  # releases the GIL

def start_threads():
    while True:
        threading.Thread(target=time.sleep, args=(0,)).start()

def wait(begun):
    begun.set()
    while True:
        time.sleep(0.001)

for _ in range(40):
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
for _ in range(3):
    threading.Thread(target=start_threads, daemon=True).start()
gc.set_threshold(20)
for _ in range(300):
    begun = threading.Event()
    thread = ManagedThread(lambda: wait(begun)).start()
    begun.wait()
    cycles = [Cycle() for _ in range(5)]
    del cycles
    thread.interrupt()
    try:
        thread.wait(50)
    except ThreadKilled:
        pass
print("done", flush=True)
import os; os._exit(0)
"""


def test_kills_among_finalizers_and_new_threads_do_not_deadlock():
    output = subprocess.run(
        [sys.executable, "-c", KILLS_AMONG_FINALIZERS], timeout=55, capture_output=True, text=True
    )
    assert (output.stdout, output.stderr) == ("done\n", "")


def test_a_killed_thread_that_uses_queues_and_locks_leaves_none_behind():
    items, lock, by_hand = queue.Queue(), threading.Condition(), threading.Lock()

    @contextlib.contextmanager
    def held():
        by_hand.acquire()
        try:
            yield
        finally:
            by_hand.release()

    def body():
        items.put(1)
        items.get()
        with lock:
            lock.notify()
        with held():
            time.sleep(0.0001)

    kill_all(500, body, together=5)
    assert items.mutex.acquire(timeout=1)
    assert lock.acquire(timeout=1)
    assert by_hand.acquire(timeout=1)


# Without exception tables, a wait in a function that acquires a lock is not interrupted.
needs_exception_tables = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="needs the exception tables of 3.11"
)


@pytest.mark.parametrize(
    "body",
    [
        lambda: time.sleep(0.01),
        pytest.param(lambda: threading.Event().wait(0.01), marks=needs_exception_tables),
        pytest.param(
            lambda: threading.Semaphore(0).acquire(timeout=0.01), marks=needs_exception_tables
        ),
        lambda: None,
    ],
)
def test_a_thread_that_waits_repeatedly_is_killed_soon(body):
    kill_all(20, body)
