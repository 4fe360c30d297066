"""``nameko run --backdoor-port`` and ``nameko backdoor``."""

import io
import os
import re
import socket
import sys
import threading
import types
from unittest.mock import patch

import pytest
from program import TERM, Program, Terminal, run

from nameko.cli.main import setup_parser
from nameko.cli.run import setup_backdoor
from nameko.exceptions import CommandError


@pytest.fixture
def runner():
    return types.SimpleNamespace(greeting="hello from inside")


@pytest.fixture
def backdoor(runner):
    server, thread = setup_backdoor(runner, 0)
    yield server
    thread.kill()
    assert thread.dead


class Client:
    """A client of a backdoor, like telnet."""

    def __init__(self, server):
        self.socket = socket.create_connection(server.fd.getsockname(), timeout=10)
        self.greeting = self.until_prompt()

    def until_prompt(self):
        output = b""
        while not output.endswith((b">>> ", b"... ")):
            data = self.socket.recv(4096)
            assert data, output
            output += data
        return output.decode()

    def run(self, line):
        self.socket.sendall(line.encode() + b"\r\n")
        return self.until_prompt()

    def is_closed(self):
        try:
            while self.socket.recv(4096):
                pass
        except ConnectionResetError:  # the server left input unread
            pass
        return True


def test_runs_code_with_the_runner_in_scope(backdoor):
    client = Client(backdoor)
    assert "runner" in client.greeting
    assert "hello from inside" in client.run("runner.greeting")
    error = client.run("quit()")
    assert "RuntimeError: This would kill your service" in error
    assert "RuntimeError: This would kill your service" in client.run("exit()")
    assert "ZeroDivisionError" in client.run("1 / 0")
    assert client.run("for i in range(2):").endswith("... ")
    client.run("    print('line', i)")
    assert client.run("") == "line 0\nline 1\n>>> "


@pytest.mark.parametrize("line", ["-" * 100_000 + "1", "1" + "+1" * 100_000])
def test_survives_code_that_python_cannot_compile(backdoor, line):
    client = Client(backdoor)
    client.run(line)
    assert client.run("1 + 1") == "2\n>>> "


def test_a_web_page_cannot_run_code(backdoor, runner, caplog):
    """A page can make a browser send such a request to a port of localhost."""
    client = Client(backdoor)
    body = b"runner.greeting = 'taken over'\n"
    head = "POST / HTTP/1.1\r\nHost: localhost:3000\r\nContent-Length: {}\r\n\r\n"
    client.socket.sendall(head.format(len(body)).encode() + body)
    assert client.is_closed()
    assert runner.greeting == "hello from inside"
    assert "HTTP request b'POST / HTTP/1.1" in caplog.text


def test_limits_the_length_of_a_line(backdoor, caplog):
    client = Client(backdoor)
    with pytest.raises(OSError):
        while True:
            client.socket.sendall(b"x" * 1_000_000)
    assert "input line too long" in caplog.text


def test_errors_are_shown_to_the_client_only(backdoor, monkeypatch):
    """Even if an error tracker has replaced sys.excepthook."""
    reported = []
    monkeypatch.setattr("sys.excepthook", lambda *error: reported.append(error))
    client = Client(backdoor)
    assert client.run("1 / 0").splitlines()[:3] == [
        "Traceback (most recent call last):",
        '  File "<console>", line 1, in <module>',
        "ZeroDivisionError: division by zero",
    ]
    assert "SyntaxError" in client.run("1 +* 1")
    assert reported == []


def test_clients_see_only_their_own_output(backdoor, capsys):
    one, other = Client(backdoor), Client(backdoor)
    one.run("x = 'mine'")
    assert one.run("print(x)") == "mine\n>>> "
    assert "NameError" in other.run("x")
    sys.stdout.write("the service's own\n")
    assert capsys.readouterr().out == "the service's own\n"
    assert one.run("1 + 1") == "2\n>>> "


def test_restores_standard_output_after_the_last_client(backdoor):
    before = sys.stdout
    one, other = Client(backdoor), Client(backdoor)
    assert sys.stdout is not before
    one.socket.shutdown(socket.SHUT_WR)
    assert one.is_closed()
    other.socket.sendall(b"raise SystemExit\n")
    assert other.is_closed()
    for thread in threading.enumerate():
        if thread.name == "nameko-backdoor-client":
            thread.join(10)
    assert sys.stdout is before


def test_closes_connections_when_it_ends(runner):
    server, thread = setup_backdoor(runner, 0)
    client = Client(server)
    thread.kill()
    assert client.is_closed()


