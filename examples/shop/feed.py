"""Pushes the orders of a customer to their open pages, and serves the page."""

from pathlib import Path

from werkzeug.exceptions import Unauthorized
from werkzeug.wrappers import Response

from nameko.contextdata import UserId
from nameko.dependency_providers import Config
from nameko.events import BROADCAST, event_handler
from nameko.web.handlers import http
from nameko.web.websocket import WebSocketHubProvider, connect, handshake

PAGE = Path(__file__).with_name("shop.html").read_text()


class Feed:
    name = "feed"

    hub = WebSocketHubProvider()
    config = Config()
    customer = UserId()

    @http("GET", "/")
    def page(self, request):
        page = PAGE.replace("{GATEWAY_URL}", self.config["GATEWAY_URL"])
        return Response(page, mimetype="text/html")

    # In the query, since browsers send no headers of a page in a handshake.
    @handshake
    def admit(self, request):
        customer = self.config["TOKENS"].get(request.args.get("token"))
        if customer is None:
            raise Unauthorized("a token of a customer is required")
        return {"user_id": customer}

    @connect
    def enter(self, socket_id, request):
        self.hub.subscribe(socket_id, self.customer)

    # In every instance, since each knows its own sockets only.
    @event_handler("orders", "order_placed", handler_type=BROADCAST, reliable_delivery=False)
    def push(self, order):
        self.hub.broadcast(order["customer"], "order_placed", order)
