"""The shop of examples/shop: its services in processes, each in one of the two languages."""

import json
import os
import time
import uuid
from contextlib import contextmanager
from http.client import HTTPConnection
from urllib.parse import urlsplit

import psycopg
import pytest
from mixed_fleet import BINARIES
from program import NAMEKO, ROOT, TIMEOUT, Program
from sqlalchemy import make_url
from webclient import Answer

import websocket
from nameko.standalone.rpc import ClusterRpcProxy

SERVICES = ("stock", "orders", "notifications", "reports", "feed", "gateway")
# The services in Rust, the others are in Python.
MIXTURES = {
    "python": (),
    "rust": SERVICES,
    # Each service of one language calls one of the other.
    "rust_behind": ("stock", "orders", "reports"),
    "rust_in_front": ("notifications", "feed", "gateway"),
}

FOLDER = ROOT / "examples" / "shop"
RUST_PROGRAM = BINARIES / "shop"

# Seconds. Processes start slowly on a busy machine.
START_TIMEOUT = 120


@contextmanager
def new_database():
    """Creates a database with the tables of the shop, and yields its URL."""
    if "POSTGRESQL_URL" not in os.environ:
        pytest.fail("POSTGRESQL_URL is not set: run scripts/with_postgresql pytest", pytrace=False)
    server = os.environ["POSTGRESQL_URL"]
    name = "shop_" + uuid.uuid4().hex
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE " + name)
        url = make_url(server).set(database=name).render_as_string(hide_password=False)
        with psycopg.connect(url, autocommit=True) as database:
            database.execute((FOLDER / "schema.sql").read_bytes())
        try:
            yield url
        finally:
            connection.execute("DROP DATABASE {} WITH (FORCE)".format(name))


def next_push(page, product):
    """Returns the next event of a page about an order of ``product``.

    The page also gets the orders of earlier tests whose events were still on their way.
    """
    while True:
        event = json.loads(page.recv())
        if event["data"]["product"] == product:
            return event


class Shop:
    """Starts services, and uses the shop as its customers and operators do."""

    def __init__(self, in_rust, amqp_uri, database_url):
        self.in_rust = in_rust
        self.amqp_uri = amqp_uri
        self.database_url = database_url
        # The processes by service, and the addresses of the web servers.
        self.programs = {}
        self.addresses = {}

    def start(self, *services):
        for service in services:
            program = self.programs[service] = self._spawn(service)
            if service in ("feed", "gateway"):
                url = program.wait_for("listening on", START_TIMEOUT).split()[-1]
                self.addresses[service] = urlsplit(url).netloc
            program.wait_for("ready at", START_TIMEOUT)

    def kill(self, service):
        """Ends a process as `kill -9` does."""
        self.programs.pop(service).__exit__()

    @contextmanager
    def another(self, service):
        """Runs another instance of a service for the duration of the block."""
        with self._spawn(service) as program:
            program.wait_for("ready at", START_TIMEOUT)
            yield

    def _spawn(self, service):
        command, name = NAMEKO, "examples.shop." + service
        if service in self.in_rust:
            assert RUST_PROGRAM.exists(), "{} is missing: make built".format(RUST_PROGRAM)
            command, name = [RUST_PROGRAM], service
        config = FOLDER / "config.yaml"
        return Program(
            *("run", name, "--config", config, "-d", "WEB_SERVER_ADDRESS=127.0.0.1:0"),
            *("--broker", self.amqp_uri),
            command=command,
            cwd=ROOT,
            DATABASE_URL=self.database_url,
        )

    def request(self, method, path, body=None, customer="ada", service="gateway", headers=None):
        """Sends a request with the token of a customer, and returns the response."""
        headers = dict(headers or {})
        if customer is not None:
            headers["Authorization"] = "Bearer {}-secret".format(customer)
        if body is not None:
            headers["Content-Type"] = "application/json"
        if isinstance(body, dict):
            body = json.dumps(body)
        connection = HTTPConnection(self.addresses[service], timeout=2 * TIMEOUT)
        try:
            connection.request(method, path, body, headers)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def order(self, product, count=1, customer="ada"):
        order = {"product": product, "count": count}
        return self.request("POST", "/orders", order, customer=customer)

    def available(self, product):
        return self.request("GET", "/products/" + product).json()["available"]

    def add_product(self, available):
        """Adds a product that no other test orders, and returns its name."""
        name = "product-" + uuid.uuid4().hex
        self.sql("INSERT INTO products VALUES (%s, %s)", name, available)
        return name

    def sql(self, query, *parameters):
        """Runs a statement, and returns its rows."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            cursor = connection.execute(query, parameters)
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def client(self):
        """A client of all services, in the name of ada."""
        with ClusterRpcProxy({"AMQP_URI": self.amqp_uri}, timeout=TIMEOUT) as cluster:
            yield cluster.with_context(user_id="ada")

    def notification(self, order):
        """Waits for the notification of an order, and returns its status."""
        with self.client() as cluster:
            return wait_for(lambda: cluster.notifications.status(order["id"]))

    @contextmanager
    def page(self, customer):
        """A connection to the feed, as the page of a customer has it."""
        url = "ws://{}/ws?token={}-secret".format(self.addresses["feed"], customer)
        connection = websocket.create_connection(url, timeout=TIMEOUT)
        try:
            # The first event is the server's greeting. The customer is subscribed when a request,
            # here of an unknown method, is answered.
            assert json.loads(connection.recv())["event"] == "connected"
            connection.send(json.dumps({"method": "none", "data": {}}))
            assert json.loads(connection.recv())["type"] == "result"
            yield connection
        finally:
            connection.shutdown()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        for program in self.programs.values():
            program.__exit__()


def wait_for(condition):
    """Calls a function, which communicates with a service, until it returns a true value."""
    deadline = time.monotonic() + TIMEOUT
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition is still not met"
    return value
