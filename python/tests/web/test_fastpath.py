"""Requests without hooks are answered as those with hooks are, and each hook is called."""

import asyncio
import contextlib
import copy
import logging
import queue
import threading
from http import HTTPStatus

import pytest
from webclient import LOCAL, Client
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response

from nameko.extensions import DependencyProvider
from nameko.rpc import rpc
from nameko.standalone.rpc import ServiceRpcProxy
from nameko.web import handlers
from nameko.web.handlers import HttpRequestHandler, http
from nameko.web.server import WebServer, WsgiApp


class OddStr(str):
    pass


RESULTS = {
    "text": "text",
    "unicode": "é€",
    "empty": "",
    "status": (201, "made"),
    "enum": (HTTPStatus.ACCEPTED, "x"),
    "true": (True, "x"),
    "float": (200.0, "x"),
    "status-line": ("299 My Reason", "x"),
    "unknown-status": (299, "x"),
    "informational": (100, "x"),
    "no-content": (204, "x"),
    "not-modified": (304, {"Content-Type": "a/b"}, "x"),
    "dict": (200, {"X-A": "b", "Content-Type": "application/json"}, "{}"),
    "lower-case": (200, {"content-type": "a/b", "x-a": "b"}, "x"),
    "list": (200, [("X-A", "a"), ("X-A", "b"), ("X-Caf", "é")], "x"),
    "lists": (200, [["X-A", "a"]], "x"),
    "values": (200, {"X-A": ["a", "b"]}, "x"),
    "number": (200, {"X-A": 5}, "x"),
    "none": (200, None, "x"),
    "headers": (200, Response(headers={"X-A": "b"}).headers, "x"),
    "length": (200, {"Content-Length": "50"}, "x"),
    "location": (302, {"Location": "/a b"}, ""),
    "content-location": (200, {"Content-Location": "/é"}, ""),
    "newline": (200, {"X-A": "a\r\nX-B: c"}, "x"),
    "bad-name": (200, {"X A": "a"}, "x"),
    "euro": (200, {"X-A": "€"}, "x"),
    "surrogate": "\ud800",
    "odd": (200, {OddStr("X-A"): OddStr("b")}, OddStr("x")),
    "bytes": b"x",
    "pair": (200, 5),
    "four": (200, {}, "x", "y"),
    "response": lambda: Response("x", headers={"X-A": "b"}, mimetype="a/b"),
    "bytes-response": lambda: Response([b"a", b"b"], status=203),
    "location-response": lambda: Response("x", status=301, headers={"Location": "/a"}),
    "stream": lambda: Response(iter([b"a", b"b"])),
    "wsgi": lambda: NotFound(),
}


def result_of(name):
    result = RESULTS[name]
    return result() if callable(result) else result


class Plain:
    name = "plain"

    @http("GET", "/sync/<name>")
    def sync(self, request, name):
        return result_of(name)

    @http("GET", "/async/<name>")
    async def coroutine(self, request, name):
        return result_of(name)


@pytest.fixture
def slow_requests(monkeypatch):
    """The requests that took the slow path."""
    seen = []
    run = WsgiApp.response

    def response(self, request, http=None):
        seen.append(request.path)
        return run(self, request, http)

    monkeypatch.setattr("nameko.web.server._APP_HOOKS", {})
    monkeypatch.setattr(WsgiApp, "response", response)
    return seen


@pytest.mark.parametrize("name", RESULTS)
def test_results_are_sent_as_by_the_hooks(serve, slow_requests, name):
    class Hooked(HttpRequestHandler):
        def handle_request(self, request):
            return super().handle_request(request)

    class Slow:
        name = "slow"

        @Hooked.decorator("GET", "/sync/<name>")
        def sync(self, request, name):
            return result_of(name)

    slow, fast = Client(serve(Slow, **LOCAL)), Client(serve(Plain, **LOCAL))

    def answers(client, path):
        for method in ("GET", "HEAD"):
            head = "{} {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".format(method, path)
            answer = client.raw(head.encode())
            yield [line for line in answer.splitlines() if not line.lower().startswith(b"date:")]

    expected = list(answers(slow, "/sync/" + name))
    assert slow_requests == ["/sync/" + name] * 2
    assert list(answers(fast, "/sync/" + name)) == expected
    assert list(answers(fast, "/async/" + name)) == expected
    assert len(slow_requests) == 2


