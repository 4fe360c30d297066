"""``nameko doctor``: what of a project would not work, or would work differently, on this nameko.

Nothing of the project is imported or run: its files are parsed. ``project`` finds them, ``source``
reads Python (by the table in ``rules``), ``requirements`` what is installed for it,
``configuration`` its YAML, ``environment`` looks at this Python's packages, ``report`` prints.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from nameko.cli.doctor import configuration, environment, report, requirements
from nameko.cli.doctor.findings import Finding, Severity
from nameko.cli.doctor.project import find_project
from nameko.cli.doctor.source import Source, read_source


def main(args: Any) -> int:
    """Print what there is to say; 1 where something would not work."""
    project = find_project(args.targets)
    findings: list[Finding] = []
    sources: list[Source] = []
    for path in project.modules:
        source = read_source(_shown(path), path)
        sources.append(source)
        findings += source.findings
    for path in project.requirements:
        findings += requirements.check(_shown(path), path)
    if args.config:
        read = {key for source in sources for key in source.strings}
        findings += configuration.check(args.config, read)
    findings += environment.check(sources, requirements.declared(project.requirements))
    # One thing may be found in two ways.
    findings = sorted(set(findings), key=Finding.order)
    services = sum(source.services for source in sources)
    report.show(findings, len(project.modules), services, args.format)
    return int(any(finding.severity is Severity.BREAKS for finding in findings))


def _shown(path: Path) -> str:
    shown = os.path.relpath(path)
    return str(path) if shown.startswith("..") else shown
