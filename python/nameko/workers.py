"""The threads of a container, and the limit on how many workers run at once."""

from __future__ import annotations

import contextvars
import itertools
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from types import FrameType
from typing import Any, TypeVar

from nameko import loop
from nameko._nameko import Jobs, interrupt
from nameko.exceptions import ContainerBeingKilled
from nameko.utils.threads import Event, ThreadKilled, clear_pending_exc, retry_interrupt
from nameko.utils.threads import current as _current

# Per thread: `message`, the message that it handles.

F = TypeVar("F", bound=Callable[..., Any])


def nonblocking(handle_message: F) -> F:
    """Say of an entrypoint's ``handle_message`` or ``handle_request``, or of what calls it, that
    the worker it spawned may begin when it returns: it returns at once, or waits for nothing but an
    :class:`Event`. The workers of any other run on other threads.

    Of a ``handle_result``: that it returns at once, where what it relies on does.
    """
    handle_message.nonblocking = True  # type: ignore[attr-defined]
    return handle_message


def is_nonblocking(handler: Any) -> bool:
    """Whether its ``handle_message``, or a web entrypoint's ``handle_request``, is one that was
    said to be :func:`nonblocking`."""
    handle = getattr(handler, "handle_message", None) or getattr(handler, "handle_request", None)
    return getattr(handle, "nonblocking", None) is True


def handle_result_is_nonblocking(handler: Any) -> bool:
    """Whether its ``handle_result`` is one that was said to be :func:`nonblocking`."""
    return getattr(getattr(handler, "handle_result", None), "nonblocking", None) is True


def offload() -> None:
    """Have other threads run what is spawned by the message that this thread handles."""
    context: _MessageContext | None = getattr(_current, "message", None)
    if context is not None:
        context.offload()


class WorkerThread:
    """One worker's run on one of the pool's threads, with the handle of a thread of its own."""

    # The thread it runs on; None before it begins, and while it is a coroutine.
    ident: int | None = None
    over = False
    killed = False
    # What ended it other than returning.
    exc: BaseException | None = None
    # The coroutine, while it is one.
    _coroutine: loop.CoroutineRun | None = None
    _event: Event | None = None
    # Made when the first is added.
    _links: list[tuple[Callable[..., Any], tuple[Any, ...]]] | None = None

    @property
    def dead(self) -> bool:
        return self.over

    @property
    def gr_frame(self) -> FrameType | None:
        """The frame that it runs now, as a greenlet has it; None before it begins and after."""
        if self.over or self.ident is None:
            return None
        return sys._current_frames().get(self.ident)

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
            if self._links is None:
                self._links = []
            self._links.append((callback, args))
        if self.over:
            self._notify()

    def kill(self, *exc: Any) -> None:
        """Raise :class:`ThreadKilled` in the worker as soon as that can be done, and does no harm;
        do not wait for it."""
        with _kill_lock:
            first, self.killed = not self.killed, True
            coroutine = self._coroutine
        if coroutine is not None:
            coroutine.cancel()
        elif first:
            retry_interrupt(self._try_to_interrupt)

    def _try_to_interrupt(self) -> bool:
        with _kill_lock:
            return self.over or self.ident is None or interrupt(self.ident, ThreadKilled)

    def finish(self, exc: BaseException | None) -> None:
        """Note the end. Called once, on the thread that ran it."""
        self.exc = exc
        self.over = True
        if self.killed:
            with _kill_lock:
                # An exception on its way must not hit what this thread does next.
                clear_pending_exc(threading.get_ident())
        if self._event is not None or self._links is not None:
            self._notify()

    def _notify(self) -> None:
        with _kill_lock:
            links, self._links = self._links, None
        if self._event is not None:
            self._event.send(None, self.exc)
        for callback, args in links or ():
            callback(self, *args)


# Keeps a kill from hitting a thread whose worker is already over.
_kill_lock = threading.Lock()