@pytest.mark.parametrize(
    ("owner", "hook"),
    [
        (HttpRequestHandler, "handle_request"),
        (HttpRequestHandler, "get_entrypoint_parameters"),
        (HttpRequestHandler, "check_signature"),
        (HttpRequestHandler, "handle_result"),
        (HttpRequestHandler, "response_from_result"),
        (HttpRequestHandler, "handle_result_is_nonblocking"),
        (WebServer, "context_data_from_headers"),
        (WsgiApp, "__call__"),
        (handlers, "run_worker"),
        (Response, "__init__"),
        (Response, "get_wsgi_headers"),
    ],
)
def test_hooks_can_be_patched_at_any_time(serve, monkeypatch, owner, hook):
    client = Client(serve(Plain, **LOCAL))
    assert client.get("/sync/text").text == "text"
    called = []
    original = getattr(owner, hook)

    def patched(*args, **kwargs):
        called.append(hook)
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, hook, patched)
        assert client.get("/sync/text").text == "text"
        assert client.get("/async/text").text == "text"
    assert called
    called.clear()
    assert client.get("/sync/text").text == "text"
    assert not called


def test_methods_can_be_patched_at_any_time(serve, monkeypatch):
    client = Client(serve(Plain, **LOCAL))
    assert client.get("/sync/text").text == "text"
    monkeypatch.setattr(Plain, "sync", lambda self, request, name: name.upper())
    assert client.get("/sync/text").text == "TEXT"


class Requests:
    name = "requests"

    @http("POST", "/read")
    def read(self, request):
        return "{} {} {}".format(request.method, request.get_data(as_text=True), request.args["a"])

    @http("POST", "/set")
    def set(self, request):
        request.remote_addr = "mine"
        request.user = "me"
        return "{} {} {}".format(request.remote_addr, request.user, request.method)

    @http("POST", "/absent")
    def absent(self, request):
        assert not hasattr(request, "user")
        return repr(request)

    @http("POST", "/copy")
    def copy(self, request):
        duplicate = copy.copy(request)
        return request.get_data(as_text=True) + duplicate.headers["X-A"]

    @http("POST", "/threads")
    def threads(self, request):
        texts = []
        readers = [
            threading.Thread(target=lambda: texts.append(request.environ["PATH_INFO"]))
            for _ in range(10)
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        return ",".join(sorted(set(texts)))

    @http("POST", "/loop")
    async def loop(self, request):
        return request.get_data(as_text=True) + request.headers["X-A"]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/read", "POST body b"),
        ("/set", "mine me POST"),
        ("/absent", "<Request 'http://host/absent?a=b' [POST]>"),
        ("/copy", "bodyvalue"),
        ("/threads", "/threads"),
        ("/loop", "bodyvalue"),
    ],
)
def test_requests_are_werkzeugs(serve, path, text):
    client = Client(serve(Requests, **LOCAL))
    headers = {"X-A": "value", "Host": "host"}
    answer = client("POST", path + "?a=b", "body", headers)
    assert (answer.status, answer.text) == (200, text)


ACCESS_LOG = logging.getLogger("nameko.web.server")


@contextlib.contextmanager
def access_log(level=logging.INFO):
    """Makes a handler the only one of the access log. Yields a queue of the records it takes."""
    records = queue.Queue()
    handler = logging.Handler(level)
    handler.emit = records.put
    before = ACCESS_LOG.level, ACCESS_LOG.propagate, ACCESS_LOG.handlers
    ACCESS_LOG.setLevel(logging.INFO)
    ACCESS_LOG.propagate, ACCESS_LOG.handlers = False, [handler]
    try:
        yield records
    finally:
        ACCESS_LOG.setLevel(before[0])
        ACCESS_LOG.propagate, ACCESS_LOG.handlers = before[1:]


def test_no_record_is_created_that_no_handler_takes(serve, monkeypatch):
    client = Client(serve(Plain, **LOCAL))
    created = []
    record_type = logging.getLogRecordFactory()

    def factory(*args, **kwargs):
        created.append(record_type(*args, **kwargs))
        return created[-1]

    monkeypatch.setattr(logging, "_logRecordFactory", factory)
    with access_log(logging.WARNING):
        for _ in range(10):
            client.get("/sync/text")
    with access_log() as records:
        client.get("/sync/text")
        record = records.get(timeout=10)
    # The line of the last request above may be written after its response.
    lines = [other for other in created if other.name == ACCESS_LOG.name]
    assert len(lines) <= 2
    assert record in lines
    assert '"GET /sync/text HTTP/1.1" 200 4 0.' in record.getMessage()
    assert (record.levelname, record.module) == ("INFO", "access_log")


def test_a_filter_of_the_logger_sees_each_line(serve):
    client = Client(serve(Plain, **LOCAL))
    seen = queue.Queue()
    ACCESS_LOG.addFilter(seen.put)
    try:
        with access_log(logging.WARNING):
            client.get("/sync/text")
            assert "/sync/text" in seen.get(timeout=10).getMessage()
    finally:
        ACCESS_LOG.removeFilter(seen.put)


