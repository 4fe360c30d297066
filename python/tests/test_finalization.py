"""The end of a process while workers still run Python code."""

import subprocess
import sys
from textwrap import dedent

import pytest
from program import TERM, TIMEOUT, Program, environment

from nameko._nameko import Broker
from nameko.standalone.rpc import ClusterRpcProxy

# A service whose methods never end, in all ways that a thread can run or wait. `start` calls them
# and returns once all are running.
SERVICE = """
import threading, time
from nameko.containers import ServiceContainer
from nameko.rpc import RpcProxy, rpc
from nameko.standalone.rpc import ClusterRpcProxy
from nameko.timer import timer

running = threading.Semaphore(0)

def runs(name):
    print("running", name, flush=True)
    running.release()

def busy():
    while True:
        sum(range(100))

def nap():
    while True:
        time.sleep(0.0001)

class Service:
    name = "service"
    other = RpcProxy("service")

    @rpc
    def compute(self):
        runs("compute")
        busy()

    @rpc
    def nap(self):
        runs("nap")
        nap()

    @rpc
    def log(self):
        runs("log")
        while True:
            time.sleep(0.0001)
            print("", end="", flush=True)

    @rpc
    def call(self):
        runs("call")
        self.other.never()

    @rpc
    def never(self):
        threading.Event().wait()

    @rpc
    async def coroutine(self):
        runs("coroutine")
        busy()

    @timer(interval=1000, eager=True)
    def tick(self):
        runs("tick")
        nap()

METHODS = ["compute", "nap", "log", "call", "coroutine"]

def start(config):
    container = ServiceContainer(Service, config)
    container.start()
    cluster = ClusterRpcProxy(config)
    service = cluster.start().service
    for method in METHODS:
        getattr(service, method).call_async()
    for _ in range(len(METHODS) + 1):
        assert running.acquire(timeout=20)
    return container
"""

# Name, program.
SCRIPTS = {
    "a script that ends": """
        from service import start
        start({"AMQP_URI": "memory://"})
    """,
    "calls in flight": """
        import threading, time
        from nameko.containers import ServiceContainer
        from nameko.rpc import rpc
        from nameko.standalone.rpc import ClusterRpcProxy

        ended = threading.Semaphore(0)

        class Service:
            name = "service"

            @rpc
            def method(self):
                time.sleep(0.001)
                ended.release()

        config = {"AMQP_URI": "memory://", "max_workers": 100}
        ServiceContainer(Service, config).start()
        cluster = ClusterRpcProxy(config)
        method = cluster.start().service.method
        calls = [method.call_async() for _ in range(2000)]
        for _ in range(200):
            assert ended.acquire(timeout=20)
    """,
}

# Workers wake at any moment of the end, so one run proves little.
RUNS = 3

DEVELOPMENT = pytest.mark.parametrize("options", [[], ["-X", "dev"]], ids=["plain", "dev"])


@pytest.fixture
def service(tmp_path):
    tmp_path.joinpath("service.py").write_text(SERVICE)
    return tmp_path


def finish(process):
    """Waits for the exit code, and fails with the output if it is not 0."""
    output, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, output
    assert "Fatal Python error" not in output
    assert "panicked" not in output


def start(arguments, cwd):
    return subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        cwd=cwd,
        env=environment(),
    )


@DEVELOPMENT
@pytest.mark.parametrize("how", SCRIPTS)
def test_a_script_ends(service, how, options):
    service.joinpath("script.py").write_text(dedent(SCRIPTS[how]))
    processes = [start([sys.executable, *options, "script.py"], service) for _ in range(RUNS)]
    for process in processes:
        finish(process)


@DEVELOPMENT
def test_an_interrupted_wait_ends(service, options):
    """Ctrl-C out of ``runner.wait()``."""
    service.joinpath("script.py").write_text(
        dedent("""
            import os, signal, threading
            from service import start

            container = start({"AMQP_URI": "memory://"})
            interrupted = threading.Event()

            def handle(signum, frame):
                if not interrupted.is_set():
                    interrupted.set()
                    raise KeyboardInterrupt

            def press():
                # A signal that comes just before the main thread blocks is handled later.
                while not interrupted.wait(0.1):
                    os.kill(os.getpid(), signal.SIGINT)

            try:
                signal.signal(signal.SIGINT, handle)
                threading.Thread(target=press, daemon=True).start()
                container.wait()
            except KeyboardInterrupt:
                pass
        """)
    )
    for _ in range(RUNS):
        finish(start([sys.executable, *options, "script.py"], service))


@DEVELOPMENT
def test_pytest_ends_with_a_container_that_was_never_stopped(service, options):
    service.joinpath("test_service.py").write_text(
        dedent("""
            from service import start

            def test_service():
                start({"AMQP_URI": "memory://"})
        """)
    )
    command = [sys.executable, *options, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    for _ in range(RUNS):
        finish(start(command, service))


@DEVELOPMENT
def test_run_ends_past_the_stop_timeout(service, options):
    command = [sys.executable, *options, "-m", "nameko"]
    for _ in range(RUNS):
        broker = Broker()
        arguments = ("run", "service:Service", "--broker", broker.uri, "-dstop_timeout=0.2")
        with Program(*arguments, cwd=service, command=command) as program:
            program.wait_for("ready at")
            with ClusterRpcProxy({"AMQP_URI": broker.uri}) as cluster:
                for method in ("compute", "nap", "call"):
                    getattr(cluster.service, method).call_async()
                    program.wait_for("running " + method)
            program.signal(TERM)
            program.wait_for("not stopped within 0.2 seconds")
            assert program.wait() == 0, "".join(program.seen)
        broker.stop()
