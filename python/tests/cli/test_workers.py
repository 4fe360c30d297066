"""``nameko run --workers``: supervises several processes."""

import asyncio
import json
import os
import re
import signal
import socket
import sys
import time
import urllib.request

import pytest
from program import INT, TERM, TIMEOUT, Program, run

from nameko.cli import processes
from nameko.cli.main import setup_parser
from nameko.cli.processes import Supervisor

SERVICE = """
    import os
    from nameko.rpc import rpc

    class Hello:
        name = "hello_{uid}"

        @rpc
        def pid(self):
            return os.getpid()
"""


@pytest.fixture
def workers(folder, broker_uri):
    """Two processes of a service that returns its process id."""
    folder.write("service.py", SERVICE)
    with Program(
        "run", "service", "--workers", "2", "--broker", broker_uri, cwd=folder.path
    ) as program:
        program.wait_for("ready at")
        yield program


def pids(service, count):
    """Calls the service until ``count`` processes have replied, and returns their ids."""
    found = set()
    while len(found) < count:
        found.add(service.pid())
    return found


def test_all_processes_serve_and_stop_on_one_signal(workers, cluster, uid):
    output = "".join(workers.seen)
    assert output.count("hello_{}: pid (rpc)".format(uid)) == 1
    assert "ready at" in output
    assert "2 processes; press Ctrl-C to stop" in output
    assert "[1] starting services" in output
    assert "[2] starting services" in output
    running = pids(cluster["hello_" + uid], 2)
    workers.signal(TERM)
    workers.wait_for("shutting down (press Ctrl-C again to force)")
    workers.wait_for("stopped")
    assert workers.wait() == 0
    for pid in running:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_restarts_a_process_that_dies(workers, cluster, uid):
    service = cluster["hello_" + uid]
    before = pids(service, 2)
    os.kill(min(before), signal.SIGKILL)
    died = workers.wait_for("was killed by signal 9; restarting in 0.")
    number = re.match(r"process (\d)", died).group(1)
    workers.wait_for("process {} is ready".format(number))
    assert max(before) in pids(service, 2)
    workers.signal(INT)
    assert workers.wait() == 0


def test_a_message_that_kills_its_process_does_not_end_the_command(
    folder, broker_uri, cluster, caller, uid
):
    """A delivery limit hands it to the dead-letter exchange."""
    failed = "failed-" + uid
    caller.channel.queue_declare(failed, auto_delete=False)
    folder.write(
        "service.py",
        SERVICE
        + """
        @rpc
        def crash(self):
            os.abort()
    """,
    )
    folder.write(
        "config.yaml",
        """
        queue_arguments:
          rpc:
            x-queue-type: quorum
            x-delivery-limit: 3
            x-dead-letter-exchange: ""
            x-dead-letter-routing-key: failed-{uid}
        """,
    )
    command = ("run", "service", "--workers", "2", "--config", "config.yaml")
    with Program(*command, "--broker", broker_uri, cwd=folder.path) as program:
        program.wait_for("ready at")
        service = cluster["hello_" + uid]
        before = pids(service, 2)
        service.crash.call_async()
        end = time.monotonic() + TIMEOUT
        while caller.channel.basic_get(failed, no_ack=True) is None:
            assert time.monotonic() < end
        assert not before & pids(service, 2)
        program.signal(TERM)
        program.wait_for("stopped")
        assert program.wait() == 0


def test_processes_stop_when_the_supervisor_is_killed(workers, cluster, uid):
    pids(cluster["hello_" + uid], 2)
    workers.signal(signal.SIGKILL)
    for _ in range(2):
        workers.wait_for("the supervisor process died: stopping")
    # The output, shared by all processes, ends with the last of them.
    with pytest.raises(AssertionError, match="it ended"):
        workers.wait_for("no such line")


