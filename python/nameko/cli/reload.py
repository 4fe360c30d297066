"""``nameko run --reload``: runs the services and watches their files."""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
import threading
from collections.abc import Iterator
from typing import Any

import nameko
from nameko._config import number_of_seconds
from nameko.cli.config import config_files
from nameko.cli.output import error, show_traceback
from nameko.cli.parent import Parent
from nameko.cli.services import users_traceback
from nameko.exceptions import CommandError, ConfigurationError

# Seconds between two scans of the files. A scan takes some microseconds per file.
INTERVAL = 0.5

# Seconds for running workers to finish. Short, since a developer waits for the restart.
STOP_TIMEOUT = 5

# Limit of the files below the working directory that are watched while the services do not run.
MAX_WATCHED_FILES = 5000


def serve(args: Any) -> int:
    """Runs the services until a file changes or the supervisor stops the process.

    Returns the exit code. If the services cannot start, prints the error and waits for a change.
    """
    from nameko.cli.run import configure, load_and_run

    parent = WatchingParent(args.link, config_files(args))
    try:
        try:
            config = configure(args)
            timeout = number_of_seconds(config, "stop_timeout", STOP_TIMEOUT)
            config["stop_timeout"] = min(timeout, STOP_TIMEOUT)
            return load_and_run(args, config, parent)
        except (CommandError, ConfigurationError) as exc:
            parent.watch_everything()
            error(exc)
        except (Exception, SystemExit) as exc:
            parent.watch_everything()
            show_traceback(users_traceback(exc))
        parent.wait_for_change()
    except KeyboardInterrupt:
        pass  # the supervisor received the signal as well
    return 0


class WatchingParent(Parent):
    """Stops this process also when a file changes: an imported one, or one of ``files``.

    Installed packages are not watched.
    """

    def __init__(self, link: int, files: list[str]) -> None:
        super().__init__(link)
        self._files = files
        # Guards the attributes below.
        self._scan_lock = threading.Lock()
        # File -> its state at the last scan.
        self._seen: dict[str, tuple[int, int]] = {}
        # Whether the services could not start. New files count as changes then, since the error may
        # be a missing file, and ``_seen`` includes all files.
        self._watch_all = False
        threading.Thread(target=self._watch, name="nameko-reload", daemon=True).start()

    def loaded(self, services: list[str]) -> None:
        # The state of the imported files, which later scans are compared with.
        self._scan()
        super().loaded(services)

    def watch_everything(self) -> None:
        """Watches all files below the working directory, including new ones."""
        with self._scan_lock:
            self._watch_all = True
            self._seen.update(self._states())

    def wait_for_change(self) -> None:
        """Blocks until a file changes or the supervisor stops the process."""
        change = threading.Event()
        self.on_stop(change.set)
        change.wait()

    def _watch(self) -> None:
        pause = threading.Event()
        while not pause.wait(INTERVAL):
            files = self._scan()
            if files:
                for file in files:
                    _forget_compiled(file)
                self.changed(os.path.relpath(files[0]))
                self.stop()
                return

    def _scan(self) -> list[str]:
        """Returns the files that have changed since the last scan."""
        with self._scan_lock:
            now = self._states()
            # A missing file is ignored: editors replace files.
            changed = [
                file
                for file, state in now.items()
                if self._seen.get(file, None if self._watch_all else state) != state
            ]
            if not changed:
                self._seen.update(now)
            return changed

    def _states(self) -> dict[str, tuple[int, int]]:
        """Returns the modification time and the size of each existing file."""
        files = [*self._files, *_imported_files(), *(_all_files() if self._watch_all else ())]
        states = {}
        for file in files:
            try:
                stat = os.stat(file)
            except OSError:
                continue
            states[file] = (stat.st_mtime_ns, stat.st_size)
        return states


def _forget_compiled(file: str) -> None:
    """Deletes the compiled module. Python compares modification times in whole seconds and sizes,
    so it could miss a second change within the same second."""
    try:
        os.unlink(importlib.util.cache_from_source(file))
    except (OSError, NotImplementedError):
        pass  # not compiled


def _imported_files() -> Iterator[str]:
    """Yields the files of all imported modules outside of installed packages."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and not os.path.abspath(file).startswith(_INSTALLED):
            yield file


def _all_files() -> Iterator[str]:
    """Yields the Python files below the working directory."""
    count = 0
    for folder, folders, files in os.walk("."):
        folders[:] = [
            name
            for name in folders
            if not name.startswith((".", "__")) and name not in ("site-packages", "node_modules")
        ]
        for name in files:
            if name.endswith(".py"):
                yield os.path.join(folder, name)
                count += 1
        if count > MAX_WATCHED_FILES:
            return


_INSTALLED = tuple(
    os.path.abspath(path) + os.sep
    for path in {
        os.path.dirname(nameko.__file__),
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    }
)
