"""Orders over HTTP: JSON, statuses, errors, a stream. All workers share the store, a dictionary.

$ nameko run examples.http.orders
$ curl -i localhost:8000/orders --json '{"item": "nut", "count": 3}'
$ curl localhost:8000/orders/1
$ curl 'localhost:8000/orders?item=nut'
$ curl localhost:8000/orders.csv
"""

import itertools
import json

from werkzeug.wrappers import Response

from nameko.extensions import DependencyProvider
from nameko.web.handlers import http


class Store(DependencyProvider):
    """Injects the orders, keyed by number."""

    def setup(self):
        self.orders = {}

    def get_dependency(self, worker_ctx):
        return self.orders


class Orders:
    name = "orders"

    numbers = itertools.count(1)
    orders = Store()

    @http("GET", "/orders/<int:number>")
    def order(self, request, number):
        order = self.orders.get(number)
        if order is None:
            return 404, "Error: NotFound: no order {}\n".format(number)
        return as_json(order)

    @http("GET", "/orders")
    def list(self, request):
        item = request.args.get("item")
        orders = dict(self.orders)
        return as_json({n: order for n, order in orders.items() if item in (None, order["item"])})

    @http("POST", "/orders", expected_exceptions=ValueError)
    def add(self, request):
        order = request.get_json()
        if order["count"] == 0:
            raise ValueError("an order of nothing")
        number = next(self.numbers)
        self.orders[number] = order
        return as_json(number, status=201, headers={"Location": "/orders/{}".format(number)})

    @http("DELETE", "/orders/<int:number>")
    def cancel(self, request, number):
        self.orders.pop(number, None)
        return 204, ""

    # Streams the lines one by one.
    @http("GET", "/orders.csv")
    def export(self, request):
        orders = dict(self.orders)
        lines = ("{},{item},{count}\n".format(n, **order) for n, order in orders.items())
        return Response(lines, mimetype="text/csv")


def as_json(value, **options):
    return Response(json.dumps(value), mimetype="application/json", **options)
