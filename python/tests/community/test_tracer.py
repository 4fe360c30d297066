"""nameko-tracer: log records of requests and responses."""

import json
import logging
from queue import SimpleQueue

import pytest
from nameko_tracer import Tracer
from nameko_tracer.formatters import JSONFormatter

from nameko.rpc import RpcProxy, rpc


@pytest.fixture
def traces():
    """Returns the next record in the JSON format of the tracer."""
    lines, logger = SimpleQueue(), logging.getLogger("nameko_tracer")

    class Handler(logging.Handler):
        def emit(self, record):
            lines.put(json.loads(self.format(record)))

    handler, before = Handler(), logger.level
    handler.setFormatter(JSONFormatter())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lambda: lines.get(timeout=10)
    logger.removeHandler(handler)
    logger.setLevel(before)
    assert lines.empty()


def test_logs_calls_and_results(serve, cluster, traces, uid):
    class Service:
        name = "service-" + uid
        tracer = Tracer()

        @rpc(expected_exceptions=ValueError, sensitive_arguments="password")
        def login(self, user, password):
            if not password:
                raise ValueError("no password")
            return {"user": user}

    serve(Service)
    assert cluster[Service.name].login("anna", password="secret") == {"user": "anna"}
    request, response = traces(), traces()
    assert (request["stage"], response["stage"]) == ("request", "response")
    assert request["service"] == Service.name
    assert (request["entrypoint_type"], request["entrypoint_name"]) == ("Rpc", "login")
    assert request["call_args"] == {"user": "anna", "password": "********"}
    assert request["call_args_redacted"] is True
    assert request["call_id"] == response["call_id"] == request["call_id_stack"][-1]
    assert (response["response_status"], response["response"]) == ("success", {"user": "anna"})
    assert response["response_time"] >= 0

    with pytest.raises(Exception, match="no password"):
        cluster[Service.name].login("anna", password="")
    traces()
    failed = traces()
    assert (failed["response_status"], failed["exception_type"]) == ("error", "ValueError")
    assert failed["exception_expected"] is True


def test_a_chain_of_calls_has_a_single_origin(serve, cluster, traces, uid):
    class Behind:
        name = "behind-" + uid
        tracer = Tracer()

        @rpc
        def method(self):
            pass

    class Front:
        name = "front-" + uid
        behind = RpcProxy("behind-" + uid)

        @rpc
        def method(self):
            self.behind.method()

    serve(Behind)
    serve(Front)
    cluster[Front.name].method()
    request, response = traces(), traces()
    stack = request["call_id_stack"]
    assert [call.rsplit(".", 1)[0] for call in stack] == [
        "standalone_rpc_proxy.call",
        Front.name + ".method",
        Behind.name + ".method",
    ]
    assert request["origin_call_id"] == response["origin_call_id"] == stack[0]
