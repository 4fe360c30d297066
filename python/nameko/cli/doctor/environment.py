"""Checks the installed packages against the needs of a project."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from nameko.cli.doctor.extensions import TESTED, Extension
from nameko.cli.doctor.findings import Finding, Severity
from nameko.cli.doctor.requirements import allows
from nameko.cli.doctor.rules import FORMER_DEPENDENCIES
from nameko.cli.doctor.source import Source, read_source


def check(sources: list[Source], declared: set[str]) -> Iterator[Finding]:
    """Yields the findings. ``declared`` holds the packages that the project requires."""
    yield from _check_imports(sources, declared)
    own = {Path(source.place).resolve() for source in sources}
    for distribution in metadata.distributions():
        requirements = distribution.requires or ()
        if any(re.match(r"nameko\b(?!-)", requirement) for requirement in requirements):
            yield from _check_extension(distribution, own)


def _check_imports(sources: list[Source], declared: set[str]) -> Iterator[Finding]:
    own = {Path(source.place).stem for source in sources}
    own |= {part for source in sources for part in Path(source.place).parts}
    reported = set()
    for source in sources:
        for module, line in source.imports.items():
            if module in reported or module in own or _is_available(module):
                continue
            reported.add(module)
            why = "not installed in {}".format(sys.prefix)
            fix = "pip install the package that provides it"
            if module in FORMER_DEPENDENCIES:
                why += "; it was a dependency of nameko 2"
                package = FORMER_DEPENDENCIES[module].strip("'").partition("<")[0]
                fix = "pip install {}".format(FORMER_DEPENDENCIES[module])
                if package not in declared:
                    fix += ", and add it to your requirements"
            yield Finding(Severity.BREAKS, source.place, line, "import {}".format(module), why, fix)


def _check_extension(distribution: metadata.Distribution, own: set[Path]) -> Iterator[Finding]:
    """Yields the findings in an installed package that requires nameko. Skips files in ``own``."""
    name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"] or "").lower()
    place = "{} {}".format(name, distribution.version)
    if name in TESTED:
        findings = [*_check_tested(place, TESTED[name])]
        if all(finding.severity is not Severity.BREAKS for finding in findings):
            yield Finding(Severity.FINE, place, 0, "works", "tested with this version")
        yield from findings
        return
    for file in distribution.files or ():
        if file.suffix == ".py" and "test" not in file.parts[0]:
            path = Path(str(distribution.locate_file(file))).resolve()
            if path not in own:
                yield from read_source("{}: {}".format(place, file), path).findings


def _check_tested(place: str, extension: Extension) -> Iterator[Finding]:
    for module in extension.imports:
        if not _is_available(module):
            yield Finding(
                Severity.BREAKS,
                place,
                0,
                "imports {}".format(module),
                "not installed; it was a dependency of nameko 2",
                "pip install {}".format(FORMER_DEPENDENCIES[module]),
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


def _is_available(module: str) -> bool:
    """Whether a top-level module is installed. Does not import it."""
    if module in sys.stdlib_module_names or module in sys.modules:
        return True
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
