"""``nameko run --workers``: several processes, kept running and stopped together."""

import asyncio
import json
import os
import re
import signal
import socket
import sys
import urllib.request

import pytest
from program import INT, TERM, Program, run

from nameko.cli.main import setup_parser
from nameko.cli.processes import Program as Started
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
    """Two processes of a service that tells its process id."""
    folder.write("service.py", SERVICE)
    with Program(
        "run", "service", "--workers", "2", "--broker", broker_uri, cwd=folder.path
    ) as program:
        program.wait_for("ready at")
        yield program


def pids(service, count):
    """The ids of the processes that answer, once there are ``count``."""
    found = set()
    while len(found) < count:
        found.add(service.pid())
    return found


def test_all_processes_serve_and_stop_at_one_signal(workers, cluster, uid):
    said = "".join(workers.seen)
    assert said.count("hello_{}: pid (rpc)".format(uid)) == 1
    assert "ready at" in said
    assert "2 processes; Ctrl-C stops" in said
    assert "[1] starting services" in said
    assert "[2] starting services" in said
    running = pids(cluster["hello_" + uid], 2)
    workers.signal(TERM)
    workers.wait_for("stopping; once more stops at once")
    workers.wait_for("stopped")
    assert workers.wait() == 0
    for pid in running:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_one_that_dies_is_replaced(workers, cluster, uid):
    service = cluster["hello_" + uid]
    before = pids(service, 2)
    os.kill(min(before), signal.SIGKILL)
    died = workers.wait_for("was killed by signal 9; restarting in 0.")
    number = re.match(r"process (\d)", died).group(1)
    workers.wait_for("process {} is ready".format(number))
    assert max(before) in pids(service, 2)
    workers.signal(INT)
    assert workers.wait() == 0


def test_none_outlives_the_process_that_started_it(workers, cluster, uid):
    pids(cluster["hello_" + uid], 2)
    workers.signal(signal.SIGKILL)
    gone = ["the process that started this one is gone: stopping" for _ in range(2)]
    while gone:
        workers.wait_for(gone.pop())
    # Its end is that of the output, which all of them hold.
    with pytest.raises(AssertionError, match="it ended"):
        workers.wait_for("no such line")


def test_calls_in_work_are_finished_and_a_second_signal_ends_them(folder, broker_uri, cluster, uid):
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
        program.wait_for("stopping")
        program.signal(INT)
        assert program.wait() == 130


def test_they_share_a_port(folder, broker_uri, uid):
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


def test_what_is_wrong_with_the_services_is_told_once(folder, broker_uri):
    folder.write("broken.py", "1 / 0\n")
    ended = run("run", "broken", "--workers", "3", "--broker", broker_uri, cwd=folder.path)
    assert ended.returncode == 1
    assert ended.stderr.count("ZeroDivisionError") == 1
    last = ended.stdout.splitlines()[-1]
    assert last == "Error: no process could start; the last one exited with code 1"


def test_logs_tell_of_which_process_they_are(folder, broker_uri):
    command = ("run", "hello", "--workers", "1", "--log-format", "json", "--broker", broker_uri)
    with Program(*command, cwd=folder.path) as program:
        program.wait_for("ready at")
        program.signal(TERM)
        program.wait_for('"stopped"')
        assert program.wait() == 0
    lines = [json.loads(line) for line in program.seen]
    assert {line.get("process") for line in lines} == {None, 1}


def test_a_stop_while_the_broker_is_away(folder, own_broker):
    uri = own_broker.uri
    own_broker.stop()
    command = ("run", "hello", "--workers", "2", "--broker", uri)
    with Program(*command, cwd=folder.path) as program:
        program.wait_for("[1] Error connecting to broker at")
        program.wait_for("[2] Error connecting to broker at")
        program.signal(TERM)
        assert program.wait() == 0


class Stubborn(Started):
    """Starts processes that ignore every wish to stop."""

    def __init__(self):
        args = setup_parser().parse_args(["run", "service", "--workers", "1"])
        super().__init__(args, dict(os.environ))

    def command(self, number, link):
        program = "import os, time; os.write({}, b'{{\"ready\": true}}\\n'); time.sleep(60)".format(
            link
        )
        return [sys.executable, "-c", program]


def test_a_process_that_is_blocked_is_killed(monkeypatch, capsys):
    monkeypatch.setattr("nameko.cli.processes.KILL_AFTER", 0.0)

    async def stopped_when_ready():
        supervisor = Supervisor(Stubborn(), "nowhere", 0.01)
        supervising = asyncio.create_task(supervisor.supervise())
        while "ready at" not in capsys.readouterr().out:
            await asyncio.sleep(0.01)
        supervisor._handle_signal(signal.SIGTERM)
        return await supervising

    assert asyncio.run(stopped_when_ready()) == 137


@pytest.mark.parametrize("count", ["0", "1025", "many"])
def test_a_count_that_makes_no_sense(count):
    ended = run("run", "hello", "--workers", count)
    assert ended.returncode == 2
    assert "--workers: invalid number of processes (1 to 1024)" in ended.stderr


def test_a_process_that_nobody_started_says_so(folder):
    ended = run("run", "hello", "--link", "999", cwd=folder.path)
    assert ended.returncode == 1
    assert "Error: --link is for `nameko run` itself" in ended.stdout
