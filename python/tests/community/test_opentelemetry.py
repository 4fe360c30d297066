"""opentelemetry-instrumentation-nameko: patches the classes of version 3."""

import pytest
from nameko_opentelemetry import NamekoInstrumentor
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from nameko.events import EventDispatcher, event_handler
from nameko.rpc import RpcProxy, rpc
from nameko.testing.services import entrypoint_waiter


@pytest.fixture
def spans():
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    instrumentor = NamekoInstrumentor()
    instrumentor.instrument()
    yield exporter.get_finished_spans
    instrumentor.uninstrument()


def test_a_call_and_its_consequences_are_one_trace(serve, cluster, spans, uid):
    class Service:
        name = "service-" + uid
        peer = RpcProxy("service-" + uid)
        dispatch = EventDispatcher()

        @rpc
        def front(self):
            return self.peer.back()

        @rpc
        def back(self):
            self.dispatch("happened", 1)
            return "done"

        @event_handler("service-" + uid, "happened")
        def handle(self, data):
            pass

    container = serve(Service)
    with entrypoint_waiter(container, "handle"):
        assert cluster[Service.name].front() == "done"
    container.stop()
    by_id = {span.context.span_id: span for span in spans()}
    [leaf] = [span for span in by_id.values() if span.name == Service.name + ".handle"]
    chain = [leaf]
    while chain[-1].parent is not None:
        chain.append(by_id[chain[-1].parent.span_id])
    assert [span.name.replace(Service.name, "service") for span in chain] == [
        "service.handle",
        "Dispatch event service.happened",
        "service.back",
        "RPC to service.back",
        "service.front",
        "RPC to service.front",
    ]
    assert {span.context.trace_id for span in chain} == {leaf.context.trace_id}
