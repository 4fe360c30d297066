"""Unit tests of the shop: methods with mocks for their dependencies, without broker or database."""

import json
from unittest.mock import call
from uuid import UUID, uuid4

import pytest
from werkzeug.exceptions import Unauthorized
from werkzeug.test import EnvironBuilder

from examples.shop import notifications
from examples.shop.errors import NotFound, OutOfStock
from examples.shop.feed import Feed
from examples.shop.gateway import Gateway
from examples.shop.notifications import Bounced, Notifications
from examples.shop.orders import Orders
from examples.shop.reports import Reports
from examples.shop.stock import Stock
from examples.shop.tables import Order, OutboxEvent, Product, Reservation
from nameko.containers import ServiceContainer
from nameko.exceptions import RpcTimeout, UnknownService
from nameko.testing.services import entrypoint_hook, replace_dependencies, worker_factory

ORDER_ID = str(uuid4())
ORDER = {"id": ORDER_ID, "customer": "ada", "product": "nut", "count": 3}


class TestOrders:
    def test_placing_adds_an_event_and_reserves(self):
        orders = worker_factory(Orders, customer="ada")
        assert orders.place(ORDER_ID, "nut", 3) == ORDER
        [event] = orders.session.add.call_args.args
        assert isinstance(event, OutboxEvent)
        assert (event.event, event.data) == ("order_placed", ORDER)
        orders.stock.reserve.assert_called_once_with(ORDER_ID, "nut", 3)

    def test_a_repeated_request_neither_adds_nor_reserves(self):
        orders = worker_factory(Orders, customer="ada")
        orders.session.scalar.return_value = None
        assert orders.place(ORDER_ID, "nut", 3) == ORDER
        orders.session.add.assert_not_called()
        orders.stock.reserve.assert_not_called()

    def test_out_of_stock_is_the_error_of_the_caller(self):
        orders = worker_factory(Orders, customer="ada")
        orders.stock.reserve.side_effect = OutOfStock("2 of nut available")
        with pytest.raises(OutOfStock):
            orders.place(ORDER_ID, "nut", 3)

    @pytest.mark.parametrize("customer", ["bob", None])
    def test_orders_of_others_are_not_found(self, customer):
        orders = worker_factory(Orders, customer=customer)
        orders.session.get.return_value = Order(**{**ORDER, "id": UUID(ORDER_ID)})
        with pytest.raises(NotFound):
            orders.get(ORDER_ID)
        orders.customer = "ada"
        assert orders.get(ORDER_ID) == ORDER

    def test_the_relay_dispatches_and_deletes_in_order(self):
        orders = worker_factory(Orders)
        events = [OutboxEvent(event="order_placed", data={"number": n}) for n in range(2)]
        orders.session.scalars.return_value = events
        orders.relay()
        assert orders.dispatch.mock_calls == [call(e.event, e.data) for e in events]
        assert orders.session.delete.mock_calls == list(map(call, events))


class TestStock:
    @staticmethod
    def stock(product, reservation=None):
        """Returns a worker that finds these rows."""
        stock = worker_factory(Stock)
        rows = {Product: product, Reservation: reservation}
        stock.session.get.side_effect = lambda table, key, **options: rows[table]
        return stock

    def test_reserves_items(self):
        nut = Product(name="nut", available=3)
        stock = self.stock(nut)
        stock.reserve(ORDER_ID, "nut", 3)
        assert nut.available == 0
        [reservation] = stock.session.add.call_args.args
        assert (str(reservation.order_id), reservation.count) == (ORDER_ID, 3)

    def test_a_repeated_request_reserves_nothing(self):
        nut = Product(name="nut", available=3)
        stock = self.stock(nut, Reservation())
        stock.reserve(ORDER_ID, "nut", 3)
        assert nut.available == 3
        stock.session.add.assert_not_called()

    def test_reserves_no_more_than_there_are(self):
        with pytest.raises(OutOfStock, match="2 of nut available"):
            self.stock(Product(name="nut", available=2)).reserve(ORDER_ID, "nut", 3)

    def test_unknown_products_are_not_found(self):
        stock = self.stock(None)
        with pytest.raises(NotFound, match="no product x"):
            stock.available("x")
        with pytest.raises(NotFound, match="no product x"):
            stock.reserve(ORDER_ID, "x", 1)


