"""A dependency of one's own: a counter that all workers of a container share."""

import itertools

from nameko.extensions import DependencyProvider
from nameko.rpc import rpc


class Counter(DependencyProvider):
    """Gives each worker a function that counts up."""

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
