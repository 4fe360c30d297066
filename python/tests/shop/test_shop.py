"""The shop in real processes, used as customers and operators do."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from operator import itemgetter

import psycopg
import pytest
from shop_fleet import MIXTURES, next_push, wait_for

import websocket

# Processes start slowly on a busy machine.
pytestmark = pytest.mark.timeout(300)

PAGE_ORIGIN = "http://127.0.0.1:8001"


def is_problem(response, status, title):
    assert response.status == status, response.json()
    assert response.headers["Content-Type"] == "application/problem+json"
    assert (response.json()["status"], response.json()["title"]) == (status, title)
    # Pages may read errors, too.
    assert response.headers["Access-Control-Allow-Origin"] == PAGE_ORIGIN
    return True


def test_places_an_order(shop):
    product = shop.add_product(10)
    placed = shop.order(product, 3)
    assert placed.status == 201
    order = {"id": placed.json()["id"], "customer": "ada", "product": product, "count": 3}
    assert placed.json() == order
    found = shop.request("GET", placed.headers["Location"])
    assert (found.status, found.json()) == (200, order)
    assert shop.available(product) == 7
    # An order is the business of its customer.
    others = shop.request("GET", placed.headers["Location"], customer="bob")
    assert is_problem(others, 404, "Not Found")


@pytest.mark.parametrize("customer", [None, "eve"])
def test_needs_the_token_of_a_customer(shop, customer):
    product = shop.add_product(10)
    refused = shop.order(product, customer=customer)
    assert is_problem(refused, 401, "Unauthorized")
    assert refused.headers["WWW-Authenticate"].lower().startswith("bearer")
    assert shop.available(product) == 10


def test_pages_may_send_orders(shop):
    preflight = shop.request(
        "OPTIONS",
        "/orders",
        customer=None,
        headers={
            "Origin": PAGE_ORIGIN,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        },
    )
    assert preflight.status in (200, 204)
    headers = {name.lower(): value.lower() for name, value in preflight.headers.items()}
    assert headers["access-control-allow-origin"] == PAGE_ORIGIN
    assert "post" in headers["access-control-allow-methods"]
    assert "authorization" in headers["access-control-allow-headers"]
    assert "content-type" in headers["access-control-allow-headers"]
    placed = shop.order(shop.add_product(1))
    assert placed.headers["Access-Control-Allow-Origin"] == PAGE_ORIGIN


def test_unknown_products_and_orders_are_not_found(shop):
    unknown = shop.order("nothing")
    assert is_problem(unknown, 404, "Not Found")
    assert unknown.json()["detail"] == "no product nothing"
    assert is_problem(shop.request("GET", "/products/nothing"), 404, "Not Found")
    order_id = str(uuid.uuid4())
    missing = shop.request("GET", "/orders/" + order_id)
    assert is_problem(missing, 404, "Not Found")
    assert missing.json()["detail"] == "no order " + order_id
    for path in ("/", "/nowhere", "/orders/17"):
        response = shop.request("GET", path)
        assert is_problem(response, response.status, response.json()["title"])
        # A path parameter of the wrong type is a bad request in Rust.
        assert response.status in (400, 404)


@pytest.mark.parametrize(
    "body",
    [
        "{",
        "[]",
        {},
        {"product": "nut"},
        {"count": 1},
        {"product": 7, "count": 1},
        {"product": "", "count": 1},
        *({"product": "nut", "count": count} for count in (0, -1, 1.5, "1", True, None, 2**31)),
    ],
    ids=str,
)
def test_rejects_other_bodies(shop, body):
    assert is_problem(shop.request("POST", "/orders", body), 400, "Bad Request")


def test_the_last_items_are_sold_once(shop):
    product = shop.add_product(7)
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: shop.order(product), range(20)))
    placed = [answer.json()["id"] for answer in answers if answer.status == 201]
    refused = [answer for answer in answers if answer.status != 201]
    assert all(is_problem(answer, 409, "Conflict") for answer in refused)
    assert len(placed) == 7
    assert shop.available(product) == 0
    orders = shop.sql("SELECT id::text FROM orders WHERE product = %s", product)
    assert sorted(placed) == sorted(order_id for (order_id,) in orders)
    assert refused[0].json()["detail"] == "0 of {} available".format(product)


def test_the_customer_is_notified(shop):
    placed = shop.order(shop.add_product(1)).json()
    assert shop.notification(placed) == "sent"


def test_a_notification_that_bounces_becomes_a_dead_letter(shop):
    placed = shop.order(shop.add_product(2), customer="void").json()
    assert shop.notification(placed) == "failed"
    failure = "void was not notified of order {}".format(placed["id"])
    shop.programs["notifications"].wait_for(failure)
    # The service handles the next event.
    assert shop.notification(shop.order(placed["product"]).json()) == "sent"


def test_the_feed_pushes_to_the_right_customer(shop):
    product = shop.add_product(2)
    with shop.page("ada") as of_ada, shop.page("bob") as of_bob, shop.page("bob") as also_of_bob:
        first = shop.order(product, customer="ada").json()
        second = shop.order(product, customer="bob").json()
        # The first order is pushed first, so that a wrong push would come before the right one.
        for page, order in ((of_bob, second), (also_of_bob, second), (of_ada, first)):
            pushed = next_push(page, product)
            assert (pushed["event"], pushed["data"]) == ("order_placed", order)


@pytest.mark.parametrize("query", ["", "?token=eve-secret"])
def test_the_feed_refuses_others_in_the_handshake(shop, query):
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        websocket.create_connection("ws://{}/ws{}".format(shop.addresses["feed"], query))
    assert refused.value.status_code == 401


def test_the_feed_serves_the_page(shop):
    page = shop.request("GET", "/", service="feed")
    assert page.headers["Content-Type"].startswith("text/html")
    assert 'const gateway = "http://127.0.0.1:8000"' in page.text


def test_two_instances_make_one_report(shop):
    day = "2026-03-02"
    product = shop.add_product(1)
    for count, time in ((1, "00:00:00"), (2, "23:59:59"), (4, "24:00:00")):
        shop.sql(
            "INSERT INTO orders VALUES (gen_random_uuid(), 'ada', %s, %s, %s)",
            *(product, count, "{} {}+00".format(day, time)),
        )
    report = {"day": day, "orders": 2, "items": 3}
    with shop.another("reports"), shop.client() as cluster, ThreadPoolExecutor(8) as pool:
        assert cluster.reports.get(day) is None
        made = list(pool.map(lambda _: cluster.reports.make(day), range(8)))
        assert made == [report] * 8
        # Orders that come later do not change it.
        shop.sql("DELETE FROM orders WHERE product = %s", product)
        assert cluster.reports.make(day) == cluster.reports.get(day) == report
    assert shop.sql("SELECT count(*) FROM reports WHERE day = %s", day) == [(1,)]


# Only in Python: in Rust it is made at night, see examples/shop/reports.rs.
@pytest.mark.parametrize(
    "shop", [name for name, in_rust in MIXTURES.items() if "reports" not in in_rust], indirect=True
)
def test_the_report_of_yesterday_is_made_by_itself(shop):
    yesterday = (datetime.now(timezone.utc) - timedelta(days=1, minutes=5)).date()
    made = "SELECT count(*) FROM reports WHERE day = %s"
    wait_for(lambda: shop.sql(made, yesterday) == [(1,)])


def test_a_repeated_request_places_one_order(shop):
    product = shop.add_product(10)
    order_id = str(uuid.uuid4())
    order = {"id": order_id, "customer": "ada", "product": product, "count": 2}
    with shop.client() as cluster, ThreadPoolExecutor(4) as pool, shop.page("ada") as page:
        placed = list(pool.map(lambda _: cluster.orders.place(order_id, product, 2), range(4)))
        assert placed == [order] * 4
        next_order = shop.order(product, 1).json()
        # One event of each, in any order: events are handled concurrently.
        pushed = [next_push(page, product)["data"] for _ in range(2)]
        assert sorted(pushed, key=itemgetter("count")) == [next_order, order]
    assert shop.available(product) == 7


def test_old_reservations_are_settled(shop):
    product = shop.add_product(10)
    placed = shop.order(product, 1).json()
    abandoned, new = str(uuid.uuid4()), str(uuid.uuid4())
    with shop.client() as cluster:
        cluster.stock.reserve(abandoned, product, 2)
        cluster.stock.reserve(new, product, 4)
        age = "UPDATE reservations SET reserved_at = now() - interval '6 min' WHERE order_id = %s"
        for order_id in (placed["id"], abandoned):
            shop.sql(age, order_id)
        cluster.stock.settle()
    reservations = "SELECT order_id::text, confirmed FROM reservations WHERE product = %s"
    assert dict(shop.sql(reservations, product)) == {placed["id"]: True, new: False}
    assert shop.available(product) == 5


def test_no_order_is_lost_or_half_done_when_orders_is_killed(shop):
    product = shop.add_product(100)
    with psycopg.connect(shop.database_url) as lock, ThreadPoolExecutor(5) as pool:
        # Orders wait in the middle of their transaction, for the reply of stock.
        lock.execute("SELECT FROM products WHERE name = %s FOR UPDATE", [product])
        answers = [pool.submit(shop.order, product) for _ in range(5)]
        waiting = (
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        wait_for(lambda: shop.sql(waiting) == [(5,)])
        shop.kill("orders")
        lock.rollback()
        shop.start("orders")
        placed = [answer.result() for answer in answers]
    assert [answer.status for answer in placed] == [201] * 5
    assert shop.available(product) == 95
    ids = {answer.json()["id"] for answer in placed}
    for table, column in (("orders", "id"), ("reservations", "order_id")):
        rows = "SELECT {}::text FROM {} WHERE product = %s".format(column, table)
        assert {row for (row,) in shop.sql(rows, product)} == ids
    assert [shop.notification(answer.json()) for answer in placed] == ["sent"] * 5
