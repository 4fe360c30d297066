"""The queue for the replies to a container's calls."""

from __future__ import annotations

import os
import uuid
from functools import partial
from logging import getLogger
from typing import Any

from kombu import Queue

from nameko import _nameko
from nameko._nameko import PatchGuard
from nameko.amqp.entities import queue_to_dict
from nameko.amqp.message import Message
from nameko.extensions import SharedExtension
from nameko.messaging import QueueConsumer, take_consumer_options
from nameko.rpc.replies import Acceptable, HandledReply, ReplyEvent
from nameko.rpc.topology import (
    RPC_REPLY_QUEUE_TEMPLATE,
    RPC_REPLY_QUEUE_TTL,
    get_rpc_exchange,
)
from nameko.utils.patch_guard import guarded_methods, methods_of

_log = getLogger("nameko.rpc")


class ReplyListener(SharedExtension):
    """Receives the replies to a container's calls.

    Replies are matched with their calls in the compiled half, so they never wait for a worker.
    If :meth:`handle_message` is overridden or patched, it receives the replies instead, one at a
    time, and must not block.

    Options are the consumer options of :class:`nameko.messaging.Consumer`.
    """

    queue_consumer = QueueConsumer()
    # Seconds to wait for a reply, None for no limit.
    timeout: float | None = None
    # Whether calls are awaited on every asyncio loop, not only in `async def` methods.
    asynchronous = False
    queue: Queue
    routing_key: str
    # The accepted content types of replies; set with _native.
    _acceptable: Acceptable
    # While it is intact, replies are matched in the compiled half; set with _native.
    _patch_guard: PatchGuard

    def __init__(self, **consumer_options: Any) -> None:
        self.consumer_options = take_consumer_options(self, consumer_options)
        # The events of replies that handle_message receives, by correlation id.
        self._reply_events: dict[str | None, Any] = {}
        # The compiled half, set by attach().
        self._native: _nameko.ReplyListener | None = None
        # The process id at attach().
        self._process: int | None = None
        super().__init__(**consumer_options)

    def setup(self) -> None:
        # The name in version 3.
        self.consumer = self.queue_consumer
        reply_queue_uuid = uuid.uuid4()
        self.routing_key = str(reply_queue_uuid)
        self.queue = Queue(
            RPC_REPLY_QUEUE_TEMPLATE.format(self.container.service_name, reply_queue_uuid),
            exchange=get_rpc_exchange(self.container.config),
            routing_key=self.routing_key,
            queue_arguments={"x-expires": RPC_REPLY_QUEUE_TTL},
        )
        self.queue_consumer.register_provider(self)

    def stop(self) -> None:
        self.queue_consumer.unregister_provider(self)
        super().stop()

    def attach(self, consumers: _nameko.Consumers, prefetch: int | None) -> Any:
        """Consumes replies in the compiled half. Unmatched replies go to handle_message."""
        accept = self.consumer_options.get("accept") or self.container.accept
        self._acceptable = Acceptable(accept)
        self._patch_guard = PatchGuard(guarded_methods(self, _REPLY_HOOKS))
        self._process = os.getpid()
        self._native = _nameko.ReplyListener(consumers, queue_to_dict(self.queue), prefetch)
        self._native.on_unknown(self._handle_delivery)
        return self._native

    def get_reply_event(self, correlation_id: str) -> Any:
        """Returns the event of the reply to a call that is about to be made.

        Raises RuntimeError in a forked child, which would receive no reply.
        """
        if self._process is not None and self._process != os.getpid():
            raise RuntimeError(
                "this client was started in another process, which gets its replies: start a "
                "client in each process, after the fork (nameko.standalone.rpc.ClusterRpcProxy)"
            )
        if self._native is not None and self._patch_guard.intact():
            return ReplyEvent(self._native.expect(correlation_id), self.timeout, self._acceptable)
        forget = partial(self._reply_events.pop, correlation_id, None)
        reply_event = HandledReply(self.timeout, forget)
        self._reply_events[correlation_id] = reply_event
        return reply_event

    def handle_message(self, body: Any, message: Any) -> None:
        self.queue_consumer.ack_message(message)
        correlation_id = message.properties.get("correlation_id")
        client_event = self._reply_events.pop(correlation_id, None)
        if client_event is not None:
            client_event.send(body)
        else:
            self.on_unknown_reply(correlation_id)

    def _handle_delivery(self, delivery: _nameko.Delivery) -> None:
        message = Message(delivery, None, self._acceptable)
        try:
            self.handle_message(message.decode(), message)
        except Exception as exc:
            # Raised in the thread that waits for the reply.
            client_event = self._reply_events.pop(delivery.correlation_id, None)
            if client_event is not None:
                client_event.send_exception(exc)
            else:
                _log.error("A reply without a pending call could not be handled", exc_info=True)

    def on_unknown_reply(self, correlation_id: str | None) -> None:
        """Called for a reply without a pending call: a late one, for example."""
        _log.debug("Unknown correlation id: %s", correlation_id)


# Recorded before anything can patch it.
_REPLY_HOOKS = methods_of(ReplyListener, "handle_message")
