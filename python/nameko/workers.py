"""The threads of a container, and the limit on how many workers run at once."""

from __future__ import annotations

import contextvars
import itertools
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from types import FrameType
from typing import Any, Protocol, TypeVar

from nameko import loop
from nameko._nameko import Jobs, current_frame, flush_replies, interrupt
from nameko.exceptions import ContainerBeingKilled
from nameko.utils.jobs import run_jobs
from nameko.utils.threads import (
    Event,
    ThreadKilled,
    WaitStrategy,
    clear_pending_exc,
    current_thread,
    retry_interrupt,
)

F = TypeVar("F", bound=Callable[..., Any])


def nonblocking(handler: F) -> F:
    """Marks a handler as non-blocking.

    A non-blocking ``handle_message`` or ``handle_request`` returns at once or waits for an
    :class:`Event` only, so the worker that it spawns can run on its thread. The workers of other
    handlers run on other threads. A non-blocking ``handle_result`` returns at once if the functions
    that it calls do. A non-blocking ``get_dependency`` always does, so that the loop can call it
    for an ``async def`` method.
    """
    handler.nonblocking = True  # type: ignore[attr-defined]
    return handler


def is_nonblocking(extension: Any) -> bool:
    """Whether ``handle_message``, or ``handle_request`` of a web entrypoint, is marked as
    :func:`nonblocking`."""
    handler = getattr(extension, "handle_message", None) or getattr(
        extension, "handle_request", None
    )
    return getattr(handler, "nonblocking", None) is True


def handle_result_is_nonblocking(extension: Any) -> bool:
    """Whether ``handle_result`` is marked as :func:`nonblocking`."""
    return getattr(getattr(extension, "handle_result", None), "nonblocking", None) is True


def offload() -> None:
    """Runs the workers spawned by the current message on other threads."""
    context = current_thread.wait_strategy
    if isinstance(context, _MessageContext):
        context.offload()


class WorkerThread:
    """A run of one worker on a thread of the pool, with the interface of a managed thread."""

    # The thread that runs it, None before the start and while it is a coroutine.
    ident: int | None = None
    ended = False
    killed = False
    # Set if it did not end by returning.
    exc: BaseException | None = None
    # Set while it is a coroutine, or waits for one.
    _coroutine: loop.CoroutineRun | None = None
    # Set by shield().
    shielded = False
    _event: Event | None = None
    # Created by the first link().
    _links: list[tuple[Callable[..., Any], tuple[Any, ...]]] | None = None

    @property
    def dead(self) -> bool:
        return self.ended

    @property
    def gr_frame(self) -> FrameType | None:
        """The current frame, like a greenlet's; None before the start and after the end."""
        if self.ended or self.ident is None:
            return None
        return current_frame(self.ident)

    def wait(self) -> None:
        """Waits until the worker has ended. Raises the exception that ended it."""
        with _kill_lock:
            if not self.ended and self._event is None:
                self._event = Event()
        if self._event is not None and not self.ended:
            self._event.wait()
        if self.exc is not None:
            raise self.exc

    def link(self, callback: Callable[..., Any], *args: Any) -> None:
        """Calls ``callback(handle, *args)`` when the worker has ended."""
        with _kill_lock:
            if self._links is None:
                self._links = []
            self._links.append((callback, args))
        if self.ended:
            self._notify()

    def kill(self, *exc: Any) -> None:
        """Raises :class:`ThreadKilled` in the worker as soon as it can be interrupted safely, and
        does not wait for it."""
        with _kill_lock:
            first, self.killed = not self.killed, True
            coroutine = self._coroutine
        if coroutine is not None:
            coroutine.cancel()
        elif first:
            retry_interrupt(self._try_interrupt)

    def _try_interrupt(self) -> bool | None:
        with _kill_lock:
            if self.ended or self.shielded or self.ident is None:
                return None
            return interrupt(self.ident, ThreadKilled)

    def enter_coroutine(self, running: loop.CoroutineRun) -> None:
        """From now on a kill cancels ``running`` instead of interrupting the calling thread."""
        with _kill_lock:
            self.ident, self._coroutine = None, running
            killed = self.killed
        if killed:
            # The kill takes effect on the loop instead of this thread.
            clear_pending_exc(threading.get_ident())
            running.cancel()

    def leave_coroutine(self) -> None:
        """Ends :meth:`enter_coroutine`. Raises ThreadKilled if the worker was killed meanwhile."""
        with _kill_lock:
            self.ident, self._coroutine = threading.get_ident(), None
            killed = self.killed
        if killed:
            raise ThreadKilled()

    def shield(self) -> None:
        """From now on a kill has no effect. Called before the last step, the teardown."""
        with _kill_lock:
            self.shielded = True
            self._coroutine = None
            if self.killed:
                clear_pending_exc(threading.get_ident())

    def finish(self, exc: BaseException | None) -> None:
        """Records the end. Called once, on the thread that ran the worker."""
        self.exc = exc
        self.ended = True
        if self.killed:
            with _kill_lock:
                # A pending exception must not interrupt the next job of this thread.
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


