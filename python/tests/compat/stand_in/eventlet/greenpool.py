"""A pool of threads."""

import threading

from nameko.utils.threads import ManagedThread, spawn


class GreenPool:
    def __init__(self, size: int = 1000) -> None:
        self.size = size
        self._slots = threading.Semaphore(size)
        self._threads: list[ManagedThread] = []

    def spawn(self, fn, *args, **kwargs) -> ManagedThread:
        self._slots.acquire()
        thread = spawn(fn, *args, **kwargs)
        thread.link(lambda _: self._slots.release())
        self._threads.append(thread)
        return thread

    def imap(self, fn, items):
        threads = [self.spawn(fn, item) for item in items]
        return (thread.wait() for thread in threads)

    def waitall(self) -> None:
        for thread in self._threads:
            thread.wait()

    def free(self) -> int:
        return self.size - sum(not thread.dead for thread in self._threads)
