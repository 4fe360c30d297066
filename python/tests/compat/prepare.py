#!/usr/bin/env python3
"""Prepares the directory in which run.py runs upstream's tests: `prepare.py HOME`.

HOME gets the tests from the sdist on PyPI, and `venv`, an environment with their requirements on
top of the current one, in which this package is installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    home = Path(sys.argv[1]).resolve()
    make_environment(home / "venv")
    fetch_tests(home)


def make_environment(folder: Path) -> None:
    """Creates a virtual environment with precedence over the current one."""
    venv.create(folder, clear=True, with_pip=True)
    python = folder / "bin/python"
    pip(python, "install", "-r", str(HERE / "requirements.txt"))
    paths = subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    )
    # site.addsitedir() also processes the .pth files of editable installs.
    Path(paths.strip(), "nameko-under-test.pth").write_text(
        "import site; site.addsitedir({!r})\n".format(sysconfig.get_path("purelib"))
    )
    script = folder / "bin/nameko"
    script.write_text(
        "#!{}\nimport sys\nfrom nameko.cli.main import main\nsys.exit(main())\n".format(python)
    )
    script.chmod(0o755)


def fetch_tests(home: Path) -> None:
    """Extracts the tests and the pytest settings of the sdist, without the package."""
    downloads = home / "download"
    pip(
        home / "venv/bin/python",
        *("download", "--no-deps", "--no-binary=nameko", "--no-build-isolation"),
        *("--dest", str(downloads), "-r", str(HERE / "upstream.txt")),
    )
    shutil.rmtree(home / "test", ignore_errors=True)
    (sdist,) = downloads.glob("nameko-*.tar.gz")
    with tarfile.open(sdist) as archive:
        for member in archive.getmembers():
            _, _, name = member.name.partition("/")
            if name == "setup.cfg" or name.startswith("test/"):
                member.name = name
                archive.extract(member, home, filter="data")


def pip(python: Path, *arguments: str) -> None:
    command = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONWARNINGS": "ignore"})


if __name__ == "__main__":
    main()
