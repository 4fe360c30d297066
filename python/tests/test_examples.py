"""Runs the examples like their readers."""

import json
import subprocess
import sys
import threading
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from program import ROOT, TIMEOUT, Program, environment

from nameko.containers import ServiceContainer
from nameko.testing.services import worker_factory
from nameko.testing.utils import get_extension
from nameko.testing.websocket import make_virtual_socket
from nameko.web.server import WebServer


@pytest.fixture
def run(broker_uri):
    programs = []

    def start(*modules):
        program = Program("run", *modules, "--broker", broker_uri, cwd=ROOT)
        programs.append(program)
        program.wait_for("ready at")
        return program

    yield start
    for program in programs:
        program.__exit__()


def test_hello(run, cluster):
    run("examples.hello.hello", "examples.hello.helloworld")
    assert cluster.hello_service.hello(name="zq") == "Hello, zq!"
    assert cluster.greeting_service.hello(name="zq") == "Hello, zq!"


def test_chain(run, cluster):
    run("examples.hello.chain")
    assert cluster.service_x.remote_method("hello") == "hello-x-y"


def test_coroutines(run, cluster):
    run("examples.coroutines.coroutines")
    assert cluster.service_x.remote_method("hello") == "hello-x-y"
    assert cluster.service_x.many(["a", "b"]) == ["a-y", "b-y"]


def test_dependencies(run, cluster):
    run("examples.dependencies.counter")
    first = cluster.counting_service.count()
    assert cluster.counting_service.count() == first + 1


def test_events(run, cluster):
    program = run("examples.events.events")
    cluster.shop.pay(17)
    program.wait_for_all("packed order 17", "forgot order 17")


def test_messaging(run, cluster):
    program = run("examples.messaging.messaging")
    cluster.studio.resize("cat.jpg", priority=5)
    cluster.studio.resize("broken.jpg")
    program.wait_for_all("resized cat.jpg", "could not resize broken.jpg")


def test_timers(run):
    program = run("examples.timers.timers")
    program.wait_for_all("{} is alive".format(program.process.pid))


def test_http(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from examples.http.orders import Orders

    container = ServiceContainer(Orders, {"WEB_SERVER_ADDRESS": "127.0.0.1:0"})
    container.start()
    url = "http://{}:{}/orders".format(*get_extension(container, WebServer).address)

    def add(count):
        body = json.dumps({"item": "nut", "count": count}).encode()
        return urlopen(Request(url, body, {"Content-Type": "application/json"}))

    def get(path=""):
        with urlopen(url + path) as response:
            return response.read().decode()

    try:
        with add(3) as response:
            assert (response.status, response.headers["Location"]) == (201, "/orders/1")
        assert json.loads(get("/1")) == {"item": "nut", "count": 3}
        assert json.loads(get("?item=nut")) == {"1": {"item": "nut", "count": 3}}
        assert json.loads(get("?item=bolt")) == {}
        assert get(".csv") == "1,nut,3\n"
        with pytest.raises(HTTPError, match="400"):
            add(0)
        with urlopen(Request(url + "/1", method="DELETE")) as response:
            assert response.status == 204
        with pytest.raises(HTTPError, match="404"):
            get("/1")
    finally:
        container.kill()


def test_websocket(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from examples.websocket.chat import Chat

    container = ServiceContainer(Chat, {"WEB_SERVER_ADDRESS": "127.0.0.1:0"})
    container.start()
    address = get_extension(container, WebServer).address
    app, connect = make_virtual_socket(*address)
    thread = threading.Thread(target=app.run_forever, daemon=True)
    thread.start()
    try:
        with urlopen("http://{}:{}/".format(*address)) as response:
            assert b"new WebSocket" in response.read()
        socket = connect()
        socket.rpc("enter", room="lobby")
        socket.rpc("say", text="hello")
        assert socket.wait_for_event("said")[1]["text"] == "hello"
    finally:
        app.close()
        container.kill()
        thread.join(10)


def test_a_service_class_can_be_tested_without_a_container(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from examples.hello.chain import ServiceX

    service = worker_factory(ServiceX)
    service.y.append_id.side_effect = lambda value: value + "-fake"
    assert service.remote_method("hello") == "hello-x-fake"


def script(path, **replacements):
    source = ROOT.joinpath(path).read_text()
    for before, after in replacements.items():
        source = source.replace(before, after)
    return subprocess.run(
        [sys.executable, "-c", source],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=TIMEOUT,
        check=True,
    ).stdout


def test_client(run, broker_uri):
    run("examples.hello.chain")
    output = script(
        "examples/client/client.py",
        **{"pyamqp://guest:guest@localhost": broker_uri},
    )
    assert output == "hello-x-y\n['hello-x-y', 'world-x-y']\n"


def test_container():
    assert script("examples/container/container.py") == ""
