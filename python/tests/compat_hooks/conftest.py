"""What community extensions do with this package beyond the documented: each habit, in short.

The extensions themselves are tried in ``community/``, which needs them installed.
"""

import pytest
from kombu import Exchange, Queue

from nameko.amqp.publish import Publisher as PublisherCore


@pytest.fixture
def queue(uid):
    return Queue("hook-" + uid, Exchange("hooks-" + uid, auto_delete=True), "key", auto_delete=True)


@pytest.fixture
def send(config, queue):
    """``send(payload, **options)`` puts a message into the queue."""
    publisher = PublisherCore(
        config["AMQP_URI"], exchange=queue.exchange, routing_key="key", declare=[queue]
    )
    return publisher.publish
