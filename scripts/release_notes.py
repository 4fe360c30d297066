"""Prints the changelog of a release: `python3 scripts/release_notes.py v3.1.0`.

Fails if the tag differs from the version of the sources, or CHANGELOG.md has no section for it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main(tag: str) -> str:
    manifest = (ROOT / "Cargo.toml").read_text()
    version = re.search(r'^version = "(.+)"$', manifest, re.MULTILINE)
    if version is None or tag != "v" + version.group(1):
        sys.exit("the tag {} is not the version in Cargo.toml".format(tag))
    python = (ROOT / "python/nameko/__init__.py").read_text()
    # PEP 440 spells the release candidate 3.1.0-rc.1 as 3.1.0rc1.
    if '__version__ = "{}"'.format(tag[1:].replace("-rc.", "rc")) not in python:
        sys.exit("the tag {} is not __version__ in python/nameko/__init__.py".format(tag))
    sections = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    for section in sections[1:]:
        heading, _, notes = section.partition("\n")
        if re.fullmatch(r"\[{}\] - \d{{4}}-\d\d-\d\d".format(re.escape(tag[1:])), heading):
            return notes.strip() + "\n"
    sys.exit("CHANGELOG.md has no section `## [{}] - YYYY-MM-DD`".format(tag[1:]))


if __name__ == "__main__":
    sys.stdout.write(main(sys.argv[1]))
