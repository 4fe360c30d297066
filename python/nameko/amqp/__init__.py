"""AMQP: publishing, and conversions for the compiled client."""

from nameko.amqp.publish import UndeliverableMessage, get_connection, get_producer
from nameko.utils.lazy import lazy_attributes

__all__ = ["UndeliverableMessage", "UnsendableMessage", "get_connection", "get_producer"]

__getattr__ = lazy_attributes(__name__, {"UnsendableMessage": "nameko.amqp.errors"})
