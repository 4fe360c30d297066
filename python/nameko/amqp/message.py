"""Received messages, with the attributes and methods of kombu's."""

from __future__ import annotations

from typing import Any

from kombu.exceptions import MessageStateError

from nameko import serialization
from nameko._nameko import AmqpError, Delivery, Options


class Channel:
    """The channel of a message. ``connection`` is None after the loss of the connection."""

    __slots__ = ("_consumers",)

    def __init__(self, consumers: Any) -> None:
        self._consumers = consumers

    @property
    def connection(self) -> Any:
        return self._consumers if self._consumers.connected else None


class Message:
    """A delivery from the broker, to be acknowledged, rejected or requeued once."""

    __slots__ = (
        "__dict__",
        "__weakref__",
        "_decoded",
        "_delivery_info",
        "_state",
        "accept",
        "channel",
        "content_encoding",
        "content_type",
        "delivery",
        "failed_in",
        "headers",
        "reply_in_background",
        "reply_is_last",
    )

    MessageStateError = MessageStateError

    def __init__(self, delivery: Delivery, channel: Channel | None, accept: Any) -> None:
        # Compiled half of the message.
        self.delivery = delivery
        self.channel = channel
        # Content types that may be decoded.
        self.accept = accept
        self.headers: dict[str, Any] = delivery.headers
        self.content_type: str | None = delivery.content_type
        self.content_encoding: str | None = delivery.content_encoding
        # RECEIVED, ACK, REJECTED or REQUEUED.
        self._state = "RECEIVED"
        # Whether respond() may return before the confirm: no code depends on the sent reply.
        self.reply_in_background = False
        # Whether the reply may be batched with those of the next messages: no blocking code runs
        # after it on this thread.
        self.reply_is_last = False
        # The name of its queue, if its method has failed: a requeue then waits for a while.
        self.failed_in: str | None = None
        # Created on first access.
        self._delivery_info: dict[str, Any] | None = None
        # A list with the decoded body as its only item.
        self._decoded: list[Any] | None = None

    @property
    def properties(self) -> dict[str, Any]:
        return self.delivery.properties

    @property
    def delivery_info(self) -> dict[str, Any]:
        if self._delivery_info is None:
            delivery = self.delivery
            self._delivery_info = {
                "consumer_tag": delivery.consumer_tag,
                "delivery_tag": delivery.delivery_tag,
                "redelivered": delivery.redelivered,
                "exchange": delivery.exchange,
                "routing_key": delivery.routing_key,
            }
        return self._delivery_info

    @property
    def delivery_tag(self) -> int:
        return self.delivery.delivery_tag

    @property
    def body(self) -> Any:
        """The decompressed body, decoded to a string if it has a matching content encoding."""
        body = serialization.decompressed_body(self.delivery)
        return serialization.decoded_text(body, self.content_encoding)

    @property
    def payload(self) -> Any:
        """The decoded body."""
        return self.decode()

    def decode(self) -> Any:
        """Decodes the body. ``DecodeError`` if that fails, ``ContentDisallowed`` for other
        types."""
        decoded = self._decoded
        if decoded is None:
            decoded = self._decoded = [serialization.decode(self.delivery, self.accept)]
        return decoded[0]

    @property
    def acknowledged(self) -> bool:
        return self._state != "RECEIVED"

    def ack(self, multiple: bool = False) -> None:
        """Acknowledges the message. A no-op if its connection has been lost."""
        self._settle("ACK")
        self.delivery.ack()

    def reject(self, requeue: bool = False) -> None:
        """Rejects the message, to the dead letter exchange or back to the queue."""
        self._settle("REQUEUED" if requeue else "REJECTED")
        if requeue and self.failed_in is not None:
            self.delivery.requeue_after_pause(self.failed_in)
        else:
            self.delivery.reject(requeue=requeue)

    def requeue(self) -> None:
        """Returns the message to its queue."""
        self.reject(requeue=True)

    def respond(
        self,
        options: Options,
        exchange: str,
        body: bytes,
        content_type: str,
        content_encoding: str,
    ) -> None:
        """Publishes a reply to this request, waits for its confirm, then acknowledges the request.

        If the broker does not take charge of it, requeues the request and raises ``AmqpError``.
        """
        if self._state != "RECEIVED":
            # Settled already: only the reply is sent.
            self.delivery.respond(
                options, exchange, body, content_type, content_encoding, ack=False
            )
            return
        try:
            self.delivery.respond(
                options,
                exchange,
                body,
                content_type,
                content_encoding,
                True,
                not self.reply_in_background,
                self.reply_is_last,
            )
        except AmqpError:
            if self.delivery.acknowledged:
                self._state = "REQUEUED"
            raise
        self._state = "ACK"

    def _settle(self, state: str) -> None:
        if self._state != "RECEIVED":
            raise MessageStateError(
                "Message already acknowledged with state: {}".format(self._state)
            )
        self._state = state

    def __repr__(self) -> str:
        return "<{} [{}] delivery_tag={} at 0x{:x}>".format(
            type(self).__name__, self._state, self.delivery_tag, id(self)
        )
