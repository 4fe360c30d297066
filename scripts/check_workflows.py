"""Checks that each `run` step of the GitHub workflows is one call of an existing make target."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parent.parent
COMMAND = re.compile(r"make ([a-z-]+)( [A-Z_]+=\S+)*")


def main() -> int:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    failed = False
    for workflow in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        for job, command in commands(YAML(typ="safe").load(workflow)):
            target = COMMAND.fullmatch(command.replace("${{ ", "").replace(" }}", ""))
            if target is None or target.group(1) not in targets:
                failed = True
                sys.stderr.write(
                    "{}: job {}: not a call of a make target: {}\n".format(
                        workflow.name, job, command
                    )
                )
    return int(failed)


def commands(workflow: dict) -> Iterator[tuple[str, str]]:
    for name, job in workflow["jobs"].items():
        for step in job["steps"]:
            if "run" in step:
                yield name, step["run"].strip()


if __name__ == "__main__":
    sys.exit(main())
