import threading


class Semaphore:
    """Whose waiters can be killed."""

    def __init__(self, value: int = 1) -> None:
        self._semaphore = threading.Semaphore(value)

    def acquire(self) -> bool:
        while not self._semaphore.acquire(timeout=0.01):
            pass
        return True

    def release(self) -> None:
        self._semaphore.release()

    def __enter__(self):
        self.acquire()

    def __exit__(self, *exc_info) -> None:
        self.release()
