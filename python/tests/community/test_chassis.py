"""nameko-chassis: a base class for services, and introspection. Requires version 3."""

import os

import pytest
import requests
from nameko_chassis.containers import ServiceContainerWithLogging
from nameko_chassis.debug import debug_runner
from nameko_chassis.dependencies import ServiceDiscoveryProvider
from nameko_chassis.service import Service
from nameko_prometheus.utils import reset_prometheus_registry

from nameko._nameko import Broker
from nameko.rpc import RpcProxy, rpc
from nameko.runners import ServiceRunner
from nameko.standalone.rpc import ClusterRpcProxy
from nameko.testing.rabbit import default_api_uri
from nameko.testing.utils import get_extension
from nameko.web.server import WebServer

CONTAINER = "nameko_chassis.containers.ServiceContainerWithLogging"


@pytest.fixture
def management(broker_uri):
    """The URI of a broker, and the address of its management API."""
    if "NAMEKO_TEST_AMQP_URI" in os.environ:
        yield broker_uri, default_api_uri(broker_uri).split("@")[1]
        return
    broker = Broker(management_port=0)
    yield broker.uri, broker.management_uri.split("@")[1]
    broker.stop()


@pytest.fixture
def runner(management, uid):
    uri, api = management

    class Front(Service):
        name = "front_{}_service".format(uid)
        back = RpcProxy("back_{}_service".format(uid), timeout=10)
        discovery = ServiceDiscoveryProvider(api, "guest", "guest")

        @rpc
        def ask(self):
            # Imports eventlet, for a timeout that only works with upstream.
            from nameko_chassis.health import is_service_responsive

            return is_service_responsive(self.back)

        @rpc
        def find(self):
            return self.discovery.find_services()

        @rpc
        def look(self):
            debug_runner(runner)

    class Back(Service):
        name = "back_{}_service".format(uid)

    runner = ServiceRunner(
        {
            "AMQP_URI": uri,
            "WEB_SERVER_ADDRESS": "127.0.0.1:0",
            "SERVICE_CONTAINER_CLS": CONTAINER,
        }
    )
    runner.add_service(Front)
    runner.add_service(Back)
    runner.start()
    yield runner
    runner.stop()
    for name in runner.service_names:
        reset_prometheus_registry(name)


def test_inspects_running_services(runner, management, uid, capsys):
    front = "front_{}_service".format(uid)
    [container] = [found for found in runner.containers if found.service_name == front]
    assert isinstance(container, ServiceContainerWithLogging)
    with ClusterRpcProxy({"AMQP_URI": management[0]}, timeout=10) as cluster:
        assert cluster[front].say_hello() == "Hello from {}!".format(front)
        assert cluster[front].ask() is True
        found = cluster[front].find()
        assert {front, "back_{}_service".format(uid)} <= set(found)
        cluster[front].look()
        state = cluster[front].query_state()
    assert "Front.look" in capsys.readouterr().out
    assert state["service_name"] == front
    assert state["max_workers"] == 10
    # Workers that have replied may still be running.
    assert state["running_workers"] == len(state["worker_states"])
    methods = [worker["method_name"] for worker in state["worker_states"]]
    worker = state["worker_states"][methods.index("query_state")]
    # The worker was in the inspecting method.
    assert any("from_container" in line for line in worker["stacktrace"])
    port = get_extension(container, WebServer).address.port
    metrics = requests.get("http://127.0.0.1:{}/metrics".format(port), timeout=10).text
    assert front + '_rpc_requests_total{method_name="say_hello"} 1.0' in metrics
