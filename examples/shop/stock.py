"""The stock: products, and their reservations by order."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from examples.shop.errors import NotFound, OutOfStock
from examples.shop.tables import Product, Reservation
from nameko.contrib.sqlalchemy import DatabaseSession
from nameko.rpc import RpcProxy, rpc
from nameko.timer import timer

# The age of a reservation whose order must be committed, or never will be.
SETTLED_AFTER = timedelta(minutes=5)


class Stock:
    name = "stock"

    session: Session = DatabaseSession()
    orders = RpcProxy("orders")

    @rpc(expected_exceptions=NotFound)
    def available(self, product):
        """Returns the number of items that can be ordered."""
        found = self.session.get(Product, product)
        if found is None:
            raise NotFound("no product {}".format(product))
        return found.available

    @rpc(expected_exceptions=(NotFound, OutOfStock))
    def reserve(self, order_id, product, count):
        """Reserves items for an order. A repeated request has no effect."""
        # Locks the product until the commit, so that no two orders get the same item.
        found = self.session.get(Product, product, with_for_update=True)
        if found is None:
            raise NotFound("no product {}".format(product))
        if self.session.get(Reservation, UUID(order_id)) is not None:
            return
        if found.available < count:
            raise OutOfStock("{} of {} available".format(found.available, product))
        found.available -= count
        self.session.add(Reservation(order_id=UUID(order_id), product=product, count=count))

    @rpc
    @timer(interval=60)
    def settle(self):
        """Confirms old reservations, or releases them if placing their order has failed."""
        old = ~Reservation.confirmed & (Reservation.reserved_at < func.now() - SETTLED_AFTER)
        ids = self.session.scalars(select(Reservation.order_id).where(old)).all()
        # Before the locks below, which orders that are being placed may wait for.
        placed = self.orders.placed([str(id) for id in ids]) if ids else []
        found = select(Reservation).where(old, Reservation.order_id.in_(ids))
        for reservation in self.session.scalars(found.with_for_update(skip_locked=True)).all():
            if str(reservation.order_id) in placed:
                reservation.confirmed = True
            else:
                product = self.session.get(Product, reservation.product, with_for_update=True)
                product.available += reservation.count
                self.session.delete(reservation)