class WorkerPool:
    """Runs what a container consumes: messages, and the workers that they spawn.

    A message is handled as one job on one thread. A worker that is spawned while its message is
    handled runs on the same thread, when the handler has returned or when it waits for an
    :class:`Event`, if one of the ``size`` slots is free; if none is, it waits for one without
    holding up the thread. The workers of a handler that is not known to come to that (see
    :func:`nonblocking`) run on other threads. A worker spawned from anywhere else makes its spawner
    wait for the slot. So at most ``size`` workers run at once, and messages that need no worker
    never wait for one.

    A worker that becomes a coroutine keeps its slot but no thread. What is left to do when the
    coroutine has ended is done on a thread of the pool, or, where it cannot take long, at once.
    """

    def __init__(
        self,
        size: int,
        max_threads: int,
        name: str,
        run: Callable[..., Coroutine[Any, Any, Any] | None],
        resume: Callable[[Any, Any, BaseException | None], None],
        ends_inline: Callable[[Any], bool],
        on_start: Callable[[WorkerThread, Any], None],
        on_end: Callable[[WorkerThread, Any], None],
    ) -> None:
        self.size = size
        self._max_threads = max_threads
        self._name = name
        # What a worker does: run(*worker), in a context of its own. Where it returns a coroutine,
        # that runs next, and then resume(worker, result, exception).
        self._run = run
        self._resume = resume
        # Whether resume() may be called on the loop that ran the coroutine.
        self._ends_inline = ends_inline
        # Called with its handle when a worker has its slot, and when it is over.
        self._on_start = on_start
        self._on_end = on_end
        self._jobs: Jobs | None = None
        # The queue of workers with a slot that run on another thread than their spawner's: they
        # never wait behind messages whose handlers wait for them.
        self._runs: Jobs | None = None
        # The end has come, for workers that are to be spawned; at once, for all.
        self._stopped = False
        self._discarded = False
        # Guards all below.
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._free = size
        # Jobs that are running.
        self._active = 0
        # Threads in waitall().
        self._drainers = 0
        # Sent when the queue has come to where a thread in waitall() left its mark.
        self._drain_markers: list[Event] = []
        # Workers and spawners that wait for a slot, first come first served.
        self._waiting: deque[Any] = deque()
        # The events that handlers wait for; sent when the pool is ended at once.
        self._awaited: list[Event] = []

    @property
    def jobs(self) -> Jobs:
        """The queue of messages, which the compiled half feeds; made when it is first needed."""
        if self._jobs is None:
            with self._lock:
                if self._jobs is None:
                    self._jobs = self._make_queue(self._max_threads, "worker")
        return self._jobs

    def _run_offloaded(self, handle: WorkerThread, worker: Any) -> None:
        """Run a worker, which has a slot, on another thread."""
        self._enqueue_run(handle, worker, partial(self._run_job, self._run_one, handle, worker))

    def _enqueue_run(self, handle: WorkerThread, worker: Any, run: Callable[[], None]) -> None:
        with self._lock:
            if self._runs is None:
                self._runs = self._make_queue(self.size, "runner")
            runs = self._runs
        try:
            runs.put(run)
        except RuntimeError:
            # The end came first.
            handle.finish(ThreadKilled())
            self._on_end(handle, worker)

    def _make_queue(self, max_threads: int, what: str) -> Jobs:
        numbers = itertools.count(1)

        def serve() -> None:
            try:
                queue.run()
            except ThreadKilled:
                pass

        def spawn() -> None:
            name = "{}-{}-{}".format(self._name, what, next(numbers))
            threading.Thread(target=serve, name=name, daemon=True).start()

        queue = Jobs(max_threads, spawn)
        if self._stopped:
            queue.stop(discard=self._discarded)
        return queue

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
                jobs = self._jobs
            if jobs is None or self._discarded or not jobs.unfinished():
                return
            # Something is in the queue, or was taken from it just now: look again behind it.
            if not self._drain_queue(jobs):
                return

    def _drain_queue(self, jobs: Jobs) -> bool:
        """False where the queue has been ended by somebody else."""
        mark = Event()
        with self._lock:
            if self._discarded:
                return False
            self._drain_markers.append(mark)
        try:
            jobs.put(mark.send)
            mark.wait()
            return True
        except (RuntimeError, ThreadKilled):
            return False
        finally:
            with self._lock:
                self._drain_markers.remove(mark)

    def stop(self, discard: bool = False) -> None:
        """End the threads: when the queue is empty, or at once, giving queued messages back."""
        with self._lock:
            self._stopped = True
            self._discarded = self._discarded or discard
            for waiting in self._waiting:
                if isinstance(waiting, threading.Event):
                    waiting.set()
            waking: list[Event] = []
            if discard:
                self._waiting.clear()
                self._idle.notify_all()
                # The queue drops the marks. Nothing sends what handlers wait for, as a worker
                # that is killed has no result.
                waking = self._drain_markers + self._awaited
            queues = [queue for queue in (self._jobs, self._runs) if queue is not None]
        for event in waking:
            event.send(exc=ThreadKilled())
        for queue in queues:
            queue.stop(discard=discard)

    def handle(self, handler: Callable[..., Any], *args: Any) -> None:
        """Handle a message: the job that a delivery becomes."""
        with self._lock:
            self._active += 1
        context = _MessageContext(self)
        _current.message = context
        try:
            handler(*args)
        except ThreadKilled:
            if not self._discarded:
                raise
        finally:
            _current.message = None
            if context.worker is None or not self._start_or_enqueue(context.worker):
                self._end_job()
            else:
                self._release_slot(ends_job=True)

    def run(self, worker: Any) -> None:
        """Run a worker as the job of this thread, or put it in line for a slot."""
        with self._lock:
            if self._discarded:
                return
            if not self._free:
                self._waiting.append(worker)
                return
            self._free -= 1
            self._active += 1
        handle = WorkerThread()
        self._on_start(handle, worker)
        if self._run_one(handle, worker):
            self._release_slot(ends_job=True)
        else:
            self._end_job()

    def _end_job(self) -> None:
        with self._lock:
            self._active -= 1
            self._notify_if_idle()

    def spawn(self, worker: Any, inline: bool = True) -> None:
        """Have ``run(*worker)`` called on a thread of the pool, once a slot is free.

        ``inline=False``: on another thread than this, also in the handler of a message.

        ContainerBeingKilled where the pool is stopped, also meanwhile.
        """
        context: _MessageContext | None = getattr(_current, "message", None)
        if context is not None and context.pool is self:
            context.spawned(worker, inline)
            return
        with self._lock:
            self._refuse_if_stopped()
            taken = self._free > 0
            if taken:
                self._free -= 1
            else:
                spawner = threading.Event()
                self._waiting.append(spawner)
        if not taken:
            try:
                spawner.wait()
                self._refuse_if_stopped()
            except BaseException:
                self._abandon_slot(spawner)
                raise
        handle = WorkerThread()
        self._on_start(handle, worker)
        self._run_offloaded(handle, worker)

    def _refuse_if_stopped(self) -> None:
        if self._stopped:
            raise ContainerBeingKilled()

    def _abandon_slot(self, spawner: threading.Event) -> None:
        with self._lock:
            if self._discarded:
                return
            if spawner in self._waiting:
                self._waiting.remove(spawner)
                return
        self._release_slot_offloaded()

    def _run_job(self, part: Callable[..., bool], *args: Any) -> None:
        with self._lock:
            self._active += 1
        try:
            if part(*args):
                self._release_slot()
        finally:
            self._end_job()

    def _start_or_enqueue(self, worker: Any, inline: bool = True) -> bool:
        """Run a worker that a handler spawned, or put it in line for a slot.

        True where this thread has run it and has its slot to pass on.
        """
        with self._lock:
            if self._discarded:
                return False
            if not self._free:
                self._waiting.append(worker)
                return False
            self._free -= 1
        handle = WorkerThread()
        self._on_start(handle, worker)
        if not inline:
            self._run_offloaded(handle, worker)
            return False
        return self._run_one(handle, worker)

    def _release_slot(self, ends_job: bool = False) -> None:
        """Pass this thread's slot on, or give it back. Runs the waiting workers on the way.

        ``ends_job``: and then the job of this thread is over.
        """
        while True:
            with self._lock:
                if not self._waiting:
                    self._free += 1
                    if ends_job:
                        self._active -= 1
                    self._notify_if_idle()
                    return
                following = self._waiting.popleft()
            if isinstance(following, threading.Event):
                following.set()
                break
            handle = WorkerThread()
            self._on_start(handle, following)
            if not self._run_one(handle, following):
                break
        if ends_job:
            self._end_job()

    def _release_slot_offloaded(self) -> None:
        """As :meth:`_release_slot`, but leave a waiting worker to another thread."""
        with self._lock:
            if not self._waiting:
                self._free += 1
                self._notify_if_idle()
                return
            following = self._waiting.popleft()
        if isinstance(following, threading.Event):
            following.set()
            return
        handle = WorkerThread()
        self._on_start(handle, following)
        self._run_offloaded(handle, following)

    def _run_one(self, handle: WorkerThread, worker: Any) -> bool:
        """Run a worker. False where it goes on as a coroutine, which takes the slot along."""
        return self._run_step(handle, worker, contextvars.Context(), self._run, *worker)

    def _run_step(
        self,
        handle: WorkerThread,
        worker: Any,
        context: contextvars.Context,
        part: Callable[..., Any],
        *args: Any,
    ) -> bool:
        failure = coroutine = None
        try:
            try:
                handle.ident = threading.get_ident()
                if handle.killed:
                    raise ThreadKilled()
                coroutine = context.run(part, *args)
            except BaseException as exc:
                failure = exc
            if coroutine is not None:
                self._suspend(handle, worker, context, coroutine)
                return False
            handle.finish(failure)
        except ThreadKilled as killed:
            # Killed just as it ended.
            if coroutine is not None:
                coroutine.close()
            handle.finish(failure or (killed if coroutine is not None else None))
        self._on_end(handle, worker)
        return True

    def _suspend(
        self,
        handle: WorkerThread,
        worker: Any,
        context: contextvars.Context,
        coroutine: Coroutine[Any, Any, Any],
    ) -> None:
        running = loop.CoroutineRun(
            coroutine, context, partial(self._on_coroutine_done, handle, worker, context)
        )
        with _kill_lock:
            handle.ident = None
            handle._coroutine = running
            killed = handle.killed
        if killed:
            # What was to be raised in this thread is done on the loop.
            clear_pending_exc(threading.get_ident())
            running.cancel()
        running.start()

    def _on_coroutine_done(
        self,
        handle: WorkerThread,
        worker: Any,
        context: contextvars.Context,
        result: Any,
        exc: BaseException | None,
    ) -> None:
        """A worker's coroutine has ended. Called on its loop."""
        handle._coroutine = None
        # A copy, as the coroutine is still in its context.
        part = (handle, worker, context.copy(), self._resume, worker, result, exc)
        if self._ends_inline(worker):
            if self._run_step(*part):
                self._release_slot_offloaded()
        else:
            self._enqueue_run(handle, worker, partial(self._run_job, self._run_step, *part))

    def _notify_if_idle(self) -> None:
        if self._drainers and self._is_idle():
            self._idle.notify_all()

    def _is_idle(self) -> bool:
        return self._discarded or (
            not self._active and self._free == self.size and not self._waiting
        )


