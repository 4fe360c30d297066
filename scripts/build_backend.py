"""PEP 517 build backend: maturin, without the builder's paths in the compiled module.

Panic messages contain the source paths of dependencies, below the builder's Cargo home. Cargo's
`trim-paths` is unstable, so RUSTFLAGS remap that prefix. As a program, runs maturin's command line
with the same flags.
"""

import os
import sys
from pathlib import Path

import maturin
from maturin import (
    build_editable,
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

# Maturin warns about a backend that is not named `maturin`.
os.environ["MATURIN_NO_MISSING_BUILD_BACKEND_WARNING"] = "1"


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    remap_paths()
    return maturin.build_wheel(wheel_directory, config_settings, metadata_directory)


def remap_paths():
    """Adds the flag to those of the environment, which maturin passes on."""
    cargo_home = os.environ.get("CARGO_HOME") or Path.home() / ".cargo"
    flags = os.environ.get("CARGO_ENCODED_RUSTFLAGS")
    known = flags.split("\x1f") if flags else os.environ.get("RUSTFLAGS", "").split()
    # Encoded, as the path may contain spaces.
    os.environ["CARGO_ENCODED_RUSTFLAGS"] = "\x1f".join(
        [*known, "--remap-path-prefix={}=/cargo".format(cargo_home)]
    )


if __name__ == "__main__":
    remap_paths()
    os.execvp("maturin", ["maturin", *sys.argv[1:]])
