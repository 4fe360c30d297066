"""Matching of requests with the plain rules of a URL map, by compiled code."""

from __future__ import annotations

import re
from typing import Any

from werkzeug.routing import IntegerConverter, Map, Rule, UnicodeConverter

from nameko._nameko import HttpRequest, Routes

# A segment that is one variable, with a converter without arguments.
_VARIABLE = re.compile(r"<(?:(string|default|int):)?([a-zA-Z_][a-zA-Z0-9_]*)>")

_PLAIN_CONVERTERS = {
    "default": UnicodeConverter,
    "string": UnicodeConverter,
    "int": IntegerConverter,
}

# A converter and the name of the variable, or None and a text.
Segment = tuple[str | None, str]


class RouteTable:
    """The rules of a werkzeug ``Map`` at one time.

    Plain rules are matched by compiled code: their segments are texts or variables, without
    arguments of converters, and they have methods at most. For requests that another rule could
    match, for redirects and for errors, :meth:`find` returns None, and the ``Map`` decides.
    """

    def __init__(self, url_map: Map) -> None:
        url_map.update()
        self._url_map = url_map
        self._endpoint_count = len(url_map._rules_by_endpoint)
        rules = [rule for rule in url_map.iter_rules() if not rule.build_only]
        # The endpoints by the positions of their rules.
        self.endpoints = [rule.endpoint for rule in rules]
        # None if only the map can match.
        self.routes: Routes | None = None
        if _is_plain_map(url_map, rules):
            self.routes = Routes(_compile(rules))

    def is_current(self, url_map: Map) -> bool:
        """Whether these are all rules of ``url_map``."""
        return (
            url_map is self._url_map
            and not url_map._remap
            and len(url_map._rules_by_endpoint) == self._endpoint_count
        )

    def find(self, http: HttpRequest) -> tuple[Any, dict[str, Any]] | None:
        """Returns the endpoint for a request, and the values of the rule's variables."""
        if self.routes is None:
            return None
        found = self.routes.find(http)
        return None if found is None else (self.endpoints[found[0]], found[1])


def _is_plain_map(url_map: Map, rules: list[Rule]) -> bool:
    """Whether rules without special options match by their path and methods alone."""
    return (
        type(url_map) is Map
        and not url_map.host_matching
        and url_map.default_subdomain == ""
        and all(url_map.converters.get(name) is cls for name, cls in _PLAIN_CONVERTERS.items())
        # Defaults redirect from the paths of other rules.
        and not any(rule.defaults for rule in rules)
    )


def _compile(rules: list[Rule]) -> list[tuple[list[Segment], list[str] | None, bool]]:
    """Returns the arguments of :class:`Routes`."""
    compiled = []
    # The methods of the rules for the same paths.
    methods_of: dict[Any, list[set[str] | None]] = {}
    for rule in rules:
        segments, is_whole = _segments(rule.rule)
        is_whole = is_whole and _is_plain_rule(rule)
        shape = tuple(segment if segment[0] is None else segment[0] for segment in segments)
        others = methods_of.setdefault(shape, [])
        if any(_overlap(rule.methods, other) for other in others):
            # Which of them matches is up to werkzeug.
            is_whole = False
        others.append(rule.methods)
        methods = None if rule.methods is None else sorted(rule.methods)
        compiled.append((segments, methods, is_whole))
    return compiled


def _segments(rule: str) -> tuple[list[Segment], bool]:
    """Returns the plain segments at the beginning of a rule, and whether there are no others."""
    segments: list[Segment] = []
    names = set()
    texts = rule.split("/")
    for number, text in enumerate(texts):
        if not text and 0 < number < len(texts) - 1:
            return segments, False  # werkzeug merges slashes
        variable = _VARIABLE.fullmatch(text)
        if variable is not None and variable[2] not in names:
            names.add(variable[2])
            segments.append(("int" if variable[1] == "int" else "string", variable[2]))
        elif "<" not in text and ">" not in text:
            segments.append((None, text))
        else:
            return segments, False
    return segments, True


def _is_plain_rule(rule: Rule) -> bool:
    return (
        type(rule) is Rule
        and not rule.subdomain
        and not rule.websocket
        and not rule.alias
        and rule.redirect_to is None
        and rule.strict_slashes is True
        and rule.merge_slashes is True
    )


def _overlap(left: set[str] | None, right: set[str] | None) -> bool:
    return left is None or right is None or not left.isdisjoint(right)