class _MessageContext:
    """A message that is handled by a thread of the pool."""

    __slots__ = ("_offloaded", "pool", "worker")

    def __init__(self, pool: WorkerPool) -> None:
        self.pool = pool
        # The worker it spawned, until it begins.
        self.worker: Any = None
        # Whether workers are not to be kept for this thread.
        self._offloaded = False

    def spawned(self, worker: Any, inline: bool) -> None:
        # Of two, one may wait for the other.
        if not inline or self._offloaded or self.worker is not None:
            self.offload()
            self.pool._start_or_enqueue(worker, inline=False)
        else:
            self.worker = worker

    def offload(self) -> None:
        """Run the worker, and those that follow, on other threads."""
        self._offloaded = True
        worker, self.worker = self.worker, None
        if worker is not None:
            self.pool._start_or_enqueue(worker, inline=False)

    def wait(
        self, event: Event, wait: Callable[[float | None], None], timeout: float | None
    ) -> None:
        """The handler has to ``wait(timeout)`` for an event. Its worker begins before."""
        pool = self.pool
        if timeout is not None:
            # On this thread it could keep the handler from coming back in time.
            self.offload()
        elif self.worker is not None:
            worker, self.worker = self.worker, None
            _current.message = None
            try:
                if pool._start_or_enqueue(worker):
                    # Others' workers are for other threads: this one has a message to handle.
                    pool._release_slot_offloaded()
            finally:
                _current.message = self
        if event.ready():
            return
        with pool._lock:
            if pool._discarded:
                raise ThreadKilled()
            pool._awaited.append(event)
        try:
            wait(timeout)
        finally:
            with pool._lock:
                pool._awaited.remove(event)
