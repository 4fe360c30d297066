"""The threads of a container, and the limit on how many workers run at once."""

from __future__ import annotations

import contextvars
import itertools
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from typing import Any

from nameko import loop
from nameko._nameko import Jobs
from nameko.exceptions import ContainerBeingKilled
from nameko.utils.threads import Event, ThreadKilled, raise_in_thread

# Per thread: the handle of the worker it runs, and the workers that the message it handles spawned.
_current = threading.local()


class WorkerThread:
    """One worker's run on one of the pool's threads, with the handle of a thread of its own."""

    __slots__ = ("_event", "_future", "_links", "_outcome", "exc", "ident", "killed", "over")

    def __init__(self) -> None:
        # The thread it runs on; None before it begins.
        self.ident: int | None = None
        self.over = False
        self.killed = False
        # What ended it other than returning.
        self.exc: BaseException | None = None
        # The coroutine it waits for, if it is in one.
        self._future: Any = None
        self._event: Event | None = None
        self._links: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    @property
    def dead(self) -> bool:
        return self.over

    def wait(self) -> None:
        """Wait until the worker is over; raises what ended it."""
        with _kill_lock:
            if not self.over and self._event is None:
                self._event = Event()
        if self._event is not None and not self.over:
            self._event.wait()
        if self.exc is not None:
            raise self.exc

    def link(self, callback: Callable[..., Any], *args: Any) -> None:
        """Call ``callback(handle, *args)`` when the worker is over."""
        with _kill_lock:
            self._links.append((callback, args))
        if self.over:
            self._tell()

    def kill(self, *exc: Any) -> None:
        """Raise :class:`ThreadKilled` in the worker as soon as Python can; do not wait for it."""
        with _kill_lock:
            self.killed = True
            if self.over or self.ident is None:
                return
            future = self._future
            if future is None:
                raise_in_thread(self.ident, ThreadKilled)
        if future is not None:
            future.cancel()

    def finish(self, exc: BaseException | None) -> None:
        """Note the end. Called once, on the thread that ran it."""
        self.exc = exc
        self.over = True
        if self.killed:
            with _kill_lock:
                # An exception on its way must not hit what this thread does next.
                raise_in_thread(threading.get_ident(), None)
        if self._event is not None or self._links:
            self._tell()

    def _tell(self) -> None:
        with _kill_lock:
            links, self._links = self._links, []
        if self._event is not None:
            self._event.send(None, self.exc)
        for callback, args in links:
            callback(self, *args)


# Keeps a kill from hitting a thread whose worker is already over.
_kill_lock = threading.Lock()


