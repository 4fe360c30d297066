"""@http: routing, arguments, results and errors."""

import json
import threading

import pytest
from webclient import LOCAL, Client
from werkzeug.wrappers import Response

from nameko.exceptions import BadRequest
from nameko.extensions import DependencyProvider
from nameko.rpc import rpc
from nameko.standalone.rpc import ServiceRpcProxy
from nameko.web.handlers import HttpRequestHandler, http


class Expected(Exception):
    pass


class Shop:
    name = "shop"

    @http("GET", "/items/<int:number>")
    def item(self, request, number):
        return "item {}".format(number)

    @http("GET,PUT,POST", "/method")
    def method(self, request):
        return request.method

    @http("POST", "/echo")
    def echo(self, request):
        return Response(request.get_data(), content_type=request.content_type)

    @http("POST", "/form")
    def form(self, request):
        files = {name: len(file.read()) for name, file in request.files.items()}
        return json.dumps({"form": request.form, "files": files})

    @http("GET", "/query/<path:rest>")
    def query(self, request, rest):
        return json.dumps([rest, request.args.get("q"), request.remote_addr, request.host])

    @http("GET", "/status")
    def status(self, request):
        return 201, "made"

    @http("GET", "/headers")
    def headers(self, request):
        return 418, [("X-Two", "a"), ("X-Two", "b"), ("X-Caf", "é")], "tea"

    @http("GET", "/bytes")
    def bytes(self, request):
        return b"no text"

    @http("GET", "/fail")
    def fail(self, request):
        raise ValueError("oops")

    @http("GET", "/refuse", expected_exceptions=Expected)
    def refuse(self, request):
        raise Expected("not today")

    @http("GET", "/bad")
    def bad(self, request):
        raise BadRequest("badly asked")

    @http("GET", "/exit")
    def exit(self, request):
        raise SystemExit(3)

    @http("GET", "/takes-nothing")
    def takes_nothing(self):
        pass

    @http("GET", "/async")
    async def coroutine(self, request):
        return "awaited"


@pytest.fixture
def client(serve):
    return Client(serve(Shop, **LOCAL))


def test_passes_url_values_as_arguments(client):
    assert client.get("/items/42").text == "item 42"
    assert client.get("/items/many").status == 404


@pytest.mark.parametrize("method", ["GET", "PUT", "POST"])
def test_a_method_can_serve_several_http_methods(client, method):
    assert client(method, "/method").text == method


def test_unknown_urls_are_404_and_unknown_methods_405(client):
    missing = client.get("/missing")
    assert missing.status == 404
    assert "<title>404 Not Found</title>" in missing.text
    rejected = client("DELETE", "/method")
    assert rejected.status == 405
    assert set(rejected.headers["Allow"].split(", ")) == {"GET", "HEAD", "POST", "PUT"}


@pytest.mark.parametrize("size", [0, 1, 70_000, 5_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_reads_bodies_of_any_size(client, size, chunked):
    body = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    sent = iter([body[:100], body[100:]]) if chunked else body
    answer = client("POST", "/echo", sent, {"Content-Type": "x/y"}, encode_chunked=chunked)
    assert answer.body == body
    assert answer.headers["Content-Type"] == "x/y"


def test_parses_forms_and_files(client):
    body = (
        b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\none\r\n'
        b'--b\r\nContent-Disposition: form-data; name="f"; filename="f.txt"\r\n\r\nabc\r\n--b--\r\n'
    )
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = client("POST", "/form", body, headers)
    assert json.loads(answer.text) == {"form": {"a": "one"}, "files": {"f": 3}}


def test_decodes_the_url(client):
    answer = client.get("/query/%C3%A9%20/b%2Fc?q=%E2%82%AC+1", Host="example.org")
    assert json.loads(answer.text) == ["é /b/c", "€ 1", "127.0.0.1", "example.org"]


def test_sends_status_and_headers(client):
    answer = client.get("/status")
    assert (answer.status, answer.text) == (201, "made")
    answer = client.get("/headers")
    assert (answer.status, answer.text) == (418, "tea")
    assert answer.headers.get_all("X-Two") == ["a", "b"]
    assert answer.headers["X-Caf"] == "é"


def test_head_has_the_length_and_no_body(client):
    answer = client("HEAD", "/items/42")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["Content-Length"] == "7"


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/fail", 500, "Error: ValueError: oops\n"),
        ("/refuse", 400, "Error: Expected: not today\n"),
        ("/bad", 400, "Error: BadRequest: badly asked\n"),
        ("/bytes", 500, "Error: TypeError: Payload must be a string. Got `b'no text'`\n"),
    ],
)
def test_sends_errors_as_text(client, path, status, text):
    answer = client.get(path)
    assert (answer.status, answer.text) == (status, text)
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"


