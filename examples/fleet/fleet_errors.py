"""An exception whose class all services and clients of the fleet know."""

from nameko.exceptions import deserialize_to_instance


@deserialize_to_instance
class NotFound(Exception):
    def __str__(self):
        return "no order {}".format(*self.args)
