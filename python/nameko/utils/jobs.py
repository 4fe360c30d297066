"""The loop of a worker thread.

It is written in Python, although the queue is compiled, so that no job runs below a compiled frame:
such a frame does not survive the end of the interpreter, which unwinds the stacks of its threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from nameko._nameko import Jobs
from nameko.utils import green

# Seconds between two looks into a queue in a process without real threads.
POLL_INTERVAL = 0.05


def run_jobs(jobs: Jobs) -> None:
    """Runs the jobs of a queue on this thread until the queue is stopped.

    An exception of a job goes to ``sys.unraisablehook``.
    """
    runner = iter(jobs)
    ended = False
    while not ended:
        try:
            for function, argument in runner:
                function(argument)
                # A waiting thread keeps nothing of its last job alive.
                del function, argument
            ended = True
        except BaseException as exc:
            runner.failed(function, exc)
            del function, argument


def apply(call: tuple[Callable[..., object], Iterable[Any]]) -> None:
    """Calls a function with any number of arguments."""
    function, arguments = call
    function(*arguments)


def spawn_callbacks(jobs: Jobs) -> threading.Thread:
    """Starts the thread that runs the callbacks of the compiled half."""
    # A greenlet must not block in the compiled half.
    target = run_jobs if green.library() is None else _poll_jobs
    thread = threading.Thread(target=target, args=(jobs,), name="nameko-callbacks", daemon=True)
    thread.start()
    return thread


def _poll_jobs(jobs: Jobs) -> None:
    """Like :func:`run_jobs`, without ever blocking in the compiled half."""
    runner = iter(jobs)
    while True:
        time.sleep(POLL_INTERVAL)
        while jobs.pending() or jobs.stopped:
            try:
                function, argument = next(runner)
            except StopIteration:
                return
            try:
                function(argument)
            except BaseException as exc:
                runner.failed(function, exc)