def test_reports_a_method_without_a_request_parameter(client):
    answer = client.get("/takes-nothing")
    assert answer.status == 400
    assert answer.text.startswith("Error: IncorrectSignature: ")


def test_system_exit_ends_only_its_request(client):
    assert client.get("/exit").status == 500
    assert client.get("/items/1").text == "item 1"


def test_runs_coroutines(client):
    assert client.get("/async").text == "awaited"


def test_dependencies_observe_the_result_before_the_client(serve):
    observed = threading.Event()
    seen = []

    class Observer(DependencyProvider):
        def worker_result(self, worker_ctx, result=None, exc_info=None):
            seen.append(result)
            observed.wait(10)
            seen.append("done")

    class Observed:
        name = "observed"
        observer = Observer()

        @http("GET", "/")
        def index(self, request):
            # The client has to wait until worker_result() returns.
            threading.Timer(0.05, observed.set).start()
            return "result"

    client = Client(serve(Observed, **LOCAL))
    assert client.get("/").text == "result"
    assert seen == ["result", "done"]


def test_a_failing_worker_setup_ends_the_service(serve):
    class Broken(DependencyProvider):
        def worker_setup(self, worker_ctx):
            raise RuntimeError("broken hook")

    class Service:
        name = "breaking"
        broken = Broken()

        @http("GET", "/")
        def index(self, request):
            return ""

    container = serve(Service, **LOCAL)
    with Client(container).connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(RuntimeError, match="broken hook"):
            container.wait()
        # The client gets an error or a closed connection.
        try:
            assert b" 200 " not in connection.recv(1000)
        except ConnectionError:
            pass


def test_subclasses_can_change_arguments_results_and_errors(serve):
    class JsonHandler(HttpRequestHandler):
        def __init__(self, *args, **kwargs):
            self.parameter = kwargs.pop("parameter", None)
            super().__init__(*args, **kwargs)

        def get_entrypoint_parameters(self, request):
            return (request.args[self.parameter],), {}

        def handle_result(self, event, worker_ctx, result, exc_info):
            seen.append(result)
            return super().handle_result(event, worker_ctx, result, exc_info)

        def response_from_result(self, result):
            return Response(json.dumps(result), content_type="application/json")

        def response_from_exception(self, exc):
            return Response(json.dumps({"error": str(exc)}), status=422)

    seen = []
    json_http = JsonHandler.decorator

    class Service:
        name = "jsonic"

        @json_http("GET", "/twice", parameter="word")
        def twice(self, word):
            return {"word": word * 2}

    client = Client(serve(Service, **LOCAL))
    answer = client.get("/twice?word=ab")
    assert json.loads(answer.text) == {"word": "abab"}
    assert answer.headers["Content-Type"] == "application/json"
    assert seen == [{"word": "abab"}]
    assert client.get("/twice").status == 422


def test_an_overridden_handle_request_can_wait_in_any_way(serve):
    class Handler(HttpRequestHandler):
        def handle_request(self, request):
            done = threading.Event()
            results = []

            def handle_result(worker_ctx, result, exc_info):
                results.append(result)
                done.set()
                return result, exc_info

            self.container.spawn_worker(self, (request,), {}, handle_result=handle_result)
            assert done.wait(10)
            return Response(results[0].upper())

    own_http = Handler.decorator

    class Service:
        name = "own"

        @own_http("GET", "/")
        def index(self, request):
            return "loud"

    assert Client(serve(Service, **LOCAL)).get("/").text == "LOUD"


def test_requests_wait_for_a_free_worker(serve, config):
    running, peak, lock = [0], [0], threading.Lock()
    go = threading.Event()
    full = threading.Semaphore(0)

    class Busy:
        name = "busy"

        @http("GET", "/")
        def index(self, request):
            with lock:
                running[0] += 1
                peak[0] = max(peak[0], running[0])
            full.release()
            go.wait(30)
            with lock:
                running[0] -= 1
            return "ok"

        @rpc
        def ping(self):
            return "pong"

    container = serve(Busy, max_workers=4, **LOCAL)
    client = Client(container)
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(client.get("/").text)) for _ in range(40)
    ]
    for thread in threads:
        thread.start()
    for _ in range(4):
        assert full.acquire(timeout=10)
    # An RPC message waits for a free worker, but not for the queued requests.
    with ServiceRpcProxy("busy", config, timeout=10) as busy:
        pong = busy.ping.call_async()
        go.set()
        assert pong.result() == "pong"
    for thread in threads:
        thread.join(10)
    assert answers == ["ok"] * 40
    assert peak[0] == 4
