"""What a project says of its packages and its Python: requirements files, setup.py, setup.cfg,
pyproject.toml, Pipfile, Dockerfile."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import nameko
from nameko.cli.doctor.findings import Finding, Severity

# A package, or "python", with versions, as all of these files write it: alone on a line, as a text
# in a list, or as a key, whose value may be a table with a version.
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
# Those that nameko runs on, and some to come.
_PYTHONS = ["3.{}.9".format(minor) for minor in range(10, 20)]


def declared(paths: list[Path]) -> set[str]:
    """The packages that the files name, as pip normalises names."""
    return {_normalised(name) for path in paths for _, name, _ in _requirements(path)}


def check(place: str, path: Path) -> Iterator[Finding]:
    """What in a file does not fit."""
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
                "pip would put another nameko in the place of this one, which is {}".format(
                    nameko.__version__
                ),
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
                "nameko needs kombu>=5.2,<6; pip refuses to install the two together",
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
                "nameko needs CPython 3.10 or newer",
                ">=3.10",
            )
        elif name in ("eventlet", "greenlet", "gevent"):
            yield Finding(
                Severity.FINE,
                place,
                line,
                "{} {}".format(name, versions).strip(),
                "nameko does not need it any more",
                "remove it once nothing of yours imports it",
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
                "nameko needs CPython 3.10 or newer",
                "FROM python:3.13-slim",
            )
        elif "alpine" in line:
            yield Finding(
                Severity.DIFFERS,
                place,
                number,
                line.strip(),
                "wheels of nameko are for glibc; on musl pip builds it, and needs Rust for that",
                "FROM python:{}.{}-slim".format(*version),
            )


def _requirements(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line, name and versions of each package."""
    plain = path.suffix == ".txt" or path.name.startswith("constraints")
    # Headings and other keys look like packages of any version, which does no harm.
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
    """Whether conditions like ``>=2,<3`` hold for a version."""
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
        # pip's ~=2.14 and Poetry's ^2.14 take any 2.x from there on; Poetry's ~2.14 takes 2.14.x.
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
    """3.0.0rc11 is 3.0.0 here: what asks for a release candidate takes the release."""
    release = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, release[0].split("."))) if release else ()
