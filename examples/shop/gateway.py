"""The shop over HTTP. Layers check the token, answer browsers (CORS) and format errors."""

import json
import logging
from http import HTTPStatus
from uuid import uuid4

from werkzeug import exceptions
from werkzeug.wrappers import Response

from examples.shop.errors import NotFound, OutOfStock
from nameko.exceptions import RpcTimeout, UnknownService
from nameko.rpc import RpcProxy
from nameko.web.handlers import http

log = logging.getLogger(__name__)

STATUSES = {NotFound: 404, OutOfStock: 409, UnknownService: 503, RpcTimeout: 504}
EXPECTED = (exceptions.HTTPException, *STATUSES)
ANY = "GET,POST,PUT,PATCH,DELETE"


def cors(call, next):
    """Allows the pages of ALLOWED_ORIGIN to read the responses."""
    response = next()
    response.headers["Access-Control-Allow-Origin"] = call.worker_ctx.config["ALLOWED_ORIGIN"]
    response.headers["Vary"] = "Origin"
    return response


def audit(call, next):
    """Logs each request with its customer, its status and its duration."""
    response = next()
    log.info(
        "%s by %s: %s in %.0f ms",
        call.method_name,
        call.context_data.get("user_id", "anyone"),
        response.status_code,
        call.duration * 1000,
    )
    return response


def problems(call, next):
    """Formats errors as problem details (RFC 9457)."""
    try:
        return next()
    except Exception as exc:
        status = exc.code if isinstance(exc, exceptions.HTTPException) else STATUSES.get(type(exc))
        detail = getattr(exc, "description", None) or str(exc)
        if status is None:
            status, detail = 500, "see the log for {}".format(call.call_id)
        problem = {
            "type": "about:blank",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": detail,
            "exc_type": type(exc).__name__,
        }
        headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
        return Response(json.dumps(problem), status, headers, mimetype="application/problem+json")


def authenticate(call, next):
    """Sets `user_id` of the context, which travels with the calls of the method."""
    request = call.args[0]
    # A preflight request has no token.
    if request.method != "OPTIONS":
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        customer = call.worker_ctx.config["TOKENS"].get(token)
        if customer is None:
            raise exceptions.Unauthorized("a bearer token of a customer is required")
        call.context_data["user_id"] = customer
    return next()


class Gateway:
    name = "gateway"
    layers = [cors, audit, problems, authenticate]

    orders = RpcProxy("orders", timeout=30)
    stock = RpcProxy("stock", timeout=30)

    @http("POST", "/orders", expected_exceptions=EXPECTED)
    def place(self, request):
        product, count = read_order(request)
        # The id makes the order unique: orders places it once, even if the request is repeated.
        placed = self.orders.place(str(uuid4()), product, count)
        return as_json(placed, 201, {"Location": "/orders/" + placed["id"]})

    @http("GET", "/orders/<uuid:order_id>", expected_exceptions=EXPECTED)
    def order(self, request, order_id):
        return as_json(self.orders.get(str(order_id)))

    @http("GET", "/products/<name>", expected_exceptions=EXPECTED)
    def product(self, request, name):
        return as_json({"name": name, "available": self.stock.available(name)})

    @http("OPTIONS", "/<path:path>")
    def preflight(self, request, path):
        headers = {
            "Access-Control-Allow-Methods": "GET, POST",
            "Access-Control-Allow-Headers": "authorization, content-type",
        }
        return Response(status=204, headers=headers)

    # Inside the layers, unlike the server's own response.
    @http(ANY, "/", expected_exceptions=EXPECTED)
    @http(ANY, "/<path:path>", expected_exceptions=EXPECTED)
    def unknown(self, request, path=""):
        raise exceptions.NotFound("no {} /{}".format(request.method, path))


def read_order(request):
    """Returns the product and the count of a request. BadRequest if it is no order."""
    order = request.get_json()
    product, count = (order.get("product"), order.get("count")) if type(order) is dict else ("", 0)
    if type(product) is not str or not product:
        raise exceptions.BadRequest("`product` must be the name of a product")
    if type(count) is not int or not 0 < count < 2**31:
        raise exceptions.BadRequest("`count` must be a positive whole number")
    return product, count


def as_json(value, status=200, headers=None):
    return Response(json.dumps(value), status, headers, mimetype="application/json")
