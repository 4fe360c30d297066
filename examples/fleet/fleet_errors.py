"""An error that services and clients of the fleet know by its class."""

from nameko.exceptions import deserialize_to_instance


@deserialize_to_instance
class NotFound(Exception):
    def __str__(self):
        return "no order {}".format(*self.args)
