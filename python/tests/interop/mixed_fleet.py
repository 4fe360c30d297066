"""A mixed fleet: the same service on Nameko 2 ("upstream"), on this engine in Python, and in Rust.

Each side is a process of its own, so that Nameko 2 gets the environment it needs, see
scripts/requirements-peer.txt. Services say when they are ready; nothing here sleeps.
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

# Services that have the same name whatever kind they are, by their class.
NAMED = {"Shared": "shared_fleet", "Sender": "sender_fleet", "Listener": "listener_fleet"}

# How long anything may take before a test gives up (s).
PATIENCE = 60


class Process:
    """A program whose output is read line by line, with a deadline."""

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
            line = self._lines.get(timeout=PATIENCE)
        except queue.Empty:
            raise AssertionError("no word from " + self.name) from None
        assert line is not None, "{} has ended".format(self.name)
        return line

    def wait_for(self, beginning):
        while not self.line().startswith(beginning):
            pass

    def write(self, line):
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def stop(self):
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join()
            self._process.stdin.close()
            self._process.stdout.close()


class Caller(Process):
    """A client of one kind."""

    def call(self, service, method, *args, **kwargs):
        """The answer: ``{"result": ..}``, or ``{"error": {..}}`` as caller.py describes it."""
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
    """Starts services and clients of every kind on one broker, and ends them."""

    def __init__(self, uri):
        self.uri = uri
        self._processes = []
        self._clean()

    def serve(self, kind, class_name="Fleet", module="fleet", settings=None):
        """A service of examples/fleet; `ready` says when it can be called."""
        if kind == "rust":
            service = NAMED.get(class_name, "rust_" + module)
            defined = ["-d{}={}".format(*it) for it in (settings or {}).items()]
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
        """The reply to a request that is sent as it is, as JSON text."""
        output = self.run(self.python("upstream"), HERE / "raw.py", self.uri, service, method, body)
        return json.loads(output)

    def run(self, *command):
        """The output of a program that ends by itself."""
        command = list(map(str, command))
        return subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, check=True
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
        # On a broker that others use, too, nothing is left from an earlier run or for a later one.
        with kombu.Connection(self.uri) as connection, connection.channel() as channel:
            for service in (*SERVICES, "shared_fleet", "sender_fleet"):
                channel.queue_delete("rpc-" + service)

    @staticmethod
    def binary(name):
        return BINARIES / name

    @staticmethod
    def python(kind):
        return PEER if kind == "upstream" else Path(sys.executable)
