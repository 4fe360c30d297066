"""Packages crates as `cargo publish` does, then checks and documents them from the packages alone.

Usage: python3 scripts/check_packages.py CRATE..., in the order of publishing. A crate that uses a
file outside its package, or lacks metadata that crates.io and docs.rs show, fails.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "target"
# A workspace of the unpacked packages.
UNPACKED = TARGET / "package" / "unpacked"

REQUIRED_FILES = ("Cargo.toml", "LICENSE", "README.md")
REQUIRED_METADATA = (
    "categories",
    "description",
    "documentation",
    "homepage",
    "keywords",
    "license",
    "readme",
    "repository",
    "rust_version",
)


def main(crates: list[str]) -> None:
    metadata = workspace_metadata()
    fail_on([error for name in crates for error in missing_metadata(metadata[name])])
    selection = [argument for name in crates for argument in ("--package", name)]
    cargo("package", "--quiet", "--no-verify", "--allow-dirty", *selection)
    shutil.rmtree(UNPACKED, ignore_errors=True)
    fail_on([error for name in crates for error in unpack(folder(metadata[name]))])
    write_workspace([metadata[name] for name in crates])
    build = ["--workspace", "--quiet", "--target-dir", str(TARGET)]
    cargo("check", *build, cwd=UNPACKED)
    cargo("check", *build, "--no-default-features", cwd=UNPACKED)
    # As docs.rs does, see package.metadata.docs.rs.
    strict = {**os.environ, "RUSTDOCFLAGS": "-D warnings"}
    cargo("doc", *build, "--no-deps", "--all-features", cwd=UNPACKED, env=strict)
    sys.stdout.write("packaged, checked and documented: {}\n".format(", ".join(crates)))


def workspace_metadata() -> dict[str, dict[str, Any]]:
    """The packages of the workspace by name, as `cargo metadata` describes them."""
    command = ["cargo", "metadata", "--format-version", "1", "--no-deps"]
    output = subprocess.check_output(command, cwd=ROOT)
    return {package["name"]: package for package in json.loads(output)["packages"]}


def missing_metadata(package: dict[str, Any]) -> list[str]:
    missing = [key for key in REQUIRED_METADATA if not package[key]]
    if not ((package["metadata"] or {}).get("docs") or {}).get("rs"):
        missing.append("metadata.docs.rs")
    if package["publish"] == []:
        missing.append("permission to publish (publish = false)")
    return ["{}: Cargo.toml has no {}".format(package["name"], key) for key in missing]


def folder(package: dict[str, Any]) -> str:
    """The root folder in the package file, and the name of that file without its suffix."""
    return "{}-{}".format(package["name"], package["version"])


def unpack(name: str) -> list[str]:
    with tarfile.open(TARGET / "package" / (name + ".crate")) as archive:
        archive.extractall(UNPACKED, filter=as_modified_now)
    missing = [file for file in REQUIRED_FILES if not (UNPACKED / name / file).is_file()]
    return ["{}: the package has no {}".format(name, file) for file in missing]


def as_modified_now(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
    """Cargo rebuilds changed files by their time, and packages have a constant one."""
    filtered = tarfile.data_filter(member, path)
    return filtered and filtered.replace(mtime=time.time())


def write_workspace(packages: list[dict[str, Any]]) -> None:
    """Has the unpacked packages depend on one another instead of on published versions."""
    members = ", ".join('"{}"'.format(folder(package)) for package in packages)
    patches = [
        '{} = {{ path = "{}" }}'.format(package["name"], folder(package)) for package in packages
    ]
    manifest = ["[workspace]", 'resolver = "3"', "members = [{}]".format(members)]
    manifest += ["", "[patch.crates-io]", *patches, ""]
    (UNPACKED / "Cargo.toml").write_text("\n".join(manifest))
    # The tested versions of everything else, compiled already by the other checks.
    shutil.copy(ROOT / "Cargo.lock", UNPACKED)


def fail_on(errors: list[str]) -> None:
    if errors:
        sys.exit("\n".join(errors))


def cargo(*arguments: str, cwd: Path = ROOT, **options: Any) -> None:
    command = ["cargo", *arguments]
    if subprocess.run(command, cwd=cwd, **options).returncode:
        sys.exit("failed in {}: {}".format(cwd, " ".join(command)))


if __name__ == "__main__":
    main(sys.argv[1:])
