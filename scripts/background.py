"""Runs services in the background, and shows commands with their output.

Shared by demo.py and shop.py.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
READY = re.compile(r"ready at|.* is ready")
START_TIMEOUT_SECONDS = 60
STOP_TIMEOUT_SECONDS = 20

BOLD, DIM, PLAIN = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "")


class Service:
    """A service in a process of its own, which is ready when the constructor returns.

    ``on_line`` gets each later line of its output, and None at its end. Output is discarded by
    default.
    """

    def __init__(
        self, *command: str, on_line: Callable[[str | None], None] = lambda line: None
    ) -> None:
        show(readable(command) + " &")
        # In a session of its own: Ctrl-C in the shell does not reach the service.
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._on_line = on_line
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def _wait_until_ready(self) -> None:
        """Shows the output of the service up to its ready line."""
        assert self.process.stdout is not None
        watchdog = threading.Timer(START_TIMEOUT_SECONDS, self.process.kill)
        watchdog.start()
        try:
            for line in self.process.stdout:
                sys.stdout.write(line)
                if READY.match(line):
                    break
            else:
                sys.exit("the service did not start, see its output above")
        finally:
            watchdog.cancel()
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._on_line(line)
        self._on_line(None)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


def use_environment() -> None:
    """Changes to the root of the repository, and finds the commands of its environment."""
    os.environ["PATH"] = "{}:{}".format(ROOT / ".venv" / "bin", os.environ["PATH"])
    os.chdir(ROOT)


def readable(command: Sequence[str]) -> str:
    """Returns a command line with double quotes; no word of a demo needs an escape."""
    words = (word if re.fullmatch(r"[\w./:=-]+", word) else '"{}"'.format(word) for word in command)
    return " ".join(words)


def comment(text: str) -> None:
    sys.stdout.write("\n{}# {}{}\n".format(DIM, text, PLAIN))
    sys.stdout.flush()


def show(command: str, prompt: str = "$ ") -> None:
    sys.stdout.write("{}{}{}{}\n".format(BOLD, prompt, command, PLAIN))
    sys.stdout.flush()