def test_reports_a_port_in_use(backdoor, runner):
    port = backdoor.fd.getsockname()[1]
    with pytest.raises(CommandError, match="Cannot listen at localhost:{}".format(port)):
        setup_backdoor(runner, port)


@pytest.fixture
def port(folder, broker_uri):
    """The backdoor port of a running service."""
    command = ("run", "hello", "--broker", broker_uri, "--backdoor-port", "0")
    with Program(*command, cwd=folder.path) as program:
        line = program.wait_for("backdoor: nameko backdoor ")
        program.wait_for("ready at")
        yield re.search(r"\d+$", line.strip()).group()
        program.signal(TERM)
        assert program.wait() == 0


def test_edits_lines_on_a_terminal(port, uid):
    with Terminal("backdoor", port) as terminal:
        terminal.wait_for(">>> ")
        terminal.type("list(runner.service_names)\n")
        terminal.wait_for("['hello_{}']".format(uid))
        terminal.wait_for(">>> ")
        terminal.press("\x03", ">>> ")
        terminal.type("\x04")
        assert terminal.process.wait(30) == 0


def test_ctrl_c_leaves_while_code_runs(port):
    with Terminal("backdoor", port) as terminal:
        terminal.wait_for(">>> ")
        terminal.type("import time; print('begun'); time.sleep(20)\n")
        terminal.wait_for("begun\r\n")
        terminal.type("\x03")
        terminal.wait_for("leaving; the last input is still running")
        assert terminal.process.wait(30) == 0


def test_reports_the_end_of_the_services(folder, broker_uri):
    command = ("run", "hello", "--broker", broker_uri, "--backdoor-port", "0")
    with Program(*command, cwd=folder.path) as program:
        port = program.wait_for("backdoor: nameko backdoor ").split()[-1]
        program.wait_for("ready at")
        with Terminal("backdoor", port) as terminal:
            terminal.wait_for(">>> ")
            program.signal(TERM)
            terminal.wait_for("connection closed by the services")
            terminal.type("\n")
            assert terminal.process.wait(30) == 0
        assert program.wait() == 0


def test_runs_a_script_from_a_pipe_without_netcat(port, uid):
    # An empty PATH, so that neither netcat nor telnet is found.
    ended = run("backdoor", port, stdin="print(*runner.service_names)\n", PATH="/nowhere")
    assert "hello_{}\n".format(uid) in ended.stdout
    assert ended.returncode == 0


# Behaves like netcat of OpenBSD under `nc HOST PORT -N` and `nc -h`.
NETCAT = """#!{python}
import socket, sys
if sys.argv[1:] == ["-h"]:
    sys.exit("  -N  Shutdown the network socket after EOF on the input")
host, port, option = sys.argv[1:]
assert option == "-N"
with socket.create_connection((host, int(port))) as connection:
    connection.sendall(sys.stdin.buffer.read())
    connection.shutdown(socket.SHUT_WR)
    while data := connection.recv(4096):
        sys.stdout.buffer.write(data)
print("printed by netcat")
"""


def test_runs_a_script_from_a_pipe_with_netcat(port, uid, tmp_path):
    netcat = tmp_path / "netcat"
    netcat.write_text(NETCAT.format(python=sys.executable))
    netcat.chmod(0o755)
    path = "{}:{}".format(tmp_path, os.environ["PATH"])
    ended = run("backdoor", port, stdin="print(*runner.service_names)\n", PATH=path)
    assert "hello_{}\n".format(uid) in ended.stdout
    assert ended.stdout.endswith("printed by netcat\n")


@pytest.mark.parametrize(
    ("target", "expected"),
    [("1", "Backdoor unreachable on 1: "), ("host:port", "'host:port' is not a [host:]port")],
)
def test_reports_an_invalid_target(target, expected):
    ended = run("backdoor", target, PATH="/nowhere")
    assert ended.returncode == 1
    assert expected in ended.stdout


def test_reports_a_failing_netcat():
    args = setup_parser().parse_args(["backdoor", "3000", "--rlwrap"])
    with (
        patch("nameko.cli.backdoor.os.system", return_value=0),
        patch("nameko.cli.backdoor.call", return_value=1) as call,
        patch("sys.stdin", io.StringIO()),
        pytest.raises(CommandError, match="Backdoor unreachable on 3000"),
    ):
        args.main(args)
    assert call.call_args.args[0] == ["rlwrap", "netcat", "localhost", "3000", "--close"]