# Held by a kill and at the end of a worker: a kill never interrupts the next job of the thread.
_kill_lock = threading.Lock()


class WorkerHost(Protocol):
    """The steps of a worker, implemented by its container.

    The methods are looked up for each worker, because extensions and tests patch them.
    """

    def _run_worker(self, worker_ctx: Any, handle_result: Any) -> Coroutine[Any, Any, Any] | None:
        """Runs a worker in a context of its own. A returned coroutine runs next."""

    def _resume_worker(self, worker: Any, result: Any, exc: BaseException | None) -> None:
        """Runs the rest of a worker after its coroutine."""

    def _worker_ends_inline(self, worker: Any) -> bool:
        """Whether :meth:`_resume_worker` may be called on the loop that ran the coroutine."""

    def _abort_worker(self, thread: WorkerThread, worker: Any) -> None:
        """Tears down a worker that was killed or failed. Raises nothing."""

    def _has_teardown(self, worker: Any) -> bool:
        """Whether :meth:`_abort_worker` has something to tear down."""

    def _on_worker_start(self, thread: WorkerThread, worker: Any) -> None:
        """Called when a worker has its slot."""

    def _on_worker_end(self, thread: WorkerThread, worker: Any) -> None:
        """Called when a worker has ended."""


class WorkerPool:
    """Runs the messages that a container consumes, and the workers that they spawn.

    A message is handled as one job on one thread. A worker spawned by its handler runs on the same
    thread, when the handler returns or waits for an :class:`Event`. It needs one of ``size`` slots
    and waits for one without blocking the thread. The workers of a handler that may block otherwise
    (see :func:`nonblocking`) run on other threads. A worker spawned by another thread makes that
    thread wait for the slot. So at most ``size`` workers run at once, and messages that need no
    worker never wait for one.

    A worker that becomes a coroutine keeps its slot but no thread. The rest of the worker runs on a
    thread of the pool when the coroutine has ended, or on the loop if it is non-blocking.
    """

    def __init__(
        self,
        size: int,
        max_threads: int,
        name: str,
        host: WorkerHost,
    ) -> None:
        self.size = size
        self._max_threads = max_threads
        self._name = name
        self._host = host
        self._jobs: Jobs | None = None
        # Workers that have a slot and run on another thread than their spawner's. In a queue of
        # their own they never wait behind messages whose handlers wait for them.
        self._runs: Jobs | None = None
        # Set by stop(): no further worker is spawned; with discard, none runs either.
        self._stopped = False
        self._discarded = False
        # Guards the attributes below.
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._free = size
        # Running jobs.
        self._active = 0
        # Threads in waitall().
        self._drainers = 0
        # Markers of the threads in waitall(), sent when the queue reaches them.
        self._drain_markers: list[Event] = []
        # Workers and spawning threads that wait for a slot, in FIFO order.
        self._waiting: deque[Any] = deque()
        # The events that handlers wait for, sent by stop(discard=True).
        self._awaited: list[Event] = []
        # The runs in the queue of the same name, with their workers.
        self._enqueued: dict[WorkerThread, tuple[Any, Callable[[], bool]]] = {}

    @property
    def jobs(self) -> Jobs:
        """The queue of messages, fed by the compiled half. Created lazily."""
        if self._jobs is None:
            with self._lock:
                if self._jobs is None:
                    self._jobs = self._make_queue(self._max_threads, "worker")
        return self._jobs

    def _run_offloaded(self, handle: WorkerThread, worker: Any) -> None:
        """Runs a worker that has a slot on another thread."""
        self._enqueue_run(handle, worker, partial(self._run_one, handle, worker))

    def _enqueue_run(self, handle: WorkerThread, worker: Any, step: Callable[[], bool]) -> None:
        with self._lock:
            if self._runs is None:
                self._runs = self._make_queue(self.size, "runner")
            runs = self._runs
            self._enqueued[handle] = worker, step
            # Not when the job starts: a lock could reorder the workers that start.
            self._active += 1
        try:
            runs.put(self._run_enqueued, handle)
        except RuntimeError:
            # The pool was stopped meanwhile.
            self._abort_enqueued([handle])

    def _run_enqueued(self, handle: WorkerThread) -> None:
        _, step = self._enqueued.pop(handle, (None, None))
        if step is not None:
            self._run_job(step)

    def _abort_enqueued(self, handles: Iterable[WorkerThread]) -> None:
        """Kills workers whose runs will not leave the queue."""
        for handle in handles:
            worker, step = self._enqueued.pop(handle, (None, None))
            if step is None:
                continue
            handle.killed = True
            if self._host._has_teardown(worker):
                name = "{}-teardown".format(self._name)
                run = partial(self._run_job, step)
                threading.Thread(target=run, name=name, daemon=True).start()
            else:
                self._end_job()
                handle.finish(ThreadKilled())
                self._host._on_worker_end(handle, worker)

    def _make_queue(self, max_threads: int, role: str) -> Jobs:
        numbers = itertools.count(1)

        def serve(queue: Jobs) -> None:
            try:
                run_jobs(queue)
            except ThreadKilled:
                pass

        def spawn(queue: Jobs) -> None:
            name = "{}-{}-{}".format(self._name, role, next(numbers))
            threading.Thread(target=serve, args=(queue,), name=name, daemon=True).start()

        queue = Jobs(max_threads, spawn)
        if self._stopped:
            queue.stop(discard=self._discarded)
        else:
            spawn(queue)
        return queue

    def free(self) -> int:
        """Returns the number of free slots."""
        return self._free

    def running(self) -> int:
        """Returns the number of running workers."""
        return self.size - self._free

    def waitall(self) -> None:
        """Waits until no worker runs and no message waits to be handled."""
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
            # The queue is not empty, or a job was just taken from it.
            if not self._drain_queue(jobs):
                return

    def _drain_queue(self, jobs: Jobs) -> bool:
        """Waits until the queued jobs have started. Returns False if the queue was stopped."""
        marker = Event()
        with self._lock:
            if self._discarded:
                return False
            self._drain_markers.append(marker)
        try:
            jobs.put(marker.send)
            marker.wait()
            return True
        except (RuntimeError, ThreadKilled):
            return False
        finally:
            with self._lock:
                self._drain_markers.remove(marker)

    def stop(self, discard: bool = False) -> None:
        """Ends the threads when the queue is empty. With ``discard``, ends them at once and returns
        queued messages to the broker."""
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
                # The queue drops the markers, and a killed worker sends no result to its handler.
                waking = self._drain_markers + self._awaited
            queues = [queue for queue in (self._jobs, self._runs) if queue is not None]
        for event in waking:
            event.send(exc=ThreadKilled())
        for queue in queues:
            queue.stop(discard=discard)
        if discard:
            with self._lock:
                discarded = list(self._enqueued)
            self._abort_enqueued(discarded)

    def handle(self, handler: Callable[..., Any], *args: Any) -> None:
        """Handles a message with ``handler(*args)``, as a job of the message queue."""
        with self._lock:
            self._active += 1
        context = _MessageContext(self)
        current_thread.wait_strategy = context
        try:
            handler(*args)
        except ThreadKilled:
            if not self._discarded:
                raise
        finally:
            current_thread.wait_strategy = None
            if context.worker is None or not self._start_or_enqueue(context.worker):
                self._end_job()
            else:
                self._release_slot(ends_job=True)

    def run(self, worker: Any, on_loop: bool = False) -> None:
        """Runs a worker as the job of this thread, or enqueues it for a slot.

        ``on_loop``: the thread is the loop's, and the worker's part before its coroutine returns at
        once.
        """
        with self._lock:
            if self._discarded:
                return
            if not self._free:
                self._waiting.append(worker)
                return
            self._free -= 1
            self._active += 1
        handle = WorkerThread()
        self._host._on_worker_start(handle, worker)
        if not self._run_step(
            handle, worker, contextvars.Context(), self._host._run_worker, *worker
        ):
            self._end_job()
        elif on_loop:
            self._release_slot_offloaded()
            self._end_job()
        else:
            self._release_slot(ends_job=True)

    def _end_job(self) -> None:
        with self._lock:
            self._active -= 1
            if self._drainers:
                self._notify_if_idle()

    def spawn(self, worker: Any, inline: bool = True) -> None:
        """Runs a worker on a thread of the pool once a slot is free.

        In the handler of a message, ``inline`` allows to run it on the handler's thread. Raises
        ContainerBeingKilled if the pool is stopped, also while this waits for a slot.
        """
        context = current_thread.wait_strategy
        if isinstance(context, _MessageContext) and context.pool is self:
            context.spawn(worker, inline)
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
        self._host._on_worker_start(handle, worker)
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

    def _run_job(self, step: Callable[[], bool]) -> None:
        try:
            if step():
                self._release_slot()
        finally:
            self._end_job()

    def _start_or_enqueue(self, worker: Any, inline: bool = True) -> bool:
        """Runs a worker that a handler spawned, or enqueues it for a slot.

        Returns True if it ran on this thread, which then has a slot to release.
        """
        with self._lock:
            if self._discarded:
                return False
            if not self._free:
                self._waiting.append(worker)
                return False
            self._free -= 1
        handle = WorkerThread()
        self._host._on_worker_start(handle, worker)
        if not inline:
            self._run_offloaded(handle, worker)
            return False
        return self._run_one(handle, worker)

    def _release_slot(self, ends_job: bool = False) -> None:
        """Releases the slot of this thread, after running the workers that wait for it.

        ``ends_job``: the job of this thread ends, too.
        """
        while True:
            with self._lock:
                if not self._waiting:
                    self._free += 1
                    if ends_job:
                        self._active -= 1
                    if self._drainers:
                        self._notify_if_idle()
                    return
                following = self._waiting.popleft()
            if isinstance(following, threading.Event):
                following.set()
                break
            # The reply of the worker that has ended does not wait for the next one.
            flush_replies()
            handle = WorkerThread()
            self._host._on_worker_start(handle, following)
            if not self._run_one(handle, following):
                break
        if ends_job:
            self._end_job()

    def _release_slot_offloaded(self) -> None:
        """Like :meth:`_release_slot`, but runs a waiting worker on another thread."""
        with self._lock:
            if not self._waiting:
                self._free += 1
                if self._drainers:
                    self._notify_if_idle()
                return
            following = self._waiting.popleft()
        if isinstance(following, threading.Event):
            following.set()
            return
        handle = WorkerThread()
        self._host._on_worker_start(handle, following)
        self._run_offloaded(handle, following)

    def _run_one(self, handle: WorkerThread, worker: Any) -> bool:
        """Runs a worker. Returns False if it became a coroutine, which keeps the slot."""
        return self._run_step(
            handle, worker, contextvars.Context(), self._host._run_worker, *worker
        )

    def _run_step(
        self,
        handle: WorkerThread,
        worker: Any,
        context: contextvars.Context,
        step: Callable[..., Any],
        *args: Any,
    ) -> bool:
        failure = coroutine = None
        try:
            try:
                handle.ident = threading.get_ident()
                if handle.killed:
                    raise ThreadKilled()
                coroutine = context.run(step, *args)
            except BaseException as exc:
                failure = exc
                context.run(self._host._abort_worker, handle, worker)
            if coroutine is not None:
                self._suspend(handle, worker, context, coroutine)
                return False
            handle.finish(failure)
        except ThreadKilled as killed:
            # Killed while it was ending.
            if coroutine is not None:
                coroutine.close()
            handle.finish(failure or (killed if coroutine is not None else None))
        self._host._on_worker_end(handle, worker)
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
        handle.enter_coroutine(running)
        running.start()

    def _on_coroutine_done(
        self,
        handle: WorkerThread,
        worker: Any,
        context: contextvars.Context,
        result: Any,
        exc: BaseException | None,
    ) -> None:
        """Runs the rest of a worker whose coroutine has ended. Called on its loop."""
        handle._coroutine = None
        # A copy, because the coroutine has not left its context yet.
        step = (handle, worker, context.copy(), self._host._resume_worker, worker, result, exc)
        if self._host._worker_ends_inline(worker):
            # Its reply leaves with those of the coroutines that end in the same iteration.
            loop.send_replies_together()
            if self._run_step(*step):
                self._release_slot_offloaded()
        else:
            self._enqueue_run(handle, worker, partial(self._run_step, *step))

    def _notify_if_idle(self) -> None:
        """Called with the lock if a thread is in waitall()."""
        if self._is_idle():
            self._idle.notify_all()

    def _is_idle(self) -> bool:
        return self._discarded or (
            not self._active and self._free == self.size and not self._waiting
        )


