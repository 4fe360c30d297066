"""Finds the files of a project."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from pathlib import Path

from nameko.exceptions import CommandError

_SKIPPED_FOLDERS = frozenset(
    {"site-packages", "node_modules", "__pycache__", "build", "dist", "venv", "env", "virtualenv"}
)

# Files that declare the packages and the Python version of a project.
_REQUIREMENTS = ("setup.py", "setup.cfg", "pyproject.toml", "Pipfile", "Dockerfile")
_REQUIREMENTS_PATTERNS = ("*requirements*.txt", "requirements/*.txt", "Dockerfile*", "constraints*")


@dataclass
class Project:
    modules: list[Path] = field(default_factory=list)
    requirements: list[Path] = field(default_factory=list)


def find_project(targets: list[str]) -> Project:
    """Returns the files of the targets: directories, files, and modules including their imports.

    CommandError if a target does not exist.
    """
    modules: dict[Path, None] = {}
    folders: dict[Path, None] = {Path(): None}
    for target in targets:
        path = Path(target)
        if path.is_dir():
            for folder, files in _walk(path):
                modules.update(dict.fromkeys(files))
                # Services of a repository may have requirements files of their own.
                folders[folder] = None
        elif path.is_file():
            if path.suffix not in (".py", ".pyw", ""):
                raise CommandError(
                    "{} is not a Python file; pass a configuration file with --config".format(
                        target
                    )
                )
            modules.update(dict.fromkeys([path]))
            folders[path.parent] = None
        else:
            name = target.partition(":")[0]
            file, root = _find_module(name)
            modules.update(dict.fromkeys(_with_imports(file, root)))
            folders[root] = None
    return Project(list(modules), [*_find_requirements(list(folders))])


def _walk(folder: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Yields a directory and its subdirectories, each with its Python files."""
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name not in _SKIPPED_FOLDERS
            and not name.endswith((".egg-info", ".dist-info"))
            and not Path(where, name, "pyvenv.cfg").exists()
        )
        paths = (Path(where, name) for name in sorted(files) if name.endswith(".py"))
        # Skips pipes and dangling links, such as lock files of editors.
        yield Path(where), [path for path in paths if path.is_file()]


def _find_module(name: str) -> tuple[Path, Path]:
    """Returns the file of a module and the parent of its top-level package, without importing
    it."""
    top, *rest = name.split(".")
    spec = PathFinder.find_spec(top, [os.getcwd()]) or PathFinder.find_spec(top)
    locations = list(spec.submodule_search_locations or ()) if spec is not None else []
    if spec is not None and not locations and spec.origin and not rest:
        file = Path(spec.origin)
        if file.suffix == ".py":
            return file, file.parent
    for location in map(Path, locations):
        found = _file_below(location, rest)
        if found is not None:
            return found, location.parent
    hint = ""
    if name.endswith(".py") or "/" in name:
        hint = "; there is no such file, either"
    raise CommandError(
        "There is no module {!r} in this directory or environment{}".format(name, hint)
    )


def _file_below(folder: Path, names: list[str]) -> Path | None:
    path = folder.joinpath(*names)
    if names and path.with_suffix(".py").is_file():
        return path.with_suffix(".py")
    init = path / "__init__.py"
    return init if init.is_file() else None


def _with_imports(file: Path, root: Path) -> list[Path]:
    """Returns a module and the modules below ``root`` that it imports, transitively."""
    found: dict[Path, None] = {}
    waiting = [file]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found[path] = None
        for name in _imported_names(path, root):
            parts = name.split(".")
            # `from a.b import c` may import the module a.b.c or a name in a.b; both import a.
            for length in range(len(parts), 0, -1):
                imported = _file_below(root, parts[:length])
                if imported is not None:
                    waiting.append(imported)
    return list(found)


def _imported_names(path: Path, root: Path) -> list[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError):
        return []  # reported by read_source()
    package = path.relative_to(root).parent.parts if path.is_relative_to(root) else ()
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            prefix = ".".join([*base, *filter(None, [node.module])])
            names += ["{}.{}".format(prefix, alias.name).strip(".") for alias in node.names]
    return names


def _find_requirements(folders: list[Path]) -> list[Path]:
    found: dict[Path, Path] = {}
    for folder in folders:
        candidates = [folder / name for name in _REQUIREMENTS]
        for pattern in _REQUIREMENTS_PATTERNS:
            candidates += sorted(folder.glob(pattern))
        for path in candidates:
            if path.is_file():
                found.setdefault(path.resolve(), path)
    return list(found.values())
