"""This Python and its packages, as far as a project needs them."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from nameko.cli.doctor.extensions import TRIED, Extension
from nameko.cli.doctor.findings import Finding, Severity
from nameko.cli.doctor.requirements import allows
from nameko.cli.doctor.rules import CAME_ALONG
from nameko.cli.doctor.source import Source, read_source


def check(sources: list[Source], declared: set[str]) -> Iterator[Finding]:
    """``declared``: the packages that the project says it needs."""
    yield from _check_imports(sources, declared)
    own = {Path(source.place).resolve() for source in sources}
    for distribution in metadata.distributions():
        requirements = distribution.requires or ()
        if any(re.match(r"nameko\b(?!-)", requirement) for requirement in requirements):
            yield from _check_extension(distribution, own)


def _check_imports(sources: list[Source], declared: set[str]) -> Iterator[Finding]:
    own = {Path(source.place).stem for source in sources}
    own |= {part for source in sources for part in Path(source.place).parts}
    told = set()
    for source in sources:
        for module, line in source.imports.items():
            if module in told or module in own or _is_there(module):
                continue
            told.add(module)
            why = "it is not installed in {}".format(sys.prefix)
            fix = "pip install what has it"
            if module in CAME_ALONG:
                why += "; it came along with nameko 2"
                package = CAME_ALONG[module].strip("'").partition("<")[0]
                fix = "pip install {}".format(CAME_ALONG[module])
                if package not in declared:
                    fix += ", and add it to your requirements"
            yield Finding(Severity.BREAKS, source.place, line, "import {}".format(module), why, fix)


def _check_extension(distribution: metadata.Distribution, own: set[Path]) -> Iterator[Finding]:
    """An installed package that needs nameko. ``own``: files that are read anyway."""
    name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"] or "").lower()
    place = "{} {}".format(name, distribution.version)
    if name in TRIED:
        findings = [*_check_tried(place, TRIED[name])]
        if all(finding.severity is not Severity.BREAKS for finding in findings):
            yield Finding(Severity.FINE, place, 0, "works", "it is one of those that are tested")
        yield from findings
        return
    for file in distribution.files or ():
        if file.suffix == ".py" and "test" not in file.parts[0]:
            path = Path(str(distribution.locate_file(file))).resolve()
            if path not in own:
                yield from read_source("{}: {}".format(place, file), path).findings


def _check_tried(place: str, extension: Extension) -> Iterator[Finding]:
    for module in extension.imports:
        if not _is_there(module):
            yield Finding(
                Severity.BREAKS,
                place,
                0,
                "imports {}".format(module),
                "it is not installed; it came along with nameko 2",
                "pip install {}".format(CAME_ALONG[module]),
            )
    for limit in extension.limits:
        installed = _version(limit.package)
        if installed is not None and not allows(limit.versions, installed):
            what = "{} {}".format(limit.package, installed)
            fix = "pip install '{}{}'".format(limit.package, limit.versions)
            yield Finding(Severity.BREAKS, place, 0, what, limit.why, fix)
    for note in extension.notes:
        yield Finding(note.severity, place, 0, note.what, note.why, note.fix)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _is_there(module: str) -> bool:
    """Whether a top-level module can be found. It is not imported."""
    if module in sys.stdlib_module_names or module in sys.modules:
        return True
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
