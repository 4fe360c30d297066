"""Commands of the measured programs."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

from measure import BARE, BINARIES, HERE, PACKAGE, Service

ENVIRONMENTS = HERE.parent / ".venv"
# Upstream Nameko.
UPSTREAM = ENVIRONMENTS / "peer" / "bin" / "python"
# The other Python frameworks.
FRAMEWORKS = ENVIRONMENTS / "bench" / "bin" / "python"
SERVICES = HERE / "services"
CLIENTS = HERE / "clients"

# The bare crates without requests and replies.
ONE_CONNECTION = "one connection, Nameko has two"


def path(*folders: Path) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join(map(str, folders))}


def python(name: str, title: str, module: str, load: list[Any], *options: Any) -> Service:
    """A Python service on this package, run by `nameko run`."""
    command = [sys.executable, "-m", "nameko", "run", module, *options]
    return Service(name, title, command, load, environment=path(PACKAGE, SERVICES), own=True)


def upstream(name: str, module: str, load: list[Any], *options: Any) -> Service:
    """A Python service on upstream's package."""
    command = [UPSTREAM, "-m", "nameko", "run", module, *options]
    return Service(name, "upstream Nameko", command, load, environment=path(SERVICES))


def rust(name: str, program: str, load: list[Any], *options: Any) -> Service:
    """A Rust service on Nameko."""
    command = [BINARIES / program, "run", *options]
    return Service(name, "Nameko, Rust", command, load, own=True)


def client(name: str, title: str, script: str, *arguments: Any, own: bool = False) -> Service:
    """A Python client that measures itself, on this package, or in an environment of its own."""
    if own:
        interpreter, folders = Path(sys.executable), (PACKAGE, CLIENTS)
    else:
        interpreter, folders = UPSTREAM if "upstream" in script else FRAMEWORKS, (CLIENTS,)
    command = [interpreter, CLIENTS / script, *arguments]
    return Service(name, title, command, environment=path(*folders), own=own)


def bare(name: str, title: str, *arguments: Any, **options: Any) -> Service:
    """A program of src/main.rs, with a load generator."""
    return Service(name, title, [BARE, *arguments], **options)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
