"""Fixtures for tests of WebSockets."""

import json
import queue
import threading

import pytest
from socketclient import Chat
from webclient import LOCAL, address_of

import websocket
from nameko.testing.websocket import close_gracefully, make_virtual_socket
from nameko.web.websocket import WebSocketServer


@pytest.fixture
def connect():
    """``connect(container)`` returns a connected virtual socket."""
    apps = []

    def connect(container):
        app, wait = make_virtual_socket(*address_of(container))
        thread = threading.Thread(target=app.run_forever, daemon=True)
        thread.start()
        apps.append((app, thread))
        return wait()

    yield connect
    for app, thread in apps:
        close_gracefully(app)
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def chat(serve):
    return serve(Chat, **LOCAL)


@pytest.fixture
def plain():
    """``plain(container)`` returns a connected ``websocket.WebSocket`` that has read the
    greeting."""
    sockets = []

    def connect(container, greeting=True):
        url = "ws://{}:{}/ws".format(*address_of(container))
        connection = websocket.create_connection(url, timeout=10)
        sockets.append(connection)
        if greeting:
            assert json.loads(connection.recv())["event"] == "connected"
        return connection

    yield connect
    for connection in sockets:
        connection.shutdown()


@pytest.fixture
def left(monkeypatch):
    """A queue of the sockets that the server has removed."""
    gone = queue.Queue()
    remove = WebSocketServer.remove_socket

    def remove_socket(self, socket_id):
        remove(self, socket_id)
        gone.put(socket_id)

    monkeypatch.setattr(WebSocketServer, "remove_socket", remove_socket)
    return gone
