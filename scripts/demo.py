"""Starts the hello services, one in Rust and one in Python, and calls them. Run by `make run`.

Each command is shown with its output. On a terminal, a shell follows; the services stop at its end.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HELLO = "target/debug/hello"
READY = re.compile(r"ready at|.* is ready")
START_TIMEOUT_SECONDS = 60
STOP_TIMEOUT_SECONDS = 20

TERMINAL = sys.stdin.isatty() and sys.stdout.isatty()
BOLD, DIM, PLAIN = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "")


def main() -> None:
    # Commands of the environment, such as nameko.
    os.environ["PATH"] = "{}:{}".format(ROOT / ".venv" / "bin", os.environ["PATH"])
    os.chdir(ROOT)
    with contextlib.ExitStack() as services:
        comment("A service in Rust: examples/hello/hello.rs. Without a broker, it starts its own.")
        services.enter_context(service(HELLO, "run"))

        comment("A service in Python, from Nameko's documentation: examples/hello/helloworld.py")
        services.enter_context(service("nameko", "run", "examples.hello.helloworld"))

        comment("Call the Rust service")
        run(HELLO, "call", "hello_service.hello", "name='zq'")

        comment("Call the Python service from Rust")
        run(HELLO, "call", "greeting_service.hello", "name='zq'")

        comment("Call both from Nameko's shell")
        for call in ("hello_service.hello", "greeting_service.hello"):
            line = "print(n.rpc.{}(name='zq'))".format(call)
            show("echo {} | nameko shell".format(readable([line])))
            subprocess.run(["nameko", "shell"], input=line + "\n", text=True, check=True)

        if TERMINAL:
            comment("Your turn: n.rpc.hello_service.hello(name='you'). Ctrl-D stops the services.")
            show(HELLO + " shell")
            # Ctrl-C belongs to the shell.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            subprocess.run([HELLO, "shell"], preexec_fn=restore_interrupt)
        else:
            comment("The services stop. On a terminal, a shell opens here.")


@contextlib.contextmanager
def service(*command: str) -> Iterator[None]:
    """Runs a service for the duration of the block, which begins when the service is ready."""
    show(readable(command) + " &")
    # In a session of its own: Ctrl-C in the shell does not reach the service.
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        wait_until_ready(process)
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_until_ready(process: subprocess.Popen[str]) -> None:
    """Shows the output of a service up to its ready line, and discards the rest."""
    assert process.stdout is not None
    lines = process.stdout
    watchdog = threading.Timer(START_TIMEOUT_SECONDS, process.kill)
    watchdog.start()
    try:
        for line in lines:
            sys.stdout.write(line)
            if READY.match(line):
                break
        else:
            sys.exit("the service did not start, see its output above")
    finally:
        watchdog.cancel()
    threading.Thread(target=lambda: [None for _ in lines], daemon=True).start()


def run(*command: str) -> None:
    show(readable(command))
    subprocess.run(command, check=True)


def readable(command: Sequence[str]) -> str:
    """Returns a command line with double quotes; no word of the demo needs an escape."""
    words = (word if re.fullmatch(r"[\w./-]+", word) else '"{}"'.format(word) for word in command)
    return " ".join(words)


def restore_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def comment(text: str) -> None:
    sys.stdout.write("\n{}# {}{}\n".format(DIM, text, PLAIN))
    sys.stdout.flush()


def show(command: str) -> None:
    sys.stdout.write("{}$ {}{}\n".format(BOLD, command, PLAIN))
    sys.stdout.flush()


if __name__ == "__main__":
    # Unwinds the services.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except subprocess.CalledProcessError as error:
        sys.exit("failed with {}: {}".format(error.returncode, readable(error.cmd)))
