"""``nameko run --reload``: the process that runs the services watches their files."""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
import threading
from collections.abc import Iterator
from typing import Any

import nameko
from nameko.cli.config import number_of_seconds
from nameko.cli.output import error, show_traceback
from nameko.cli.parent import Parent
from nameko.cli.services import users_traceback
from nameko.exceptions import CommandError, ConfigurationError

# How often (s) the files are looked at. A look takes some microseconds per file.
INTERVAL = 0.5

# What running workers have to end (s): somebody waits to see what the change does.
STOP_TIMEOUT = 5

# How many files below the working directory are watched while the services do not run.
MANY = 5000


def serve(args: Any) -> int:
    """Run the services until a file changes, or the parent lets go; the exit code.

    Where they cannot run, what was wrong is shown, and a change is waited for.
    """
    from nameko.cli.run import configure, load_and_run

    parent = WatchingParent(args.link, [args.config] if args.config else [])
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
        pass  # the parent has heard it, too
    return 0


class WatchingParent(Parent):
    """Lets go of this process also when a file changes: one that it has imported, or of ``files``.

    Code that was installed is not watched.
    """

    def __init__(self, link: int, files: list[str]) -> None:
        super().__init__(link)
        self._files = files
        # Guards what follows.
        self._look_lock = threading.Lock()
        # File -> its state when it was looked at last.
        self._seen: dict[str, tuple[int, int]] = {}
        # Whether the services do not run: what is not there yet may be what is missing. Then
        # ``_seen`` has everything.
        self._waiting = False
        threading.Thread(target=self._watch, name="nameko-reload", daemon=True).start()

    def loaded(self, services: list[str]) -> None:
        # From here on, a change is one to what was imported.
        self._look()
        super().loaded(services)

    def watch_everything(self) -> None:
        """From now on, watch all files below the working directory, and those that are new."""
        with self._look_lock:
            self._waiting = True
            self._seen.update(self._states())

    def wait_for_change(self) -> None:
        """Return when a file has changed, or the parent wants this process to stop."""
        change = threading.Event()
        self.when_it_lets_go(change.set)
        change.wait()

    def _watch(self) -> None:
        pause = threading.Event()
        while not pause.wait(INTERVAL):
            files = self._look()
            if files:
                for file in files:
                    _forget_compiled(file)
                self.changed(os.path.relpath(files[0]))
                self.let_go()
                return

    def _look(self) -> list[str]:
        """The files that have changed since the last look."""
        with self._look_lock:
            now = self._states()
            # One that is gone is about to be written again, as editors do that.
            changed = [
                file
                for file, state in now.items()
                if self._seen.get(file, None if self._waiting else state) != state
            ]
            if not changed:
                self._seen.update(now)
            return changed

    def _states(self) -> dict[str, tuple[int, int]]:
        """What is different once a file has changed; nothing for one that is not there."""
        files = [*self._files, *_imported_files(), *(_all_files() if self._waiting else ())]
        states = {}
        for file in files:
            try:
                stat = os.stat(file)
            except OSError:
                continue
            states[file] = (stat.st_mtime_ns, stat.st_size)
        return states


def _forget_compiled(file: str) -> None:
    """Have the file compiled again. Python itself looks at whole seconds and the size: it misses
    a second change of the same second."""
    try:
        os.unlink(importlib.util.cache_from_source(file))
    except (OSError, NotImplementedError):
        pass  # there is none


def _imported_files() -> Iterator[str]:
    """The files of all modules but those that were installed."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and not os.path.abspath(file).startswith(_INSTALLED):
            yield file


def _all_files() -> Iterator[str]:
    """Python's files below the working directory."""
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
        if count > MANY:
            return


_INSTALLED = tuple(
    os.path.abspath(path) + os.sep
    for path in {
        os.path.dirname(nameko.__file__),
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    }
)
