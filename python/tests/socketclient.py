"""A chat service and helpers for the tests of nameko.web.websocket."""

import json

from nameko.testing.services import dummy, entrypoint_hook
from nameko.testing.utils import get_extension
from nameko.web.handlers import http
from nameko.web.websocket import WebSocketHubProvider, WebSocketServer, rpc


class Refused(Exception):
    pass


class Chat:
    name = "chat"
    hub = WebSocketHubProvider()

    @rpc
    def subscribe(self, socket_id, channel="lobby"):
        self.hub.subscribe(socket_id, channel)
        return "subscribed"

    @rpc
    def unsubscribe(self, socket_id, channel="lobby"):
        self.hub.unsubscribe(socket_id, channel)

    @rpc
    def subscriptions(self, socket_id):
        return self.hub.get_subscriptions(socket_id)

    @rpc
    def echo(self, socket_id, value=None):
        return value

    @rpc
    def fail(self, socket_id):
        raise Refused("no")

    @rpc
    def exit(self, socket_id):
        raise SystemExit(1)

    @rpc
    def unserializable(self, socket_id):
        return object()

    @rpc
    async def later(self, socket_id):
        return "awaited"

    @dummy
    def broadcast(self, value, channel="lobby"):
        self.hub.broadcast(channel, "message", value)

    @dummy
    def unicast(self, socket_id, value):
        return self.hub.unicast(socket_id, "message", value)

    @http("GET", "/")
    def index(self, request):
        return "http too"


def call(connection, method, correlation_id="1", **data):
    """Sends a message and returns the reply."""
    request = {"method": method, "data": data, "correlation_id": correlation_id}
    connection.send(json.dumps(request))
    return json.loads(connection.recv())


def hub_of(container):
    return get_extension(container, WebSocketHubProvider).hub


def sockets_of(container):
    return get_extension(container, WebSocketServer).sockets


def broadcast(container, value, **kwargs):
    with entrypoint_hook(container, "broadcast") as hook:
        hook(value, **kwargs)
