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
    """On a terminal, talk to the backdoor from here. In a pipe or where rlwrap is asked for, leave
    that to netcat or telnet, as upstream does; where none is installed, talk to it from here."""
    try:
        host, port = host_and_port(args.target)
    except ValueError:
        raise CommandError("{!r} is no [host:]port".format(args.target))
    on_terminal = sys.stdin is not None and sys.stdin.isatty()
    if on_terminal and not args.rlwrap:
        _talk(args.target, host, port, "", line_editing=args.rlwrap is None)
        return
    for program in ("netcat", "nc", "telnet"):
        if _is_installed(program):
            _run(program, args.target, host, port, args.rlwrap)
            return
    _talk(args.target, host, port, "Could not find an installed telnet. ", line_editing=False)


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
    """The option that has a netcat hang up at the end of its input: each kind has its own."""
    if program != "telnet":
        for option in ("--close", "-N", "-q1"):
            found = "{} -h 2>&1 | grep -q -e '{}'".format(program, option.rstrip("1"))
            if os.system(found) == 0:
                return [option]
    return []


def _is_installed(program: str) -> bool:
    return os.system("command -v {}".format(program) + _QUIET) == 0


def _talk(target: str, host: str, port: int, before: str, line_editing: bool) -> None:
    try:
        backdoor = socket.create_connection((host, port))
    except OSError as exc:
        raise CommandError(
            "{}Backdoor unreachable on {}: {}\n  services open one with "
            "`nameko run --backdoor-port PORT`".format(before, target, exc.strerror or exc)
        )
    if line_editing:
        try:
            import readline  # noqa: F401  input() uses it
        except ImportError:
            pass
    with backdoor:
        _Conversation(backdoor).hold()


class _Conversation:
    """Lines typed here go to the backdoor, what it answers is printed."""

    def __init__(self, backdoor: socket.socket) -> None:
        self._socket = backdoor
        # Set while the backdoor waits for a line, with its prompt in ``_prompt``; and when it has
        # hung up.
        self._answered = threading.Event()
        self._prompt = ""
        self._over = False
        # Whether the user has ended it.
        self._leaving = False

    def hold(self) -> None:
        """Until the user leaves, or the services hang up."""
        reader = threading.Thread(target=self._read, daemon=True)
        reader.start()
        while (line := self._next_line()) is not None:
            try:
                self._socket.sendall(line.encode() + b"\n")
            except OSError:
                pass  # the reader tells of it
            try:
                self._answered.wait()
            except KeyboardInterrupt:
                print("\nleaving; what was typed last runs on")
                return
        if self._over:
            return
        self._leaving = True
        if sys.stdin.isatty():
            print()
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # they were quicker
        reader.join()

    def _next_line(self) -> str | None:
        """What the user types at the next prompt; None when either side has ended it."""
        self._answered.wait()
        # Set again by whatever comes after this line.
        self._answered.clear()
        while not self._over:
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
                # It may be half of a prompt, or of a character.
                prompt, shown, unread = b"", head + newline, last
            sys.stdout.write(shown.decode(errors="replace"))
            sys.stdout.flush()
            if not data:
                self._over = True
                if not self._leaving:
                    print("\nthe services have hung up")
            self._prompt = prompt.decode(errors="replace")
            if prompt or not data:
                self._answered.set()
            if not data:
                return
