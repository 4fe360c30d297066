"""Resizes pictures one by one, in the order of their priority.

`nameko run examples.messaging.messaging` runs it; `n.rpc.studio.resize("cat.jpg", priority=5)` in
`nameko shell` resizes one. A picture that cannot be resized, such as `broken.jpg`, goes to the
queue `failed`.
"""

from kombu import Exchange, Queue

from nameko.messaging import Publisher, consume
from nameko.rpc import rpc

STUDIO = Exchange("studio", type="direct")
FAILED = Queue("failed")
# Both services declare it, so they can start in any order.
PICTURES = Queue(
    "pictures",
    exchange=STUDIO,
    routing_key="resize",
    max_priority=5,
    queue_arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "failed"},
)


class Studio:
    name = "studio"

    work = Publisher(
        exchange=STUDIO, declare=[PICTURES, FAILED], routing_key="resize", mandatory=True
    )

    @rpc
    def resize(self, picture, priority=0):
        self.work(picture, priority=priority)


class Resizer:
    name = "resizer"

    @consume(PICTURES, reject_on_error=True, prefetch_count=1)
    def resize(self, picture):
        if picture == "broken.jpg":
            raise ValueError("not a picture")
        print("resized {}".format(picture))

    @consume(FAILED)
    def report_failure(self, picture):
        print("could not resize {}".format(picture))
