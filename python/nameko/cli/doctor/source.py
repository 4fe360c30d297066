"""Checks a Python file without running it."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from unittest.mock import Mock

from nameko.cli.doctor.findings import Finding, Severity
from nameko.cli.doctor.rules import CONSUMER_MIXIN, rule_for
from nameko.containers import ServiceContainer
from nameko.messaging import QueueConsumer
from nameko.standalone.rpc import ReplyConsumer


@dataclass
class Source:
    """Findings and facts of a file."""

    place: str
    findings: list[Finding] = field(default_factory=list)
    # Required top-level module -> line. Optional imports are left out.
    imports: dict[str, int] = field(default_factory=dict)
    # All string literals, which include the configuration keys that the file reads.
    strings: set[str] = field(default_factory=set)
    # Number of service classes.
    services: int = 0


def read_source(place: str, path: Path) -> Source:
    """Checks a file, which findings refer to as ``place``."""
    source = Source(place)
    try:
        tree = ast.parse(path.read_bytes(), filename=place)
    except (SyntaxError, ValueError) as exc:
        line = getattr(exc, "lineno", 0) or 0
        source.findings.append(
            Finding(
                Severity.BREAKS,
                place,
                line,
                # Possibly the syntax of a newer Python.
                "not valid Python {}.{}: {}".format(
                    *sys.version_info[:2], getattr(exc, "msg", exc)
                ),
                "it cannot be imported",
                "2to3 or futurize translate Python 2 code",
            )
        )
        return source
    except OSError as exc:
        source.findings.append(
            Finding(Severity.DIFFERS, place, 0, "cannot be read", str(exc.strerror or exc))
        )
        return source
    except RecursionError:
        return _too_deep(source)
    try:
        _Reader(source).visit(tree)
    except RecursionError:
        return _too_deep(source)
    return source


def _too_deep(source: Source) -> Source:
    """Reports an expression of thousands of terms, most likely in generated code."""
    return Source(
        source.place,
        [
            Finding(
                Severity.DIFFERS,
                source.place,
                0,
                "cannot be read",
                "an expression in it is nested too deeply",
            )
        ],
    )


class _Reader(ast.NodeVisitor):
    def __init__(self, source: Source) -> None:
        self.source = source
        # Name in the file -> imported dotted name.
        self.names: dict[str, str] = {}
        # Whether the current node may fail to import.
        self.guarded = False
        # (severity, what, why, fix) -> lines, so that each name is reported once.
        self.found: dict[tuple[Severity, str, str, str], list[int]] = {}

    def visit_Module(self, node: ast.Module) -> None:
        # In advance, since functions may precede the imports that they use.
        for statement in ast.walk(node):
            if isinstance(statement, ast.Import):
                for alias in statement.names:
                    name = alias.name if alias.asname else alias.name.partition(".")[0]
                    self.names[alias.asname or name] = name
            elif isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
                for alias in statement.names:
                    name = "{}.{}".format(statement.module, alias.name)
                    self.names[alias.asname or alias.name] = name
        self.generic_visit(node)
        for (severity, what, why, fix), lines in self.found.items():
            first, *others = dict.fromkeys(lines)
            if others:
                what += ", also in line{} {}".format(
                    "s" if len(others) > 1 else "", ", ".join(map(str, others))
                )
            self.source.findings.append(Finding(severity, self.source.place, first, what, why, fix))

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._imports(alias.name, node.lineno)
            if alias.name.startswith("nameko."):
                self._check_nameko(alias.name, None, node.lineno)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.level or node.module is None:
            return
        self._imports(node.module, node.lineno)
        for alias in node.names:
            if node.module == "nameko" or node.module.startswith("nameko."):
                self._check_nameko(node.module, alias.name, node.lineno)

    def visit_Try(self, node: ast.Try) -> None:
        before = self.guarded
        self.guarded = before or any(map(_catches_import_error, node.handlers))
        for statement in node.body:
            self.visit(statement)
        self.guarded = before
        # Fallback imports in a handler are optional as well.
        for handler in node.handlers:
            self.guarded = before or _catches_import_error(handler)
            self.visit(handler)
        self.guarded = before
        for statement in [*node.orelse, *node.finalbody]:
            self.visit(statement)

    def visit_If(self, node: ast.If) -> None:
        before = self.guarded
        self.guarded = before or "TYPE_CHECKING" in ast.unparse(node.test)
        self.generic_visit(node)
        self.guarded = before

    def visit_Attribute(self, node: ast.Attribute) -> None:
        name = self._dotted(node)
        if name is None:
            self._check_internals(node)
            self.generic_visit(node)
        else:
            self._uses(name, node.lineno)
            if isinstance(node.ctx, ast.Load) and name.startswith("nameko."):
                self._check_attribute(name, node.lineno)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load) and node.id in self.names:
            self._uses(self.names[node.id], node.lineno)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self.source.strings.add(node.value)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        bases = {self._dotted(base) for base in node.bases}
        if bases & {"kombu.mixins.ConsumerMixin", "kombu.mixins.ConsumerProducerMixin"}:
            self._find(
                Severity.DIFFERS,
                "{} is a kombu ConsumerMixin".format(node.name),
                "it has its own connection: nameko neither keeps it alive nor stops its loop",
                "nameko.messaging.Consumer; or run it in self.container.spawn_managed_thread and "
                "set should_stop in stop()",
                node.lineno,
            )
        if "nameko.messaging.QueueConsumer" in bases:
            for statement in node.body:
                name = getattr(statement, "name", "")
                if name in CONSUMER_MIXIN and not hasattr(QueueConsumer, name):
                    self._find(
                        Severity.BREAKS,
                        "{}.{} overrides a method of kombu's ConsumerMixin".format(node.name, name),
                        "the connection is no longer kombu's, so it is never called",
                        "override on_connection_error, sharing_key, amqp_uri or prefetch_count of "
                        "QueueConsumer, or handle_message of the entrypoint",
                        statement.lineno,
                    )
        if _is_service(node):
            self.source.services += 1
        self.generic_visit(node)

    def _imports(self, module: str, line: int) -> None:
        if not self.guarded:
            self.source.imports.setdefault(module.partition(".")[0], line)

    def _uses(self, name: str, line: int) -> None:
        found = rule_for(name)
        if found is not None:
            _, rule = found
            self._find(rule.severity, name, rule.why, rule.fix, line)

    def _check_nameko(self, module: str, name: str | None, line: int) -> None:
        """Checks that names imported from nameko exist."""
        dotted = module if name is None else "{}.{}".format(module, name)
        if self.guarded or rule_for(dotted) is not None or name == "*":
            return
        try:
            ours = _our_module(module)
        except ImportError:
            return  # a missing dependency, reported by the environment check
        if ours is None:
            what, why = module, "no such module in this version of nameko"
        elif name is None or hasattr(ours, name) or _our_module(dotted) is not None:
            return
        else:
            what, why = dotted, "no such name in this version of nameko"
        self._find(Severity.BREAKS, what, why, "see the migration guide for a replacement", line)

    def _check_attribute(self, name: str, line: int) -> None:
        """Checks that the name after the modules in ``nameko.module.name.attribute`` exists."""
        module, *rest = name.split(".")
        for part in rest:
            dotted = "{}.{}".format(module, part)
            try:
                is_module = _our_module(dotted) is not None
            except ImportError:
                return  # a missing dependency, reported by the environment check
            if not is_module:
                self._check_nameko(module, part, line)
                return
            module = dotted

    def _check_internals(self, node: ast.Attribute) -> None:
        """Checks that private attributes of the container and the queue consumer exist."""
        owner = node.value
        owner_name = getattr(owner, "attr", None) or getattr(owner, "id", None)
        if owner_name == "container" and node.attr.startswith("_"):
            known, owner_class = _container_attributes(), "ServiceContainer"
        elif owner_name == "queue_consumer":
            known, owner_class = _queue_consumer_attributes(), "QueueConsumer"
        else:
            return
        # In tests, the owner may be a mock.
        is_mock = hasattr(Mock, node.attr)
        if node.attr not in known and not is_mock and isinstance(node.ctx, ast.Load):
            self._find(
                Severity.BREAKS,
                "{}.{}".format(owner_name, node.attr),
                "{} has no such attribute in this version of nameko".format(owner_class),
                "use public methods only; wait for replies with result() of call_async()",
                node.lineno,
            )

    def _dotted(self, node: ast.expr) -> str | None:
        """Resolves an expression like ``a.b.c`` to a dotted name, if ``a`` was imported."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self.names:
            return None
        return ".".join([self.names[node.id], *reversed(parts)])

    def _find(self, severity: Severity, what: str, why: str, fix: str, line: int) -> None:
        self.found.setdefault((severity, what, why, fix), []).append(line)


def _catches_import_error(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    caught = ast.unparse(handler.type)
    return "ImportError" in caught or "ModuleNotFoundError" in caught or caught == "Exception"


def _is_service(node: ast.ClassDef) -> bool:
    """Whether a class has a ``name`` and a decorated method, like a service."""
    named = any(
        isinstance(target, ast.Name) and target.id == "name"
        for statement in node.body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
    )
    return named and any(
        isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)) and statement.decorator_list
        for statement in node.body
    )


@cache
def _our_module(name: str) -> ModuleType | None:
    """Imports a module of nameko; None if missing. ImportError for a missing dependency."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not (name + ".").startswith(exc.name + "."):
            raise
        return None


@cache
def _container_attributes() -> frozenset[str]:
    example = type("Example", (), {"name": "example"})
    return frozenset(_attributes(ServiceContainer(example, {})))


@cache
def _queue_consumer_attributes() -> frozenset[str]:
    # The consumers of services and of standalone clients.
    return frozenset([*_attributes(QueueConsumer()), *_attributes(ReplyConsumer(None))])


def _attributes(thing: object) -> Iterator[str]:
    yield from dir(type(thing))
    yield from vars(thing)
