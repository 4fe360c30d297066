"""The reply to a request."""

from __future__ import annotations

import sys
from logging import getLogger
from typing import Any

from kombu import Exchange
from kombu.serialization import registry

from nameko import _nameko, serialization
from nameko.amqp import connection, publish
from nameko.amqp.message import Message
from nameko.amqp.publish import Publisher
from nameko.exceptions import UnserializableValueError, serialize

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
    ) -> None:
        self.amqp_uri = amqp_uri
        # Used where the request does not say how to serialize the reply.
        self.serializer = serializer
        self.message = message
        self.exchange = exchange
        self.ssl = ssl
        self.login_method = login_method

    def send_response(self, result: Any, exc_info: Any) -> tuple[Any, Any]:
        """Send what a method returned or raised; return what dependencies are to see of it.

        The reply is serialized as the request was. A result that cannot be is replaced by an error.
        """
        message = self.message
        direct = isinstance(message, Message) and self.publisher_cls is _Publisher
        content_type = message.content_type if direct else message.properties.get("content_type")
        serializer = registry.type_to_name.get(content_type)
        if serializer not in registry._encoders:
            serializer = self.serializer

        error = serialize(exc_info[1]) if exc_info is not None else None
        try:
            encoded = serialization.dumps({"result": result, "error": error}, serializer)
        except Exception:
            exc_info = sys.exc_info()
            error = serialize(UnserializableValueError(result))
            result = None
            encoded = None

        reply_to = message.delivery.reply_to if direct else message.properties.get("reply_to")
        if reply_to is None:
            _log.warning("A request has no reply_to: nobody will get its result (%s)", message)
        elif direct and publish.get_producer is _get_producer:
            if encoded is None:
                encoded = serialization.dumps({"result": None, "error": error}, serializer)
            self._respond(encoded)
        else:
            publisher = self.publisher_cls(
                self.amqp_uri, ssl=self.ssl, login_method=self.login_method
            )
            publisher.publish(
                {"result": result, "error": error},
                serializer=serializer,
                exchange=self.exchange,
                routing_key=reply_to,
                correlation_id=message.properties.get("correlation_id"),
            )
        return result, exc_info

    def _respond(self, encoded: tuple[str, str, bytes]) -> None:
        content_type, content_encoding, body = encoded
        message = self.message
        try:
            message.respond(
                connection.options(self.amqp_uri, self.ssl, self.login_method),
                self.exchange.name,
                body,
                content_type,
                content_encoding,
            )
        except _nameko.AmqpError as exc:
            # The broker was away for longer than was retried. The request is not done with: it
            # comes again, here or elsewhere, once the broker is back.
            lost = exc.kind in ("lost", "io", "timeout")
            _log.error(
                "The reply to `%s` could not be sent, %s: %s",
                message.delivery.routing_key,
                "the request goes back to its queue" if lost else "its caller will not get one",
                exc,
            )
            if lost and not message.acknowledged:
                message.requeue()


# The originals: where a test or an extension has put something else, that is used.
_Publisher = Publisher
_get_producer = publish.get_producer
