"""Starts the hello services, one in Rust and one in Python, and calls them. Run by `make run`.

Each command is shown with its output. On a terminal, a shell follows; the services stop at its end.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys

from background import Service, comment, readable, show, use_environment

HELLO = "target/debug/hello"
TERMINAL = sys.stdin.isatty() and sys.stdout.isatty()


def main() -> None:
    use_environment()
    with contextlib.ExitStack() as services:
        comment("A service in Rust: examples/hello/hello.rs. Without a broker, it starts its own.")
        services.enter_context(Service(HELLO, "run"))

        comment("A service in Python, from Nameko's documentation: examples/hello/helloworld.py")
        services.enter_context(Service("nameko", "run", "examples.hello.helloworld"))

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


def run(*command: str) -> None:
    show(readable(command))
    subprocess.run(command, check=True)


def restore_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    # Unwinds the services.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except subprocess.CalledProcessError as error:
        sys.exit("failed with {}: {}".format(error.returncode, readable(error.cmd)))
