"""Prints the findings."""

from __future__ import annotations

import json
from collections import Counter

from nameko.cli.doctor.findings import Finding, Severity


def show(findings: list[Finding], files: int, services: int, form: str) -> None:
    """Prints the findings in the format ``form``, text or json."""
    counts = Counter(finding.severity for finding in findings)
    if form == "json":
        _show_json(findings, counts, files, services)
        return
    for finding in findings:
        print("{}: {}: {}".format(finding.where, finding.severity.value, finding.what))
        print("    why: {}".format(finding.why))
        if finding.fix:
            print("    fix: {}".format(finding.fix))
    if findings:
        print()
    print(
        "{}, {} differently, in {} with {}".format(
            _number(counts[Severity.BREAKS], "thing breaks", "things break"),
            _number(counts[Severity.DIFFERS], "works", "work"),
            _number(files, "file", "files"),
            _number(services, "service", "services"),
        )
    )


def _show_json(
    findings: list[Finding], counts: Counter[Severity], files: int, services: int
) -> None:
    report = {
        "findings": [
            {
                "severity": finding.severity.name.lower(),
                "file": finding.place,
                "line": finding.line or None,
                "what": finding.what,
                "why": finding.why,
                "fix": finding.fix or None,
            }
            for finding in findings
        ],
        "counts": {severity.name.lower(): counts[severity] for severity in Severity},
        "files": files,
        "services": services,
    }
    print(json.dumps(report, indent=2))


def _number(count: int, one: str, many: str) -> str:
    return "{} {}".format(count, one if count == 1 else many)
