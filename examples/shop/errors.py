"""Errors that all services of the shop know, in both languages."""

from nameko.exceptions import deserialize_to_instance


@deserialize_to_instance
class NotFound(Exception):
    """An order or a product that does not exist."""


@deserialize_to_instance
class OutOfStock(Exception):
    """Fewer items available than ordered."""
