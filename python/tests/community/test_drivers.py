"""Drivers with C extensions, TLS and threads, used in workers.

A blocking driver must not block other workers.
"""

import asyncio
import http.server
import ssl
import threading
from concurrent import futures

import grpc
import psycopg
import pytest
import requests
import trustme
from letters_pb2 import Letters
from letters_pb2_grpc import add_lettersServicer_to_server, lettersStub

from nameko.extensions import DependencyProvider
from nameko.rpc import rpc
from nameko.testing.utils import assert_stops_raising

WORKERS = 10


def start_all(service):
    """Starts a call per worker, and returns the replies."""
    return [service.method.call_async(number) for number in range(WORKERS)]


def call_all(service):
    """Makes a call per worker, and returns the results."""
    return [reply.result() for reply in start_all(service)]


def equal(left, right):
    assert left == right


@pytest.fixture
def barrier():
    """A barrier for WORKERS callers, which proves that they run concurrently."""
    return threading.Barrier(WORKERS)


def test_psycopg(serve, cluster, postgresql_url, uid):
    class Connection(DependencyProvider):
        def get_dependency(self, worker_ctx):
            return psycopg.connect(postgresql_url, autocommit=True)

        def worker_teardown(self, worker_ctx):
            worker_ctx.service.db.close()

    class Service:
        name = "service-" + uid
        db = Connection()

        @rpc
        def method(self, number):
            self.db.execute("select pg_advisory_lock_shared(%s)", (lock,))
            return self.db.execute("select %s::int * 2", (number,)).fetchone()[0]

    lock = int(uid, 16)
    serve(Service, max_workers=WORKERS)
    with psycopg.connect(postgresql_url, autocommit=True) as holder:
        holder.execute("select pg_advisory_lock(%s)", (lock,))
        replies = start_all(cluster[Service.name])
        waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted"
        assert_stops_raising(lambda: equal(holder.execute(waiting).fetchone()[0], WORKERS))
        holder.execute("select pg_advisory_unlock(%s)", (lock,))
        assert [reply.result() for reply in replies] == [2 * n for n in range(WORKERS)]


def test_psycopg_in_a_coroutine(serve, cluster, postgresql_url, uid):
    class Service:
        name = "service-" + uid

        @rpc
        async def method(self, number):
            async with await psycopg.AsyncConnection.connect(postgresql_url) as connection:
                await connection.execute("select pg_sleep(0.01)")
                cursor = await connection.execute("select %s::int * 2", (number,))
                return (await cursor.fetchone())[0]

    serve(Service, max_workers=WORKERS)
    assert call_all(cluster[Service.name]) == [2 * number for number in range(WORKERS)]


@pytest.fixture
def https(barrier, tmp_path):
    """An HTTPS server that answers after WORKERS requests: its URL and its CA file."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            barrier.wait(20)
            body = self.path.encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield "https://localhost:{}".format(server.server_port), str(tmp_path / "authority.pem")
    server.shutdown()
    thread.join()
    server.server_close()


def test_requests_over_tls(serve, cluster, https, uid):
    url, authority = https

    class Service:
        name = "service-" + uid

        @rpc
        def method(self, number):
            answer = requests.get("{}/{}".format(url, number), verify=authority, timeout=20)
            return answer.text

    serve(Service, max_workers=WORKERS)
    assert call_all(cluster[Service.name]) == ["/{}".format(n) for n in range(WORKERS)]


@pytest.fixture
def grpc_server(barrier):
    """The address of a gRPC server that answers after WORKERS requests."""

    class Servicer:
        def upper(self, request, context):
            barrier.wait(20)
            return Letters(text=request.text.upper())

        def split(self, request, context):
            return (Letters(text=letter) for letter in request.text)

        def join(self, requests, context):
            return Letters(text="".join(request.text for request in requests))

    server = grpc.server(futures.ThreadPoolExecutor(WORKERS))
    add_lettersServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield "127.0.0.1:{}".format(port)
    server.stop(None).wait(10)


def test_grpcio(serve, cluster, grpc_server, uid):
    class Letter(DependencyProvider):
        def setup(self):
            self.channel = grpc.insecure_channel(grpc_server)

        def stop(self):
            self.channel.close()

        def get_dependency(self, worker_ctx):
            return lettersStub(self.channel)

    class Service:
        name = "service-" + uid
        letters = Letter()

        @rpc
        def method(self, number):
            upper = self.letters.upper(Letters(text="a{}".format(number)), timeout=20).text
            return [upper, *(part.text for part in self.letters.split(Letters(text=upper)))]

    container = serve(Service, max_workers=WORKERS)
    assert call_all(cluster[Service.name]) == [
        ["A{}".format(n), "A", str(n)] for n in range(WORKERS)
    ]
    container.stop()


def test_grpcio_in_a_coroutine(serve, cluster, grpc_server, uid):
    class Service:
        name = "service-" + uid

        @rpc
        async def method(self, number):
            async with grpc.aio.insecure_channel(grpc_server) as channel:
                request = Letters(text="a{}".format(number))
                return (await asyncio.wait_for(lettersStub(channel).upper(request), 20)).text

    serve(Service, max_workers=WORKERS)
    assert call_all(cluster[Service.name]) == ["A{}".format(n) for n in range(WORKERS)]
