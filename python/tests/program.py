"""Runs commands as a user does: as processes, with their output and exit code."""

import fcntl
import os
import pty
import queue
import select
import signal
import subprocess
import sys
import termios
import textwrap
import threading
from pathlib import Path

import nameko

ROOT = Path(__file__).parents[2]
NAMEKO = [sys.executable, "-m", "nameko"]
# Seconds for each wait.
TIMEOUT = 30


def environment(**extra):
    env = {name: value for name, value in os.environ.items() if name != "AMQP_URI"}
    # The package under test, from its own location.
    path = os.pathsep.join([str(Path(nameko.__file__).parents[1]), str(ROOT)])
    return {**env, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **extra}


def run(*arguments, stdin="", cwd=None, **env):
    """Runs ``nameko`` until it exits."""
    return subprocess.run(
        [*NAMEKO, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment(**env),
        timeout=TIMEOUT,
        check=False,
    )


class Program:
    """A running ``nameko`` process, with standard error merged into standard output."""

    def __init__(self, *arguments, cwd=None, command=NAMEKO, **env):
        self.process = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=cwd,
            env=environment(**env),
        )
        self.seen = []
        self._lines = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def wait_for(self, text, timeout=TIMEOUT):
        """Reads until a line contains the text, and returns that line.

        ``timeout`` is the number of seconds for each line.
        """
        while True:
            try:
                line = self._lines.get(timeout=timeout)
            except queue.Empty:
                raise AssertionError("no {!r} in: {}".format(text, "".join(self.seen)))
            assert line is not None, "it ended without {!r}: {}".format(text, "".join(self.seen))
            self.seen.append(line)
            if text in line:
                return line

    def wait_for_all(self, *texts):
        """Reads until each text has been printed, in any order, including past output."""
        for text in texts:
            while text not in "".join(self.seen):
                self.wait_for("")

    def signal(self, signum):
        self.process.send_signal(signum)

    def wait(self):
        """Waits for the process and returns its exit code."""
        return self.process.wait(TIMEOUT)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.process.kill()
        self.process.wait()
        # Its child processes share the output, and exit after it.
        self._reader.join(TIMEOUT)
        self.process.stdout.close()


class Terminal:
    """A ``nameko`` process on a pseudo-terminal."""

    def __init__(self, *arguments, cwd=None, **env):
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [*NAMEKO, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=cwd,
            env=environment(TERM="dumb", **env),
            start_new_session=True,
            # Makes a typed Ctrl-C a signal.
            preexec_fn=lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.seen = ""

    def wait_for(self, text):
        while text not in self.seen:
            try:
                data = os.read(self.master, 4096)
            except OSError:
                data = b""
            assert data, "it ended without {!r}: {}".format(text, self.seen)
            self.seen += data.decode()
        before, self.seen = self.seen.split(text, 1)
        return before

    def type(self, text):
        os.write(self.master, text.encode())

    def press(self, key, answer):
        """Types a key that sends a signal, repeatedly until the answer appears.

        Python handles a signal that arrives just before it blocks on input only at the next input.
        """
        self.type(key)
        while answer not in self.seen and not select.select([self.master], [], [], 1)[0]:
            self.type(key)
        self.wait_for(answer)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.process.kill()
        self.process.wait()
        os.close(self.master)


HELLO = """
    import logging, time
    from nameko.rpc import rpc

    class Hello:
        name = "hello_{uid}"

        @rpc
        def hello(self, name):
            return "Hello, {{}}!".format(name)

        @rpc
        def hang(self):
            print("hanging", flush=True)
            time.sleep(30)

        @rpc
        def slow(self):
            print("working", flush=True)
            time.sleep(0.3)
            return "finished"

        @rpc
        def unserializable(self):
            return object()
"""


class Folder:
    """A directory with the module ``hello``."""

    def __init__(self, path, uid):
        self.path, self.uid = path, uid
        self.write("hello.py", HELLO)

    def write(self, name, text):
        self.path.joinpath(name).write_text(textwrap.dedent(text).format(uid=self.uid))


TERM, INT = signal.SIGTERM, signal.SIGINT
