"""Checks the declared packages and Python version of a project.

Sources: requirements files, setup.py, setup.cfg, pyproject.toml, Pipfile, Dockerfile.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import nameko
from nameko.cli.doctor.findings import Finding, Severity

# A package or "python" with versions, in the syntax of all these files: on a line of its own, as a
# string in a list, or as a key with a version or a table as its value.
_REQUIREMENT = re.compile(
    r"""^[\s"'\[,]*
    ([A-Za-z0-9][A-Za-z0-9._-]*)                               # the name
    (?:\[[^]]*\])?                                             # extras
    \s*(?:=(?!=)\s*(?:\{.*?version\s*=\s*)?["']?\s*)?          # a key and its value
    ((?:(?:[<>=!~^]=?=?)\s*[\w.*+!-]+\s*,?\s*)*)               # versions
    """,
    re.VERBOSE,
)
_IN_LIST = re.compile(r"""["']([A-Za-z0-9][^"']*)["']""")
_CONDITION = re.compile(r"(<=|>=|===?|!=|~=|~|\^|<|>)\s*([\w.*+!-]+)")
_DOCKER_PYTHON = re.compile(r"^\s*FROM\s+(?:\S+/)?python:(\d+)\.(\d+)", re.IGNORECASE)

_OLDEST_PYTHON = (3, 10)
# Supported Python versions, and some future ones.
_PYTHONS = ["3.{}.9".format(minor) for minor in range(10, 20)]


def declared(paths: list[Path]) -> set[str]:
    """Returns the normalised names of the packages in the files."""
    return {_normalised(name) for path in paths for _, name, _ in _requirements(path)}


def check(place: str, path: Path) -> Iterator[Finding]:
    """Yields the findings in a file."""
    if path.name.startswith("Dockerfile"):
        yield from _check_dockerfile(place, path)
        return
    for line, name, versions in _requirements(path):
        name = _normalised(name)
        if name == "nameko" and not allows(versions, nameko.__version__):
            yield Finding(
                Severity.BREAKS,
                place,
                line,
                "nameko {}".format(versions),
                "pip would replace this version of nameko, {}".format(nameko.__version__),
                "nameko>=3.0.0",
            )
        elif name == "kombu" and not any(
            allows(versions, version) for version in ("5.2.0", "5.3.0", "5.4.0", "5.5.0", "5.7.0")
        ):
            yield Finding(
                Severity.BREAKS,
                place,
                line,
                "kombu {}".format(versions),
                "nameko requires kombu>=5.2,<6; pip cannot install both",
                "kombu>=5.2,<6",
            )
        elif name in ("python", "requires-python", "python-requires") and not any(
            allows(versions, version) for version in _PYTHONS
        ):
            yield Finding(
                Severity.BREAKS,
                place,
                line,
                "Python {}".format(versions),
                "nameko requires CPython 3.10 or newer",
                ">=3.10",
            )
        elif name in ("eventlet", "greenlet", "gevent"):
            yield Finding(
                Severity.FINE,
                place,
                line,
                "{} {}".format(name, versions).strip(),
                "nameko no longer depends on it",
                "remove it once your code does not import it",
            )


def _check_dockerfile(place: str, path: Path) -> Iterator[Finding]:
    for number, line in enumerate(_lines(path), 1):
        match = _DOCKER_PYTHON.match(line)
        if match is None:
            continue
        version = (int(match[1]), int(match[2]))
        if version < _OLDEST_PYTHON:
            yield Finding(
                Severity.BREAKS,
                place,
                number,
                line.strip(),
                "nameko requires CPython 3.10 or newer",
                "FROM python:3.13-slim",
            )
        elif "alpine" in line:
            yield Finding(
                Severity.DIFFERS,
                place,
                number,
                line.strip(),
                "nameko wheels are for glibc; on musl, pip needs Rust to build one",
                "FROM python:{}.{}-slim".format(*version),
            )


def _requirements(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yields the line, name and versions of each package."""
    plain = path.suffix == ".txt" or path.name.startswith("constraints")
    # Section headings and other keys are taken for unversioned packages, which is harmless.
    for number, line in enumerate(_lines(path), 1):
        line = line.partition("#")[0].rstrip()
        for text in [line] if plain else [*_IN_LIST.findall(line), line]:
            match = _REQUIREMENT.match(text)
            if match is not None and not text.lstrip().startswith("-"):
                yield number, match[1], match[2].strip().rstrip(",")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def allows(versions: str, version: str) -> bool:
    """Whether a version satisfies conditions like ``>=2,<3``."""
    ours = _numbers(version)
    for operator, other in _CONDITION.findall(versions):
        theirs = _numbers(other)
        width = max(len(ours), len(theirs))
        left, right = (part + (0,) * (width - len(part)) for part in (ours, theirs))
        prefix = other.endswith("*")
        same = ours[: len(theirs)] == theirs if prefix else left == right
        if operator in ("==", "===") and not same:
            return False
        if operator == "!=" and same:
            return False
        # pip's ~=2.14 and Poetry's ^2.14 accept any later 2.x; Poetry's ~2.14 accepts 2.14.x.
        fixed = {"~=": len(theirs) - 1, "^": 1, "~": min(len(theirs), 2)}.get(operator)
        if fixed is not None and not (left >= right and ours[:fixed] == theirs[:fixed]):
            return False
        if (
            (operator == "<" and not left < right)
            or (operator == "<=" and not left <= right)
            or (operator == ">" and not left > right)
            or (operator == ">=" and not left >= right)
        ):
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    """Returns the release numbers. 3.0.0rc11 counts as 3.0.0, which satisfies its conditions."""
    release = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, release[0].split("."))) if release else ()
