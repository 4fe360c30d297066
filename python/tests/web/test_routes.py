"""The compiled routes find what werkzeug's Map finds, or leave the decision to it."""

import itertools

import pytest
from webclient import LOCAL, Client, service_with
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule, UnicodeConverter

from nameko.web.routes import RouteTable
from nameko.web.server import WebServer

RULES = [
    "/",
    "/items",
    "/items/",
    "/items/<int:number>",
    "/items/<name>",
    "/items/new",
    "/items/<int:number>/parts/<part>",
    "/items/<name>/parts/<int:part>/",
    "/<first>/<second>",
    "/<first>/parts/<string:third>",
    "/a b/é",
    "/files/<path:rest>",
    "/pre<name>/x",
    "/float/<float:number>",
    "/short/<string(length=2):code>",
    "/branch/<name>/",
]
PATHS = [
    *["/", "/items", "/items/", "/items/5", "/items/007", "/items/new", "/items/-5", "/items/x"],
    *["/items/5/", "/items/5/parts/6", "/items/5/parts/x", "/items/x/parts/6", "/items/x/parts/6/"],
    *["/items/%35", "/items/%D9%A3", "/items/%2F", "/items/a%2Fb", "/items/%ff", "/items/%zz"],
    *["/items/123456789012345678901234567890", "/items//5", "//items/5", "/items/\u00e9"],
    *["/a%20b/%C3%A9", "/a%20b/é", "/files/a/b", "/files/", "/prefix/x", "/float/1.5"],
    *["/float/1", "/short/ab", "/short/abc", "/branch/x", "/branch/x/", "/x/parts/y", "/x", "/x/"],
    *["/items/%0A", "/items/.", "/items/new?q=1", "/%69tems/new", "*"],
]


class Seen:
    """Serves a function that gets each request as werkzeug and as the compiled routes see it."""

    def __init__(self, serve):
        seen = self

        class Server(WebServer):
            def get_wsgi_app(self):
                return seen.app

        self.client = Client(serve(service_with(Server), **LOCAL))

    def app(self, environ, start_response):
        try:
            # Raising requests, for example to redirect, are left to werkzeug.
            expected = self.url_map.bind_to_environ(environ).match()
        except HTTPException:
            expected = None
        self.results.append((RouteTable(self.url_map).find(environ["nameko.request"]), expected))
        start_response("200 OK", [])
        return [b""]

    def ask(self, rules, *requests):
        """Returns pairs of the result of the compiled routes and that of werkzeug."""
        self.url_map = rules if isinstance(rules, Map) else url_map(rules)
        self.results = []
        for method, path, *headers in requests:
            head = "{} {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n"
            self.client.raw(head.format(method, path, *headers or ["localhost"]).encode())
        assert len(self.results) == len(requests)
        return self.results


def url_map(rules):
    bound = Map()
    for number, rule in enumerate(rules):
        if isinstance(rule, str):
            rule = Rule(rule, methods=["GET"])
        rule.endpoint = number
        bound.add(rule)
    return bound


@pytest.fixture
def seen(serve):
    return Seen(serve)


@pytest.mark.parametrize("seed", range(20))
def test_finds_the_rule_that_werkzeug_finds(seen, seed):
    # Rules in several orders, and without some of the others.
    rules = RULES[seed % 7 :: 1 + seed % 3] + RULES[: seed % 5]
    rules = list(dict.fromkeys(rules[seed % 3 :] + rules[: seed % 3]))
    results = seen.ask(rules, *[("GET", path) for path in PATHS])
    for (found, expected), path in zip(results, PATHS, strict=True):
        assert found is None or found == expected, path


def test_finds_plain_rules_without_werkzeug(seen):
    rules = ["/", "/items", "/items/<int:number>", "/items/<name>/parts/<part>", "/branch/"]
    paths = ["/", "/items?a=b", "/items/7", "/items/x/parts/%C3%A9", "/branch/"]
    results = seen.ask(rules, *[("GET", path) for path in paths], ("HEAD", "/items"))
    assert [found for found, _ in results] == [expected for _, expected in results]
    assert None not in itertools.chain(*results)


def test_methods_select_among_rules(seen):
    rules = [
        Rule("/a", methods=["GET"]),
        Rule("/a", methods=["POST", "PUT"]),
        Rule("/<name>", methods=["DELETE"]),
        Rule("/any"),
    ]
    requests = [
        *[(method, "/a") for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "get")],
        *[(method, "/any") for method in ("GET", "OPTIONS", "BREW")],
    ]
    results = seen.ask(rules, *requests)
    for (found, expected), request in zip(results, requests, strict=True):
        assert found == (None if request[0] == "get" else expected), request


@pytest.mark.parametrize(
    "special",
    [
        Rule("/a/", strict_slashes=False),
        Rule("/a/<int:number>", redirect_to="/b"),
        Rule("/a/<int:number>", websocket=True),
        Rule("/a/<int:number>", alias=True),
        Rule("/a/<int:number>", subdomain="x"),
        Rule("/a/<int:number>", defaults={"number": 5}),
        Rule("/a/<int:number>", merge_slashes=False),
        Rule("/a/<int:number>", build_only=True),
        Rule("/a/<int(min=6):number>"),
        Rule("/a//<int:number>"),
        Rule("/a/<int:number>", methods=["POST"]),
    ],
    ids=str,
)
@pytest.mark.parametrize("first", [True, False])
def test_rules_with_options_are_left_to_werkzeug(seen, special, first):
    special = special.empty()
    others = [Rule("/a/<name>"), Rule("/b")]
    rules = [special, *others] if first else [*others, special]
    paths = ["/a/5", "/a/7", "/a/x", "/a/", "/a", "/b", "/a//5"]
    for found, expected in seen.ask(rules, *[("GET", path) for path in paths]):
        assert found is None or found == expected


@pytest.mark.parametrize(
    "host", ["localhost:80", "127.0.0.1", "[::1]:80", "a..b", "x" * 64, ".", "A.example"]
)
def test_hosts_that_werkzeug_rejects_are_left_to_it(seen, host):
    ((found, expected),) = seen.ask(["/"], ("GET", "/", host))
    assert found is None or found == expected


@pytest.mark.parametrize(
    "options",
    [
        {"host_matching": True},
        {"default_subdomain": "x"},
        {"converters": {"default": type("Own", (UnicodeConverter,), {})}},
    ],
)
def test_maps_with_options_are_left_to_werkzeug(seen, options):
    bound = Map([Rule("/<name>", endpoint=0)], **options)
    ((found, _),) = seen.ask(bound, ("GET", "/a"))
    assert found is None


def test_rules_for_the_same_paths_are_left_to_werkzeug(seen):
    results = seen.ask(["/<a>", "/<b>", "/x"], ("GET", "/y"), ("GET", "/x"))
    assert [found for found, _ in results] == [None, (2, {})]


def test_rules_can_be_added_later(serve):
    apps = []

    class Server(WebServer):
        def get_wsgi_app(self):
            apps.append(super().get_wsgi_app())
            return apps[0]

    service = service_with(Server, lambda self, request, name="none": name)
    container = serve(service, **LOCAL)
    client = Client(container)
    assert (client.get("/").text, client.get("/x").status) == ("none", 404)
    (entrypoint,) = container.entrypoints
    apps[0].url_map.add(Rule("/<name>", endpoint=entrypoint))
    assert (client.get("/").text, client.get("/x").text) == ("none", "x")
