"""The reply to a request."""

from __future__ import annotations

from logging import getLogger
from typing import Any

from kombu import Exchange

from nameko import _nameko
from nameko.amqp import connection, publish
from nameko.amqp.message import Message
from nameko.amqp.publish import Publisher
from nameko.rpc.stages import encode_reply, reply_serializer

_log = getLogger("nameko.rpc")


class Responder:
    """Sends the reply to one request."""

    publisher_cls = Publisher

    def __init__(
        self,
        amqp_uri: str,
        exchange: Exchange,
        serializer: str,
        message: Any,
        ssl: Any = None,
        login_method: str | None = None,
        heartbeat: connection.Heartbeat = connection.UNSET,
    ) -> None:
        self.amqp_uri = amqp_uri
        # For requests whose content type names no serializer.
        self.serializer = serializer
        self.message = message
        self.exchange = exchange
        self.ssl = ssl
        self.login_method = login_method
        self.heartbeat = heartbeat

    def send_response(self, result: Any, exc_info: Any) -> tuple[Any, Any]:
        """Sends the result of a method or its exception, serialized like the request.

        Returns the result and exc_info that dependencies see.
        """
        message = self.message
        if isinstance(message, Message):
            requested_type, reply_to = message.content_type, message.delivery.reply_to
        else:
            properties = message.properties
            requested_type, reply_to = properties.get("content_type"), properties.get("reply_to")
        serializer = reply_serializer(requested_type, self.serializer)
        result, exc_info, error, serializer, content_type, content_encoding, body = encode_reply(
            result, exc_info, serializer, self.serializer
        )

        if reply_to is None:
            _log.warning("A request has no reply_to: nobody will get its result (%s)", message)
        elif self._is_compiled():
            self._respond(body, content_type, content_encoding)
        else:
            settings: dict[str, Any] = {"ssl": self.ssl, "login_method": self.login_method}
            if self.heartbeat is not connection.UNSET:
                settings["heartbeat"] = self.heartbeat
            publisher = self.publisher_cls(self.amqp_uri, **settings)
            publisher.publish(
                {"result": result, "error": error},
                serializer=serializer,
                exchange=self.exchange,
                routing_key=reply_to,
                correlation_id=message.properties.get("correlation_id"),
            )
        return result, exc_info

    def _is_compiled(self) -> bool:
        """Whether the compiled half publishes the reply."""
        return (
            isinstance(self.message, Message)
            and self.publisher_cls is publish.Publisher
            and publish.producer_guard.intact()
        )

    def _respond(self, body: bytes, content_type: str, content_encoding: str) -> None:
        message = self.message
        try:
            message.respond(
                connection.options(self.amqp_uri, self.ssl, self.login_method, self.heartbeat),
                self.exchange.name,
                body,
                content_type,
                content_encoding,
            )
        except _nameko.AmqpError as exc:
            _log.error(
                "The reply to `%s` could not be sent, %s: %s",
                message.delivery.routing_key,
                "the request goes back to its queue"
                if message.acknowledged
                else "its caller will not receive one",
                exc,
            )
