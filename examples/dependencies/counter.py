"""A custom dependency: a counter shared by all workers of a container."""

import itertools

from nameko.extensions import DependencyProvider
from nameko.rpc import rpc


class Counter(DependencyProvider):
    """Injects a function that increments the counter and returns it."""

    def setup(self):
        self.calls = itertools.count(1)

    def get_dependency(self, worker_ctx):
        return self.calls.__next__


class CountingService:
    name = "counting_service"

    next_call = Counter()

    @rpc
    def count(self):
        return self.next_call()
