"""nameko-grpc: gRPC servers and clients in services. Requires version 3's global config."""

import grpc
import pytest
from letters_pb2 import Letters
from letters_pb2_grpc import lettersStub
from nameko_grpc.client import Client
from nameko_grpc.dependency_provider import GrpcProxy
from nameko_grpc.entrypoint import Grpc, GrpcServer
from nameko_grpc.errors import GrpcError

import nameko
from nameko.extensions import DependencyProvider
from nameko.rpc import rpc
from nameko.testing.utils import get_extension

implements = Grpc.implementing(lettersStub)

pytestmark = pytest.mark.filterwarnings("ignore:unclosed")


class Context(DependencyProvider):
    def get_dependency(self, worker_ctx):
        return worker_ctx.data


class LettersService:
    name = "letters"
    data = Context()

    @implements
    def upper(self, request, context):
        if request.text == "fail":
            raise ValueError("as asked")
        return Letters(text=request.text.upper() + self.data.get("suffix", ""))

    @implements
    def split(self, request, context):
        for letter in request.text:
            yield Letters(text=letter)

    @implements
    def join(self, requests, context):
        return Letters(text="".join(request.text for request in requests))


@pytest.fixture
def address(serve, config):
    """The host and port of a running service."""
    with nameko.config.patch({"GRPC_BIND_HOST": "127.0.0.1", "GRPC_BIND_PORT": 0}):
        container = serve(LettersService)
    server = get_extension(container, GrpcServer)
    port = server.channel.conn_pool.listening_socket.getsockname()[1]
    yield "127.0.0.1:{}".format(port)
    container.stop()


def test_serves_grpcio_clients(address):
    with grpc.insecure_channel(address) as channel:
        stub = lettersStub(channel)
        assert stub.upper(Letters(text="abc"), timeout=10).text == "ABC"
        assert [letter.text for letter in stub.split(Letters(text="abc"), timeout=10)] == [*"abc"]
        assert stub.join((Letters(text=letter) for letter in "abc"), timeout=10).text == "abc"
        with pytest.raises(grpc.RpcError, match="as asked"):
            stub.upper(Letters(text="fail"), timeout=10)


def test_serves_its_own_client(address):
    with Client("//" + address, lettersStub) as client:
        assert client.upper(Letters(text="abc")).text == "ABC"
        assert [letter.text for letter in client.split(Letters(text="abc"))] == [*"abc"]
        replies = [client.upper.future(Letters(text=str(number))) for number in range(20)]
        assert [reply.result().text for reply in replies] == [str(n) for n in range(20)]
        with pytest.raises(GrpcError, match="as asked"):
            client.upper(Letters(text="fail"))


def test_forwards_context_data_between_services(address, serve, cluster, uid):
    class Front:
        name = "front-" + uid
        letters = GrpcProxy("//" + address, lettersStub)

        @rpc
        def shout(self, text):
            return self.letters.upper(Letters(text=text)).text

    container = serve(Front)
    cluster._worker_ctx.data["suffix"] = "!"
    assert cluster[Front.name].shout("hey") == "HEY!"
    container.stop()