def test_the_logger_can_be_patched(serve, monkeypatch):
    client = Client(serve(Plain, **LOCAL))
    seen = queue.Queue()
    monkeypatch.setattr(ACCESS_LOG, "info", lambda *args: seen.put(args))
    with access_log():
        client.get("/sync/text")
        assert "/sync/text" in seen.get(timeout=10)


@pytest.mark.parametrize("path", ["/sync", "/async"])
def test_hooks_observe_the_result_before_the_client(serve, path):
    seen = []

    class Observer(DependencyProvider):
        def worker_result(self, worker_ctx, result=None, exc_info=None):
            seen.append(result)

        def worker_teardown(self, worker_ctx):
            seen.append("teardown")

    class Observed:
        name = "observed"
        observer = Observer()

        @http("GET", "/sync")
        def sync(self, request):
            return "result"

        @http("GET", "/async")
        async def coroutine(self, request):
            return "result"

    client = Client(serve(Observed, **LOCAL))
    for _ in range(20):
        seen.clear()
        assert client.get(path).text == "result"
        assert seen == ["result", "teardown"]


def test_bodies_and_callbacks_never_run_on_the_loop(serve):
    threads = queue.Queue()

    def note_thread():
        threads.put(threading.current_thread().name)

    class Service:
        name = "streaming"

        @http("GET", "/stream")
        async def stream(self, request):
            def body():
                note_thread()
                yield b"a"
                yield b"b"

            return Response(body())

        @http("GET", "/closing")
        async def closing(self, request):
            response = Response("ab")
            response.call_on_close(note_thread)
            return response

    client = Client(serve(Service, **LOCAL))
    assert client.get("/stream").text == "ab"
    assert client.get("/closing").text == "ab"
    assert "nameko-loop" not in [threads.get(timeout=10) for _ in range(2)]


def test_overridden_responses_never_run_on_the_loop(serve, slow_requests):
    threads = queue.Queue()

    class Handler(HttpRequestHandler):
        def response_from_result(self, result):
            threads.put(threading.current_thread().name)
            return Response(result.upper())

        def response_from_exception(self, exc):
            threads.put(threading.current_thread().name)
            return Response(str(exc), status=409)

    class Service:
        name = "overridden"

        @Handler.decorator("GET", "/<name>")
        async def coroutine(self, request, name):
            if name == "fail":
                raise ValueError("oops")
            return name

    client = Client(serve(Service, **LOCAL))
    answer = client.get("/fail")
    assert (answer.status, answer.text) == (409, "oops")
    assert client.get("/name").text == "NAME"
    assert "nameko-loop" not in [threads.get(timeout=10) for _ in range(2)]
    assert slow_requests == []


class Busy:
    """Starts `size` coroutines, which wait for `go`."""

    def __init__(self, serve, size):
        busy = self
        self.started = threading.Semaphore(0)
        self.go = threading.Event()
        self.running = self.peak = 0

        class Service:
            name = "busy"

            @http("GET", "/")
            async def index(self, request):
                busy.running += 1
                busy.peak = max(busy.peak, busy.running)
                busy.started.release()
                while not busy.go.is_set():
                    await asyncio.sleep(0.001)
                busy.running -= 1
                return "ok"

            @rpc
            def ping(self):
                return "pong"

        self.client = Client(serve(Service, max_workers=size, **LOCAL))
        self.answers = []

    def ask(self):
        self.answers.append(self.client.get("/").text)

    @contextlib.contextmanager
    def requests(self, count, running):
        """Sends `count` requests, waits until some run, and lets them end after the block."""
        threads = [threading.Thread(target=self.ask, daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        for _ in range(running):
            assert self.started.acquire(timeout=10)
        yield
        self.go.set()
        for thread in threads:
            thread.join(10)
        assert self.answers == ["ok"] * count


def test_coroutines_wait_for_a_free_worker(serve, config):
    busy = Busy(serve, 4)
    with busy.requests(20, running=4), ServiceRpcProxy("busy", config, timeout=10) as proxy:
        # An RPC message waits for a free worker, but not for the queued requests.
        pong = proxy.ping.call_async()
        busy.go.set()
        assert pong.result() == "pong"
    assert busy.peak == 4


def test_coroutines_occupy_no_threads(serve):
    busy = Busy(serve, 50)
    with busy.requests(50, running=50):
        names = [thread.name for thread in threading.enumerate()]
        assert sum(name.startswith("busy-") for name in names) < 10


def test_a_kill_answers_requests_without_success(serve):
    begun = threading.Event()
    go = threading.Event()

    class Service:
        name = "killed"

        @http("GET", "/")
        def index(self, request):
            begun.set()
            go.wait(10)
            return "late"

    container = serve(Service, max_workers=1, **LOCAL)
    with Client(container).connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert begun.wait(10)
        container.kill()
        try:
            assert b" 200 " not in connection.recv(1000)
        except ConnectionError:
            pass
    go.set()