class WorkerPool:
    """Runs what a container consumes: messages, and the workers that they spawn.

    A message is handled as one job on one thread. A worker that is spawned while its message is
    handled runs on the same thread right after, if one of the ``size`` slots is free; if none is,
    it waits for one without holding up the thread. A worker spawned from anywhere else makes its
    spawner wait for the slot. So at most ``size`` workers run at once, and messages that need no
    worker never wait for one.
    """

    def __init__(
        self,
        size: int,
        max_threads: int,
        name: str,
        run: Callable[[Any], None],
        begun: Callable[[WorkerThread, Any], None],
        done: Callable[[WorkerThread, Any], None],
    ) -> None:
        self.size = size
        self._max_threads = max_threads
        self._name = name
        # What a worker does: run(worker), in a context of its own.
        self._run = run
        # Called with its handle when a worker has its slot, and when it is over.
        self._begun = begun
        self._done = done
        self._numbers = itertools.count(1)
        self._made: Jobs | None = None
        self._discarded = False
        # Guards all below.
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._free = size
        # Jobs begun and not over.
        self._active = 0
        # Threads in waitall().
        self._drainers = 0
        # Sent when the queue has come to where a thread in waitall() left its mark.
        self._marks: list[Event] = []
        # Workers and spawners that wait for a slot, first come first served.
        self._waiting: deque[Any] = deque()

    @property
    def jobs(self) -> Jobs:
        """The queue that the compiled half feeds; made when it is first needed."""
        if self._made is None:
            with self._lock:
                if self._made is None:
                    self._made = Jobs(self._max_threads, self._spawn_thread)
                    if self._discarded:
                        self._made.stop(discard=True)
        return self._made

    def free(self) -> int:
        """How many more workers could run."""
        return self._free

    def running(self) -> int:
        """How many workers run."""
        return self.size - self._free

    def waitall(self) -> None:
        """Wait until no worker runs and no message waits to be handled."""
        while True:
            with self._idle:
                self._drainers += 1
                try:
                    self._idle.wait_for(self._is_idle)
                finally:
                    self._drainers -= 1
                jobs = self._made
            if jobs is None or self._discarded or not jobs.unfinished():
                return
            # Something is in the queue, or was taken from it just now: look again behind it.
            if not self._wait_for_mark(jobs):
                return

    def _wait_for_mark(self, jobs: Jobs) -> bool:
        """False where the queue has been ended by somebody else."""
        mark = Event()
        with self._lock:
            if self._discarded:
                return False
            self._marks.append(mark)
        try:
            jobs.put(mark.send)
            mark.wait()
            return True
        except RuntimeError:
            return False
        finally:
            with self._lock:
                self._marks.remove(mark)

    def stop(self, discard: bool = False) -> None:
        """End the threads: when the queue is empty, or at once, giving queued messages back."""
        self._discarded = self._discarded or discard
        if discard:
            with self._lock:
                for waiting in self._waiting:
                    if isinstance(waiting, threading.Event):
                        waiting.set()
                self._waiting.clear()
                self._idle.notify_all()
                marks = list(self._marks)
            # The queue drops them, and with them its way to tell.
            for mark in marks:
                mark.send()
        if self._made is not None:
            self._made.stop(discard=discard)

    def handle(self, handler: Callable[..., Any], *args: Any) -> None:
        """Handle a message: the job that a delivery becomes."""
        with self._lock:
            self._active += 1
        spawned: list[Any] = []
        _current.spawned = (self, spawned)
        try:
            handler(*args)
        finally:
            _current.spawned = None
            for worker in spawned:
                self._begin_or_wait(worker)
            with self._lock:
                self._active -= 1
                self._tell_if_idle()

    def spawn(self, worker: Any) -> None:
        """Have ``run(worker)`` called on a thread of the pool, once a slot is free.

        ContainerBeingKilled where the pool is stopped meanwhile.
        """
        message = getattr(_current, "spawned", None)
        if message is not None and message[0] is self:
            message[1].append(worker)
            return
        with self._lock:
            taken = self._free > 0
            if taken:
                self._free -= 1
            else:
                spawner = threading.Event()
                self._waiting.append(spawner)
        if not taken:
            try:
                spawner.wait()
            except BaseException:
                self._leave_queue(spawner)
                raise
        if self._discarded:
            raise ContainerBeingKilled()
        handle = WorkerThread()
        self._begun(handle, worker)
        self.jobs.put(lambda: self._run_job(handle, worker))

    def _leave_queue(self, spawner: threading.Event) -> None:
        with self._lock:
            if spawner in self._waiting:
                self._waiting.remove(spawner)
                return
        self._continue()

    def _run_job(self, handle: WorkerThread, worker: Any) -> None:
        with self._lock:
            self._active += 1
        try:
            self._run_one(handle, worker)
            self._continue()
        finally:
            with self._lock:
                self._active -= 1
                self._tell_if_idle()

    def _begin_or_wait(self, worker: Any) -> None:
        with self._lock:
            if self._discarded:
                return
            if not self._free:
                self._waiting.append(worker)
                return
            self._free -= 1
        handle = WorkerThread()
        self._begun(handle, worker)
        self._run_one(handle, worker)
        self._continue()

    def _continue(self) -> None:
        """Pass this thread's slot on, or give it back. Runs the waiting workers on the way."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._free += 1
                    self._tell_if_idle()
                    return
                following = self._waiting.popleft()
            if isinstance(following, threading.Event):
                following.set()
                return
            handle = WorkerThread()
            self._begun(handle, following)
            self._run_one(handle, following)

    def _run_one(self, handle: WorkerThread, worker: Any) -> None:
        handle.ident = threading.get_ident()
        _current.handle = handle
        failure = None
        try:
            try:
                if handle.killed:
                    raise ThreadKilled()
                contextvars.Context().run(self._run, worker)
            except BaseException as exc:
                failure = exc
            _current.handle = None
            handle.finish(failure)
        except ThreadKilled:
            # Killed just as it ended.
            _current.handle = None
            handle.finish(failure)
        self._done(handle, worker)

    def _tell_if_idle(self) -> None:
        if self._drainers and self._is_idle():
            self._idle.notify_all()

    def _is_idle(self) -> bool:
        return self._discarded or (
            not self._active and self._free == self.size and not self._waiting
        )

    def _spawn_thread(self) -> None:
        threading.Thread(
            target=self._serve,
            name="{}-worker-{}".format(self._name, next(self._numbers)),
            daemon=True,
        ).start()

    def _serve(self) -> None:
        try:
            self.jobs.run()
        except ThreadKilled:
            pass


class _Submitting:
    """Stands for the future of a coroutine that is just being submitted."""

    def cancel(self) -> None:
        """Left to who submits it."""


def finish_coroutine(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a worker's coroutine on the process's loop and wait for its result."""
    handle: WorkerThread | None = getattr(_current, "handle", None)
    if handle is None:
        return loop.submit(coroutine).result()
    handle._future = _Submitting()
    try:
        future = handle._future = loop.submit(coroutine)
        if handle.killed:
            future.cancel()
        return future.result()
    except CancelledError:
        if handle.killed:
            raise ThreadKilled()
        raise
    finally:
        handle._future = None