class TestNotifications:
    @pytest.fixture
    def mails(self, monkeypatch):
        sent = []
        monkeypatch.setattr(notifications, "send_mail", lambda *mail: sent.append(mail))
        return sent

    def test_notifies_once(self, mails):
        service = worker_factory(Notifications)
        service.notify(ORDER)
        assert mails == [("ada", "You ordered 3 of nut.")]
        service.session.scalar.return_value = None  # recorded already
        service.notify(ORDER)
        assert len(mails) == 1

    def test_a_bounce_is_an_error_so_that_the_event_is_rejected(self):
        service = worker_factory(Notifications)
        with pytest.raises(Bounced):
            service.notify({**ORDER, "customer": "void"})


class TestReports:
    @pytest.mark.parametrize("method", ["make", "get"])
    def test_rejects_other_days(self, method):
        with pytest.raises(ValueError, match="yesterday"):
            getattr(worker_factory(Reports), method)("yesterday")

    def test_there_is_no_report_before_it_is_made(self):
        reports = worker_factory(Reports)
        reports.session.get.return_value = None
        assert reports.get("2026-03-02") is None


class TestFeed:
    @pytest.fixture
    def feed(self):
        return worker_factory(Feed, config={"TOKENS": {"secret": "ada"}}, customer="ada")

    def test_the_token_is_the_customer(self, feed):
        request = EnvironBuilder(query_string={"token": "secret"}).get_request()
        assert feed.admit(request) == {"user_id": "ada"}
        feed.enter("socket", request)
        feed.hub.subscribe.assert_called_once_with("socket", "ada")

    @pytest.mark.parametrize("query", [{}, {"token": "other"}])
    def test_refuses_others(self, feed, query):
        with pytest.raises(Unauthorized):
            feed.admit(EnvironBuilder(query_string=query).get_request())

    def test_pushes_to_the_customer_of_the_order(self, feed):
        feed.push(ORDER)
        feed.hub.broadcast.assert_called_once_with("ada", "order_placed", ORDER)


class TestGateway:
    """The layers and the methods, in a container with mocks for the other services."""

    @pytest.fixture
    def container(self):
        config = {
            "WEB_SERVER_ADDRESS": "127.0.0.1:0",
            "ALLOWED_ORIGIN": "https://shop.example",
            "TOKENS": {"secret": "ada"},
        }
        container = ServiceContainer(Gateway, config)
        self.orders, self.stock = replace_dependencies(container, "orders", "stock")
        container.start()
        yield container
        container.kill()

    @staticmethod
    def send(container, name, *values, token="secret", **options):
        headers = {"Authorization": "Bearer " + token} if token else {}
        request = EnvironBuilder(headers=headers, **options).get_request()
        with entrypoint_hook(container, name) as hook:
            response = hook(request, *values)
        assert response.headers["Access-Control-Allow-Origin"] == "https://shop.example"
        return response

    def test_places_an_order(self, container):
        self.orders.place.side_effect = lambda order_id, product, count: {**ORDER, "id": order_id}
        order = {"product": "nut", "count": 3}
        response = self.send(container, "place", method="POST", json=order)
        [order_id, product, count] = self.orders.place.call_args.args
        assert (product, count) == ("nut", 3)
        assert (response.status_code, response.location) == (201, "/orders/" + order_id)

    @pytest.mark.parametrize("token", [None, "other"])
    def test_refuses_calls_without_a_token(self, container, token):
        response = self.send(container, "product", "nut", token=token)
        assert response.status_code == 401
        self.stock.available.assert_not_called()

    @pytest.mark.parametrize(
        ("error", "status", "detail"),
        [
            (NotFound("no product nut"), 404, "no product nut"),
            (OutOfStock("2 of nut available"), 409, "2 of nut available"),
            (UnknownService("stock"), 503, "Unknown service `stock`"),
            (RpcTimeout("no reply"), 504, "no reply"),
        ],
    )
    def test_formats_errors_of_services(self, container, error, status, detail):
        self.stock.available.side_effect = error
        response = self.send(container, "product", "nut")
        assert response.mimetype == "application/problem+json"
        problem = json.loads(response.get_data())
        assert (response.status_code, problem["status"], problem["detail"]) == (
            status,
            status,
            detail,
        )

    def test_keeps_internal_errors_internal(self, container):
        self.stock.available.side_effect = KeyError("password")
        response = self.send(container, "product", "nut")
        assert response.status_code == 500
        assert "password" not in response.get_data(as_text=True)
