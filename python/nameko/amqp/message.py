"""A received message, with the attributes and methods that kombu's has."""

from __future__ import annotations

from typing import Any

from kombu.exceptions import MessageStateError

from nameko import serialization
from nameko._nameko import AmqpError, Delivery, Options

_BINARY = frozenset({"binary", "ascii-8bit"})


class Channel:
    """Where a message came from. ``connection`` is None once the connection is gone."""

    __slots__ = ("_consumers",)

    def __init__(self, consumers: Any) -> None:
        self._consumers = consumers

    @property
    def connection(self) -> Any:
        return self._consumers if self._consumers.connected else None


class Message:
    """A delivery from the broker. To be acknowledged, rejected or requeued once."""

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
        "headers",
        "reply_in_background",
        "reply_is_last",
    )

    MessageStateError = MessageStateError

    def __init__(self, delivery: Delivery, channel: Channel | None, accept: Any) -> None:
        # The compiled half of the message.
        self.delivery = delivery
        self.channel = channel
        # The content types that may be decoded.
        self.accept = accept
        self.headers: dict[str, Any] = delivery.headers
        self.content_type: str | None = delivery.content_type
        self.content_encoding: str | None = delivery.content_encoding
        # RECEIVED, then one of ACK, REJECTED, REQUEUED.
        self._state = "RECEIVED"
        # Whether respond() need not wait: nothing looks at what comes after the reply.
        self.reply_in_background = False
        # Whether it may then be sent with the replies of the next messages: nothing that could take
        # long comes after it on this thread.
        self.reply_is_last = False
        # Made when it is first asked for.
        self._delivery_info: dict[str, Any] | None = None
        # A list of one item once the body was decoded.
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
        """The body, decompressed: text where the message names a text encoding that fits."""
        body = serialization.decompressed_body(self.delivery)
        encoding = self.content_encoding
        if encoding and encoding not in _BINARY:
            try:
                return body.decode(encoding)
            except (LookupError, UnicodeDecodeError):
                pass
        return body

    @property
    def payload(self) -> Any:
        """The decoded body."""
        return self.decode()

    def decode(self) -> Any:
        """The decoded body. ``DecodeError`` or ``ContentDisallowed`` where it cannot be read."""
        decoded = self._decoded
        if decoded is None:
            decoded = self._decoded = [serialization.decode(self.delivery, self.accept)]
        return decoded[0]

    @property
    def acknowledged(self) -> bool:
        return self._state != "RECEIVED"

    def ack(self, multiple: bool = False) -> None:
        """Tell the broker that the message is dealt with. Silent where its connection is gone."""
        self._settle("ACK")
        self.delivery.ack()

    def reject(self, requeue: bool = False) -> None:
        """Give the message back: to the dead letter exchange, or to the queue."""
        self._settle("REQUEUED" if requeue else "REJECTED")
        self.delivery.reject(requeue=requeue)

    def requeue(self) -> None:
        """Put the message back where it was in its queue."""
        self.reject(requeue=True)

    def respond(
        self,
        options: Options,
        exchange: str,
        body: bytes,
        content_type: str,
        content_encoding: str,
    ) -> None:
        """Publish a reply to this request, wait for the broker's confirm, then acknowledge.

        Where the broker cannot be reached, the request is requeued before ``AmqpError`` is raised.
        """
        if self._state != "RECEIVED":
            # Dealt with already: the reply goes out all the same, and there is nothing to settle.
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
