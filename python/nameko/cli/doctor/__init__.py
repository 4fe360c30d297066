"""``nameko doctor``: finds incompatibilities of a project with this version of Nameko.

Files are parsed; nothing is imported or run. ``project`` finds the files. ``source`` checks Python
(by the table in ``rules``), ``requirements`` the declared packages, ``configuration`` YAML and
``environment`` the installed packages. ``report`` prints the findings.
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
    """Prints the findings. Returns 1 if anything would break, else 0."""
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
    # Two checks may report the same finding.
    findings = sorted(set(findings), key=Finding.order)
    services = sum(source.services for source in sources)
    report.show(findings, len(project.modules), services, args.format)
    return int(any(finding.severity is Severity.BREAKS for finding in findings))


def _shown(path: Path) -> str:
    shown = os.path.relpath(path)
    return str(path) if shown.startswith("..") else shown
