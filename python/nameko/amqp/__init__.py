"""AMQP: publishing, and conversions for the compiled client."""

from nameko.amqp.errors import UnsendableMessage
from nameko.amqp.publish import UndeliverableMessage, get_connection, get_producer

__all__ = ["UndeliverableMessage", "UnsendableMessage", "get_connection", "get_producer"]
