"""Deliveries: properties, bodies and their settlement."""

import os
import queue
from datetime import datetime
from decimal import Context, Decimal, localcontext

import pytest
from topology import DEADLINE

from nameko import _nameko


class TestDelivery:
    @pytest.fixture
    def exchange_one(self, options, make_service):
        """Publishes a message and returns the queue's name and the delivery."""

        def exchange_one(body, properties):
            came = queue.Queue()
            name = make_service(came.put)
            _nameko.Publisher(options).publish(("", name, body, properties), mandatory=True)
            delivery = came.get(timeout=DEADLINE)
            delivery.ack()
            return name, delivery

        return exchange_one

    def test_has_the_published_properties(self, exchange_one):
        sent = {
            "content_type": "application/json",
            "content_encoding": "utf-8",
            "delivery_mode": 2,
            "priority": 3,
            "correlation_id": "c",
            "reply_to": "r",
            "expiration": "10000",
            "message_id": "m",
            "timestamp": 1700000000,
            "type": "t",
            "user_id": "guest",
            "app_id": "a",
            "cluster_id": None,
            "unknown": "is left out",
        }
        name, delivery = exchange_one(b"\x00body", {**sent, "application_headers": {"a": 1}})
        del sent["cluster_id"], sent["unknown"]
        assert delivery.properties == {**sent, "application_headers": {"a": 1}}
        assert delivery.body == b"\x00body"
        assert (delivery.content_type, delivery.content_encoding) == ("application/json", "utf-8")
        assert (delivery.correlation_id, delivery.reply_to) == ("c", "r")
        assert (delivery.exchange, delivery.routing_key) == ("", name)
        assert delivery.redelivered is False
        assert delivery.delivery_tag == 1
        assert delivery.consumer_tag
        assert delivery.acknowledged

    def test_headers_and_properties_are_cached(self, exchange_one):
        _, delivery = exchange_one(b"", {"headers": {"x": "y"}})
        assert delivery.headers is delivery.properties["application_headers"]
        assert delivery.properties is delivery.properties
        assert delivery.headers == {"x": "y"}

    def test_has_only_headers_if_no_properties_were_sent(self, exchange_one):
        _, delivery = exchange_one(b"", {})
        assert delivery.properties == {"application_headers": {}}
        assert delivery.content_type is None
        assert delivery.reply_to is None

    def test_headers_have_the_types_of_py_amqp(self, exchange_one):
        headers = {
            "str": "é\u20ac",
            "int": 7,
            "large": 2**40,
            "negative": -(2**40),
            "float": 1.5,
            "true": True,
            "none": None,
            "bytes": b"\xff\x00",
            "list": ["a", 1, [None]],
            "dict": {"a": {"b": []}},
            "datetime": datetime(2020, 1, 2, 3, 4, 5),
            "decimal": Decimal("-12.34"),
        }
        _, delivery = exchange_one(b"", {"headers": headers})
        assert delivery.headers == headers
        assert {name: type(value) for name, value in delivery.headers.items()} == {
            name: type(value) for name, value in headers.items()
        }

    @pytest.mark.parametrize(
        "value",
        [
            datetime(1969, 12, 31, 23, 59, 59),
            datetime(1, 1, 1),
            datetime(9999, 12, 31, 23, 59, 59),
            Decimal("-0.001"),
            Decimal("0E-255"),
            Decimal(-(2**31)),
            Decimal("2147483647E-255"),
        ],
        ids=repr,
    )
    def test_a_header_that_was_read_can_be_sent_on(self, exchange_one, value):
        _, delivery = exchange_one(b"", {"headers": {"value": value}})
        with localcontext(Context(prec=2)):
            _, again = exchange_one(b"", {"headers": delivery.headers})
        assert again.headers == {"value": value}

    def test_a_time_before_1970_can_be_sent_on(self, exchange_one):
        # As a datetime and as the numbers of a program in Java.
        for moment in (datetime(1969, 12, 31, 23, 59, 59), -1, -1.5, 2**64 - 1):
            _, delivery = exchange_one(b"", {"timestamp": moment})
            _, again = exchange_one(b"", {"timestamp": delivery.properties["timestamp"]})
            assert again.properties["timestamp"] == 2**64 - 1

    def test_receives_a_large_body(self, exchange_one):
        body = os.urandom(1024) * 3000
        _, delivery = exchange_one(body, {})
        assert delivery.body == body

    @pytest.mark.parametrize(
        ("properties", "error", "text"),
        [
            ({"headers": {"tags": {1, 2}}}, TypeError, "`tags`.*not set"),
            ({"headers": {"n": 2**64}}, ValueError, "`n`.*64 bits"),
            ({"headers": {"n": float("nan")}}, ValueError, "`n`.*no finite number"),
            ({"headers": {"n": [float("-inf")]}}, ValueError, "`n`.*no finite number"),
            ({"headers": {"n": "\ud800"}}, ValueError, "`n`.*surrogates"),
            ({"headers": {"\ud800": 1}}, ValueError, "surrogates"),
            ({"headers": {"n": Decimal("NaN")}}, ValueError, "`n`.*decimals"),
            ({"headers": {"n": Decimal(2**31)}}, ValueError, "`n`.*decimals"),
            ({"headers": {"n": Decimal("1e999999")}}, ValueError, "`n`.*decimals"),
            ({"timestamp": float("inf")}, ValueError, "`timestamp`.*finite"),
            ({"headers": {1: "one"}}, TypeError, "must be a str"),
            ({"headers": 1}, TypeError, "application_headers|headers"),
            ({"priority": 300}, OverflowError, "`priority`"),
            ({"content_type": 1}, TypeError, "`content_type`"),
            ({"expiration": -1}, ValueError, "`expiration`"),
        ],
    )
    def test_rejects_values_that_amqp_cannot_encode(self, options, properties, error, text):
        with pytest.raises(error, match=text):
            _nameko.Publisher(options).publish(("", "nowhere", b"", properties))

    def test_rejects_recursive_headers(self, options):
        endless = []
        endless.append(endless)
        with pytest.raises(ValueError, match="deep"):
            _nameko.Publisher(options).publish(("", "nowhere", b"", {"headers": {"x": endless}}))

    def test_a_requeued_message_is_redelivered(self, options, make_service):
        came = queue.Queue()

        def handler(delivery):
            if not delivery.redelivered:
                delivery.reject(requeue=True)
            came.put(delivery.redelivered)

        name = make_service(handler)
        _nameko.Publisher(options).publish(("", name, b"", {}))
        assert [came.get(timeout=DEADLINE), came.get(timeout=DEADLINE)] == [False, True]

    def test_a_raising_handler_keeps_its_thread_alive(self, options, make_service, unraisable):
        came = queue.Queue()

        def handler(delivery):
            delivery.ack()
            came.put(delivery.body)
            raise ValueError(delivery.body)

        name = make_service(handler, max_threads=1)
        publisher = _nameko.Publisher(options)
        publisher.publish(("", name, b"1", {}))
        publisher.publish(("", name, b"2", {}))
        assert [came.get(timeout=DEADLINE), came.get(timeout=DEADLINE)] == [b"1", b"2"]
        assert unraisable.get(timeout=DEADLINE).args == (b"1",)
