"""The orders: one transaction per worker, committed before the caller has the reply.

Events leave through an outbox, a table of the same transaction, so that an event is dispatched if
and only if its order is committed.
"""

from datetime import datetime, timedelta, timezone
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from examples.shop.errors import NotFound, OutOfStock
from examples.shop.tables import Order, OutboxEvent
from nameko.contextdata import UserId
from nameko.contrib.sqlalchemy import DatabaseSession
from nameko.events import EventDispatcher
from nameko.rpc import RpcProxy, rpc
from nameko.timer import timer


class Orders:
    name = "orders"

    session: Session = DatabaseSession()
    customer = UserId()
    # Less than the timeout of the gateway, whose client could not know the outcome.
    stock = RpcProxy("stock", timeout=20)
    dispatch = EventDispatcher()

    @rpc(expected_exceptions=(NotFound, OutOfStock))
    def place(self, order_id, product, count):
        """Places an order of the calling customer, and returns it.

        If this process dies, the broker repeats the request. An id that exists is not placed again.
        """
        order = {"id": order_id, "customer": self.customer, "product": product, "count": count}
        row = insert(Order).values({**order, "id": UUID(order_id)}).on_conflict_do_nothing()
        if self.session.scalar(row.returning(Order.id)):
            self.session.add(OutboxEvent(event="order_placed", data=order))
            # The last step: a failure before it reserves nothing.
            self.stock.reserve(order_id, product, count)
        return order

    @rpc(expected_exceptions=NotFound)
    def get(self, order_id):
        """Returns an order of the calling customer."""
        order = self.session.get(Order, UUID(order_id))
        if order is None or order.customer != self.customer:
            raise NotFound("no order {}".format(order_id))
        return {
            "id": order_id,
            "customer": order.customer,
            "product": order.product,
            "count": order.count,
        }

    @timer(interval=0.2)
    def relay(self):
        """Dispatches the committed events. After a crash an event may be dispatched twice."""
        events = select(OutboxEvent).order_by(OutboxEvent.id).limit(100)
        for event in self.session.scalars(events.with_for_update(skip_locked=True)):
            self.dispatch(event.event, event.data)
            self.session.delete(event)

    @rpc
    def placed(self, order_ids):
        """Returns those of the ids that are the ids of orders."""
        ids = [UUID(order_id) for order_id in order_ids]
        return [str(id) for id in self.session.scalars(select(Order.id).where(Order.id.in_(ids)))]

    @rpc(expected_exceptions=ValueError)
    def totals(self, day):
        """Returns the numbers of orders and items of a day in UTC, such as `2026-03-02`."""
        begin = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=timezone.utc)
        totals = select(func.count(), func.coalesce(func.sum(Order.count), 0))
        of_day = totals.where(Order.placed_at >= begin, Order.placed_at < begin + timedelta(days=1))
        orders, items = self.session.execute(of_day).one()
        return {"orders": orders, "items": items}