class _MessageContext(WaitStrategy):
    """The state of a message while a thread of the pool handles it.

    As the wait strategy of the thread it starts the worker of the message before the handler blocks
    for it.
    """

    __slots__ = ("_offloaded", "pool", "worker")

    def __init__(self, pool: WorkerPool) -> None:
        self.pool = pool
        # The spawned worker, until it starts.
        self.worker: Any = None
        # Whether workers run on other threads.
        self._offloaded = False

    def spawn(self, worker: Any, inline: bool) -> None:
        # Of two workers, one may wait for the other.
        if not inline or self._offloaded or self.worker is not None:
            self.offload()
            self.pool._start_or_enqueue(worker, inline=False)
        else:
            self.worker = worker

    def offload(self) -> None:
        """Runs the worker, and later ones, on other threads."""
        self._offloaded = True
        worker, self.worker = self.worker, None
        if worker is not None:
            self.pool._start_or_enqueue(worker, inline=False)

    def wait(
        self, event: Event, block: Callable[[float | None], None], timeout: float | None
    ) -> None:
        pool = self.pool
        if timeout is not None:
            # On this thread the worker could delay the handler beyond the timeout.
            self.offload()
        elif self.worker is not None:
            worker, self.worker = self.worker, None
            current_thread.wait_strategy = None
            try:
                if pool._start_or_enqueue(worker):
                    # This thread has a message to handle: other threads run the waiting workers.
                    pool._release_slot_offloaded()
            finally:
                current_thread.wait_strategy = self
        if event.ready():
            return
        with pool._lock:
            if pool._discarded:
                raise ThreadKilled()
            pool._awaited.append(event)
        try:
            block(timeout)
        finally:
            with pool._lock:
                pool._awaited.remove(event)
