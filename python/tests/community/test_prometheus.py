"""nameko-prometheus: metrics of entrypoints, served over HTTP."""

import threading
from queue import SimpleQueue

import pytest
import requests
from nameko_prometheus import PrometheusMetrics
from nameko_prometheus.utils import reset_prometheus_registry

from nameko.events import EventDispatcher, event_handler
from nameko.rpc import rpc
from nameko.testing.services import entrypoint_waiter
from nameko.testing.utils import assert_stops_raising, get_extension
from nameko.timer import timer
from nameko.web.handlers import http
from nameko.web.server import WebServer


@pytest.fixture
def service(serve, uid):
    """A running service and its base URL. Its metrics have the prefix `shop`."""
    ticks = SimpleQueue()

    class Shop:
        name = "shop-" + uid
        metrics = PrometheusMetrics()
        dispatch = EventDispatcher()

        @http("GET", "/metrics")
        def serve_metrics(self, request):
            return self.metrics.expose_metrics(request)

        @http("GET", "/item/<int:number>")
        def item(self, request, number):
            if number > 9:
                raise ValueError("no such item")
            return 201, "item {}".format(number)

        @rpc
        def buy(self):
            self.dispatch("bought", 1)

        @event_handler("shop-" + uid, "bought")
        def count(self, data):
            return threading.get_ident()

        @timer(interval=60, eager=True)
        def tick(self):
            ticks.put("tick")

    config = {"PROMETHEUS": {"shop-" + uid: {"prefix": "shop"}}}
    container = serve(Shop, WEB_SERVER_ADDRESS="127.0.0.1:0", **config)
    assert ticks.get(timeout=10) == "tick"
    yield container, "http://127.0.0.1:{}".format(get_extension(container, WebServer).address.port)
    container.stop()
    reset_prometheus_registry("shop")


def test_counts_all_kinds_of_entrypoints(service, cluster):
    container, url = service
    with entrypoint_waiter(container, "count"):
        cluster[container.service_name].buy()
    assert requests.get(url + "/item/1", timeout=10).status_code == 201
    assert requests.get(url + "/item/10", timeout=10).status_code == 500
    item = 'endpoint="/item/<int:number>",http_method="GET"'
    source = 'source_service="{}"'.format(container.service_name)
    expected = {
        'shop_rpc_requests_total{method_name="buy"} 1.0',
        'shop_rpc_request_latency_seconds_count{method_name="buy"} 1.0',
        'shop_events_total{event_type="bought",' + source + "} 1.0",
        'shop_timer_requests_total{method_name="tick"} 1.0',
        "shop_http_requests_total{" + item + ',status_code="201"} 1.0',
        "shop_http_requests_total{" + item + ',status_code="500"} 1.0',
        "shop_service_max_workers 10.0",
    }

    def check():
        answer = requests.get(url + "/metrics", timeout=10)
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        lines = answer.text.splitlines()
        assert expected <= set(lines)
        [running] = [line for line in lines if line.startswith("shop_service_running_workers ")]
        assert float(running.split()[1]) >= 1

    # Polled, since a reply precedes the hooks of its worker and a tick has no reply.
    assert_stops_raising(check)


def test_counts_a_request_before_its_response(service):
    """The hooks of a worker run before the response is sent."""
    _, url = service
    for number in range(1, 20):
        requests.get(url + "/item/2", timeout=10)
        metrics = requests.get(url + "/metrics", timeout=10).text
        assert (
            'shop_http_requests_total{endpoint="/item/<int:number>",http_method="GET",'
            'status_code="201"} %.1f' % number
        ) in metrics
