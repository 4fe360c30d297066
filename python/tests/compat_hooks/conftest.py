"""Undocumented interfaces that community extensions use, each in a short test.

The tests of the extensions themselves are in ``community/``.
"""

import pytest
from kombu import Exchange, Queue

from nameko.amqp.publish import Publisher as PublisherCore


@pytest.fixture
def queue(uid):
    return Queue("hook-" + uid, Exchange("hooks-" + uid, auto_delete=True), "key", auto_delete=True)


@pytest.fixture
def send(config, queue):
    """``send(payload, **options)`` publishes a message to the queue."""
    publisher = PublisherCore(
        config["AMQP_URI"], exchange=queue.exchange, routing_key="key", declare=[queue]
    )
    return publisher.publish
