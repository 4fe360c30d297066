"""Notifies customers of their orders. An event whose notification fails becomes a dead letter."""

import logging
from uuid import UUID

from kombu import Queue
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from examples.shop.tables import Notification
from nameko.contrib.sqlalchemy import DatabaseSession
from nameko.events import event_handler
from nameko.messaging import consume
from nameko.rpc import rpc

log = logging.getLogger(__name__)

FAILED = Queue("shop-notifications-failed", durable=True)
DEAD_LETTERS = {
    "x-dead-letter-exchange": "",
    "x-dead-letter-routing-key": FAILED.name,
}


class Bounced(Exception):
    """The mail server refused the address."""


class Notifications:
    name = "notifications"

    session: Session = DatabaseSession()

    @event_handler(
        "orders",
        "order_placed",
        reject_on_error=True,
        queue_arguments=DEAD_LETTERS,
        expected_exceptions=Bounced,
    )
    def notify(self, order):
        # An event may arrive twice; a customer is notified once.
        if self.record(order, sent=True):
            send_mail(order["customer"], "You ordered {count} of {product}.".format(**order))

    @consume(FAILED)
    def keep(self, order):
        self.record(order, sent=False)
        log.error("%s was not notified of order %s", order["customer"], order["id"])

    @rpc
    def status(self, order_id):
        """Returns `sent` or `failed`, None before."""
        notification = self.session.get(Notification, UUID(order_id))
        if notification is None:
            return None
        return "sent" if notification.sent else "failed"

    def record(self, order, sent):
        """Records the notification of an order, and returns False if it was recorded already."""
        row = {"order_id": UUID(order["id"]), "customer": order["customer"], "sent": sent}
        recorded = insert(Notification).values(row).on_conflict_do_nothing()
        return self.session.scalar(recorded.returning(Notification.order_id)) is not None


def send_mail(customer, text):
    """Logs the mail in place of a mail server."""
    if customer == "void":
        raise Bounced("no mailbox {}".format(customer))
    log.info("mail to %s: %s", customer, text)
