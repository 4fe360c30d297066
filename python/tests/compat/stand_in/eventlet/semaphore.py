import threading


class Semaphore:
    """A semaphore with a list of waiting threads, which can be killed."""

    def __init__(self, value: int = 1) -> None:
        self._semaphore = threading.Semaphore(value)
        self._waiters: list[int] = []

    def acquire(self) -> bool:
        me = threading.get_ident()
        self._waiters.append(me)
        try:
            while not self._semaphore.acquire(timeout=0.01):
                pass
        finally:
            self._waiters.remove(me)
        return True

    def release(self) -> None:
        self._semaphore.release()

    def __enter__(self):
        self.acquire()

    def __exit__(self, *exc_info) -> None:
        self.release()
