"""A shop dispatches an event, a warehouse and all caches handle it.

`nameko run examples.events.events` runs them; `n.rpc.shop.pay(17)` in `nameko shell` pays an order.
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

    # Runs in one instance per order. The queue keeps orders paid while no instance ran.
    @event_handler("shop", "order_paid")
    def pack(self, paid):
        print("packed order {}".format(paid["order"]))


class Cache:
    name = "cache"

    # Runs in every instance, for any event. An instance that was not running has nothing to forget.
    @event_handler("shop", "#", handler_type=BROADCAST, reliable_delivery=False)
    def forget(self, paid):
        print("forgot order {}".format(paid["order"]))
