"""Reports the orders of a day, once in the fleet."""

from datetime import date, datetime, timedelta, timezone

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from examples.shop.tables import Report
from nameko.contrib.sqlalchemy import DatabaseSession
from nameko.rpc import RpcProxy, rpc
from nameko.timer import timer


class Reports:
    name = "reports"

    session: Session = DatabaseSession()
    orders = RpcProxy("orders")

    # Runs in every instance, and finds no report once a day.
    @timer(interval=600, eager=True)
    def daily(self):
        # Five minutes late, when each order of the day is committed, or never will be.
        yesterday = datetime.now(timezone.utc) - timedelta(days=1, minutes=5)
        day = yesterday.date().isoformat()
        if self.get(day) is None:
            self.make(day)

    @rpc(expected_exceptions=ValueError)
    def make(self, day):
        """Makes the report of a day, such as `2026-03-02`, unless there is one, and returns it."""
        totals = self.orders.totals(day)
        # The first instance inserts the row, the others wait for its commit and insert nothing.
        report = insert(Report).values(day=date.fromisoformat(day), **totals)
        self.session.execute(report.on_conflict_do_nothing())
        return self.get(day)

    @rpc(expected_exceptions=ValueError)
    def get(self, day):
        """Returns the report of a day, None if it is not made yet."""
        report = self.session.get(Report, date.fromisoformat(day))
        return report and {"day": day, "orders": report.orders, "items": report.items}
