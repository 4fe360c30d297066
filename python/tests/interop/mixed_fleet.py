"""A mixed fleet: the same service on Nameko 2 ("upstream"), on this engine in Python, and in Rust.

Each service runs in a process of its own, with a separate environment for Nameko 2, see
scripts/requirements-peer.txt.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

import kombu

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
EXAMPLES = ROOT / "examples" / "fleet"
BINARIES = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"
PEER = ROOT / ".venv" / "peer" / "bin" / "python"

KINDS = ("upstream", "python", "rust")
SERVICES = tuple(kind + name for kind in KINDS for name in ("_fleet", "_formats"))

# Service classes with the same service name for all kinds.
NAMED = {"Shared": "shared_fleet", "Sender": "sender_fleet", "Listener": "listener_fleet"}

# Timeout of each wait, in seconds.
TIMEOUT = 60


class Process:
    """A process with line-based output, read with a timeout."""

    def __init__(self, *command, **environment):
        self.name = " ".join(map(str, command))
        self._process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(EXAMPLES), **environment},
        )
        self._lines = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def line(self):
        try:
            line = self._lines.get(timeout=TIMEOUT)
        except queue.Empty:
            raise AssertionError("no output from " + self.name) from None
        assert line is not None, "{} has ended".format(self.name)
        return line

    def wait_for(self, prefix):
        while not self.line().startswith(prefix):
            pass

    def write(self, line):
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def stop(self):
        self._process.terminate()
        try:
            self._process.wait(TIMEOUT)
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join()
            self._process.stdin.close()
            self._process.stdout.close()


class Caller(Process):
    """A client of one kind."""

    def call(self, service, method, *args, **kwargs):
        """Returns ``{"result": ..}`` or ``{"error": {..}}``, see caller.py."""
        call = {"service": service, "method": method, "args": args, "kwargs": kwargs}
        self.write(json.dumps(call))
        return json.loads(self.line())

    def result(self, service, method, *args, **kwargs):
        answer = self.call(service, method, *args, **kwargs)
        assert "result" in answer, answer
        return answer["result"]

    def error(self, service, method, *args, **kwargs):
        answer = self.call(service, method, *args, **kwargs)
        assert "error" in answer, answer
        return answer["error"]


class Fleet:
    """Starts and stops services and clients of all kinds on a broker."""

    def __init__(self, uri):
        self.uri = uri
        self._processes = []
        self._clean()

    def serve(self, kind, class_name="Fleet", module="fleet", settings=None):
        """Starts a service of examples/fleet. Wait for it with :meth:`ready`."""
        if kind == "rust":
            service = NAMED.get(class_name, "rust_" + module)
            defined = ["-d{}={}".format(*setting) for setting in (settings or {}).items()]
            program = self.binary(module)
            return self._start(Process, program, "run", service, "--broker", self.uri, *defined)
        command = (self.python(kind), HERE / "serve.py", self.uri, json.dumps(settings or {}))
        return self._start(Process, *command, "{}:{}".format(module, class_name), FLEET=kind)

    def ready(self, process):
        process.wait_for("ready")
        return process

    def caller(self, kind, context=None, settings=None):
        command = [self.binary("caller")]
        if kind != "rust":
            command = [self.python(kind), EXAMPLES / "caller.py"]
        objects = map(json.dumps, (context or {}, settings or {}))
        return self._start(Caller, *command, self.uri, *objects)

    def raw(self, service, method, body):
        """Sends the JSON text of a request unchanged, and returns the reply."""
        output = self.run(self.python("upstream"), HERE / "raw.py", self.uri, service, method, body)
        return json.loads(output)

    def run(self, *command):
        """Runs a program and returns its output."""
        command = list(map(str, command))
        return subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, check=True
        ).stdout

    def stop(self):
        for process in self._processes:
            process.stop()
        self._clean()

    def _start(self, cls, *command, **environment):
        process = cls(*command, **environment)
        self._processes.append(process)
        return process

    def _clean(self):
        # Queues may be left from an earlier run, and must not be left for later ones.
        with kombu.Connection(self.uri) as connection, connection.channel() as channel:
            for service in (*SERVICES, "shared_fleet", "sender_fleet"):
                channel.queue_delete("rpc-" + service)

    @staticmethod
    def binary(name):
        return BINARIES / name

    @staticmethod
    def python(kind):
        return PEER if kind == "upstream" else Path(sys.executable)
