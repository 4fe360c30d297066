"""A shop tells what was paid; a warehouse packs it, and every cache forgets it.

`nameko run examples.events.events` runs them; `n.rpc.shop.pay(17)` in `nameko shell` pays.
"""

from nameko.events import BROADCAST, EventDispatcher, event_handler
from nameko.rpc import rpc


class Shop:
    name = "shop"

    dispatch = EventDispatcher()

    @rpc
    def pay(self, order):
        self.dispatch("order_paid", {"order": order})


class Warehouse:
    name = "warehouse"

    # One instance packs each order, also when none was running when it was paid.
    @event_handler("shop", "order_paid")
    def pack(self, paid):
        print("packed order {}".format(paid["order"]))


class Cache:
    name = "cache"

    # Every instance forgets what it knew, whatever has happened; one that was not running knew
    # nothing.
    @event_handler("shop", "#", handler_type=BROADCAST, reliable_delivery=False)
    def forget(self, paid):
        print("forgot order {}".format(paid["order"]))
