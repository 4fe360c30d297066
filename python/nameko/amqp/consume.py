"""A consumer for programs that are not services, as in version 3."""

from __future__ import annotations

import threading
from collections.abc import Callable
from logging import getLogger
from typing import Any

from amqp.exceptions import ConnectionError
from kombu import Connection
from kombu.mixins import ConsumerMixin

from nameko.amqp import connection
from nameko.utils import sanitize_url

_log = getLogger(__name__)


class Consumer(ConsumerMixin):
    """Consumes from ``queues`` over a kombu connection, until :meth:`stop`.

    ``run()`` blocks, and calls each of ``callbacks`` with the decoded body and the message, which a
    callback has to acknowledge. ``heartbeat`` is in seconds. Further options are those of kombu's
    Consumer.
    """

    def __init__(
        self,
        amqp_uri: str,
        ssl: Any = None,
        login_method: str | None = None,
        queues: Any = None,
        callbacks: list[Callable[[Any, Any], Any]] | None = None,
        heartbeat: int | None = None,
        prefetch_count: int | None = None,
        accept: Any = None,
        **consumer_options: Any,
    ) -> None:
        self.amqp_uri = amqp_uri
        self.ssl = ssl
        self.login_method = login_method
        self.queues = queues
        self.callbacks = callbacks or []
        self.heartbeat = heartbeat
        self.prefetch_count = prefetch_count or 0
        self.accept = accept
        self.consumer_options = consumer_options
        # Set when the queues are consumed for the first time.
        self.ready = threading.Event()

    @property
    def connection(self) -> Connection:
        """A new connection, not yet established."""
        return Connection(
            connection.broker_uri(self.amqp_uri),
            ssl=self.ssl,
            login_method=self.login_method,
            heartbeat=self.heartbeat,
        )

    def stop(self) -> None:
        """Ends :meth:`run`. Requeues messages that are received meanwhile."""
        self.should_stop = True

    def wait_until_consumer_ready(self) -> None:
        """Waits until the queues are consumed."""
        self.ready.wait()

    def get_consumers(self, consumer_cls: Any, channel: Any) -> list[Any]:
        """Called by kombu for each connection."""
        consumer = consumer_cls(
            queues=self.queues,
            callbacks=[self.on_message],
            accept=self.accept,
            **self.consumer_options,
        )
        consumer.qos(prefetch_count=self.prefetch_count)
        return [consumer]

    def on_consume_ready(
        self, connection: Any, channel: Any, consumers: Any, **kwargs: Any
    ) -> None:
        """Called by kombu when the queues of a connection are consumed."""
        self.ready.set()

    def on_connection_error(self, exc: Exception, interval: float) -> None:
        """Called by kombu when connecting failed. The next attempt follows in ``interval`` s."""
        _log.warning(
            "Error connecting to broker at %s (%s).\nRetrying in %s seconds.",
            sanitize_url(self.amqp_uri),
            exc,
            interval,
        )

    def on_message(self, body: Any, message: Any) -> None:
        if self.should_stop:
            self.requeue_message(message)
            return
        for callback in self.callbacks:
            callback(body, message)

    def ack_message(self, message: Any) -> None:
        """Acknowledges the message. No effect if its connection is lost."""
        self._settle(message, message.ack)

    def requeue_message(self, message: Any) -> None:
        """Requeues the message. No effect if its connection is lost: the broker has done it."""
        self._settle(message, message.requeue)

    def _settle(self, message: Any, settle: Callable[[], Any]) -> None:
        if message.channel.connection:
            try:
                settle()
            except ConnectionError:
                pass  # lost meanwhile
