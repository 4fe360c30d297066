"""``nameko backdoor``."""

from __future__ import annotations

import os
import socket
import sys
import threading
from subprocess import call
from typing import Any

from nameko.cli.actions import host_and_port
from nameko.exceptions import CommandError

_QUIET = " > /dev/null 2>&1"


def main(args: Any) -> None:
    """Connects to a backdoor.

    The built-in client serves terminals. In a pipe or with ``--rlwrap``, netcat or telnet is run as
    in upstream, and the built-in client only if neither is installed.
    """
    try:
        host, port = host_and_port(args.target)
    except ValueError:
        raise CommandError("{!r} is not a [host:]port".format(args.target))
    on_terminal = sys.stdin is not None and sys.stdin.isatty()
    if on_terminal and not args.rlwrap:
        _connect(args.target, host, port, "", line_editing=args.rlwrap is None)
        return
    for program in ("netcat", "nc", "telnet"):
        if _is_installed(program):
            _run(program, args.target, host, port, args.rlwrap)
            return
    _connect(args.target, host, port, "Could not find an installed telnet. ", line_editing=False)


def _run(program: str, target: str, host: str, port: int, rlwrap: bool | None) -> None:
    command = [program, host, str(port), *_end_with_input(program)]
    if rlwrap is None:
        rlwrap = _is_installed("rlwrap")
    if rlwrap:
        command.insert(0, "rlwrap")
    try:
        if call(command) != 0:
            raise CommandError("Backdoor unreachable on {}".format(target))
    except (EOFError, KeyboardInterrupt):
        print()
        if program == "telnet" and rlwrap:
            call(["reset"])


def _end_with_input(program: str) -> list[str]:
    """Returns the netcat option that closes the connection at the end of input; variants differ."""
    if program != "telnet":
        for option in ("--close", "-N", "-q1"):
            found = "{} -h 2>&1 | grep -q -e '{}'".format(program, option.rstrip("1"))
            if os.system(found) == 0:
                return [option]
    return []


def _is_installed(program: str) -> bool:
    return os.system("command -v {}".format(program) + _QUIET) == 0


def _connect(target: str, host: str, port: int, before: str, line_editing: bool) -> None:
    try:
        backdoor = socket.create_connection((host, port))
    except OSError as exc:
        raise CommandError(
            "{}Backdoor unreachable on {}: {}\n  start one with "
            "`nameko run --backdoor-port PORT`".format(before, target, exc.strerror or exc)
        )
    if line_editing:
        try:
            import readline  # noqa: F401  input() uses it
        except ImportError:
            pass
    with backdoor:
        _Session(backdoor).run()


class _Session:
    """Sends typed lines to the backdoor and prints its output."""

    def __init__(self, backdoor: socket.socket) -> None:
        self._socket = backdoor
        # Set while the backdoor waits for a line, with its prompt in ``_prompt``, and once it has
        # closed the connection.
        self._answered = threading.Event()
        self._prompt = ""
        self._closed = False
        # Set when the user ends the session.
        self._leaving = False

    def run(self) -> None:
        """Returns when the user leaves or the services close the connection."""
        reader = threading.Thread(target=self._read, daemon=True)
        reader.start()
        while (line := self._next_line()) is not None:
            try:
                self._socket.sendall(line.encode() + b"\n")
            except OSError:
                pass  # reported by the reader
            try:
                self._answered.wait()
            except KeyboardInterrupt:
                print("\nleaving; the last input is still running")
                return
        if self._closed:
            return
        self._leaving = True
        if sys.stdin.isatty():
            print()
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # closed by the services meanwhile
        reader.join()

    def _next_line(self) -> str | None:
        """Returns the input at the next prompt; None once either side has ended the session."""
        self._answered.wait()
        # Set again by the output that follows this line.
        self._answered.clear()
        while not self._closed:
            try:
                return input(self._prompt)
            except EOFError:
                return None
            except KeyboardInterrupt:
                print()
        return None

    def _read(self) -> None:
        unread = b""
        while True:
            try:
                data = self._socket.recv(65536)
            except OSError:
                data = b""
            unread += data
            head, newline, last = unread.rpartition(b"\n")
            if not data or last in (b">>> ", b"... "):
                prompt, shown = last, head + newline
                unread = b""
            else:
                # Possibly an incomplete prompt or character.
                prompt, shown, unread = b"", head + newline, last
            sys.stdout.write(shown.decode(errors="replace"))
            sys.stdout.flush()
            if not data:
                self._closed = True
                if not self._leaving:
                    print("\nconnection closed by the services")
            self._prompt = prompt.decode(errors="replace")
            if prompt or not data:
                self._answered.set()
            if not data:
                return