def test_finishes_running_calls_and_a_second_signal_kills_them(folder, broker_uri, cluster, uid):
    with Program(
        "run", "hello", "--workers", "1", "--broker", broker_uri, cwd=folder.path
    ) as program:
        program.wait_for("ready at")
        reply = cluster["hello_" + uid].slow.call_async()
        program.wait_for("working")
        program.signal(TERM)
        assert reply.result() == "finished"
        assert program.wait() == 0
    with Program(
        "run", "hello", "--workers", "1", "--broker", broker_uri, cwd=folder.path
    ) as program:
        program.wait_for("ready at")
        cluster["hello_" + uid].hang.call_async()
        program.wait_for("hanging")
        program.signal(TERM)
        program.wait_for("shutting down")
        program.signal(INT)
        assert program.wait() == 130


def test_processes_share_an_http_port(folder, broker_uri, uid):
    folder.write(
        "pages.py",
        """
        import os
        from nameko.web.handlers import http

        class Site:
            name = "site_{uid}"

            @http("GET", "/pid")
            def pid(self, request):
                return str(os.getpid())
        """,
    )
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        address = "127.0.0.1:{}".format(reserved.getsockname()[1])
        option = "-dWEB_SERVER_ADDRESS=" + address
        with Program(
            "run", "pages", option, "--workers", "2", "--broker", broker_uri, cwd=folder.path
        ) as program:
            program.wait_for("site_{}: pid (http GET /pid)".format(uid))
            program.wait_for("ready at")
            found = set()
            while len(found) < 2:
                with urllib.request.urlopen("http://{}/pid".format(address)) as response:
                    found.add(response.read())


def test_reports_errors_of_the_services_once(folder, broker_uri):
    folder.write("broken.py", "1 / 0\n")
    ended = run("run", "broken", "--workers", "3", "--broker", broker_uri, cwd=folder.path)
    assert ended.returncode == 1
    assert ended.stderr.count("ZeroDivisionError") == 1
    last = ended.stdout.splitlines()[-1]
    assert last == "Error: no process could start; the last one exited with code 1"


def test_log_lines_have_the_process_number(folder, broker_uri):
    command = ("run", "hello", "--workers", "1", "--log-format", "json", "--broker", broker_uri)
    with Program(*command, cwd=folder.path) as program:
        program.wait_for("ready at")
        program.signal(TERM)
        program.wait_for('"stopped"')
        assert program.wait() == 0
    lines = [json.loads(line) for line in program.seen]
    assert {line.get("process") for line in lines} == {None, 1}


def test_stops_while_the_broker_is_unreachable(folder, own_broker):
    uri = own_broker.uri
    own_broker.stop()
    command = ("run", "hello", "--workers", "2", "--broker", uri)
    with Program(*command, cwd=folder.path) as program:
        program.wait_for("[1] Error connecting to broker at")
        program.wait_for("[2] Error connecting to broker at")
        program.signal(TERM)
        assert program.wait() == 0


class StubbornProgram(processes.Program):
    """Starts processes that ignore requests to stop."""

    def __init__(self):
        args = setup_parser().parse_args(["run", "service", "--workers", "1"])
        super().__init__(args, dict(os.environ))

    def command(self, number, link):
        program = "import os, time; os.write({}, b'{{\"ready\": true}}\\n'); time.sleep(60)".format(
            link
        )
        return [sys.executable, "-c", program]


def test_kills_a_process_that_does_not_stop(monkeypatch):
    monkeypatch.setattr(processes, "KILL_AFTER", 0.0)

    async def stop_when_ready():
        ready = asyncio.Event()
        monkeypatch.setattr(processes, "echo", lambda text: "ready at" in text and ready.set())
        supervisor = Supervisor(StubbornProgram(), "nowhere", 0.01)
        supervising = asyncio.create_task(supervisor.supervise())
        await ready.wait()
        supervisor._handle_signal(signal.SIGTERM)
        return await supervising

    assert asyncio.run(stop_when_ready()) == 137


@pytest.mark.parametrize("count", ["0", "1025", "many"])
def test_rejects_an_invalid_number_of_processes(count):
    ended = run("run", "hello", "--workers", count)
    assert ended.returncode == 2
    assert "--workers: invalid number of processes (1 to 1024)" in ended.stderr


def test_rejects_the_internal_option_link(folder):
    ended = run("run", "hello", "--link", "999", cwd=folder.path)
    assert ended.returncode == 1
    assert "Error: --link is internal to `nameko run`" in ended.stdout
