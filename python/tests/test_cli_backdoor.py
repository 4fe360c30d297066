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


class Visitor:
    """Talks to a backdoor as telnet does."""

    def __init__(self, server):
        self.socket = socket.create_connection(server.fd.getsockname(), timeout=10)
        self.said = self.until_prompt()

    def until_prompt(self):
        said = b""
        while not said.endswith((b">>> ", b"... ")):
            data = self.socket.recv(4096)
            assert data, said
            said += data
        return said.decode()

    def asks(self, line):
        self.socket.sendall(line.encode() + b"\r\n")
        return self.until_prompt()

    def hung_up_on(self):
        try:
            while self.socket.recv(4096):
                pass
        except ConnectionResetError:  # with something unread
            pass
        return True


def test_what_is_in_reach(backdoor):
    visitor = Visitor(backdoor)
    assert "runner" in visitor.said
    assert "hello from inside" in visitor.asks("runner.greeting")
    error = visitor.asks("quit()")
    assert "RuntimeError: This would kill your service" in error
    assert "RuntimeError: This would kill your service" in visitor.asks("exit()")
    assert "ZeroDivisionError" in visitor.asks("1 / 0")
    assert visitor.asks("for i in range(2):").endswith("... ")
    visitor.asks("    print('line', i)")
    assert visitor.asks("") == "line 0\nline 1\n>>> "


@pytest.mark.parametrize("line", ["-" * 100_000 + "1", "1" + "+1" * 100_000])
def test_what_python_cannot_compile(backdoor, line):
    visitor = Visitor(backdoor)
    visitor.asks(line)
    assert visitor.asks("1 + 1") == "2\n>>> "


def test_a_web_page_cannot_run_code(backdoor, runner, caplog):
    """What a browser sends to a port of localhost when a page asks for it."""
    visitor = Visitor(backdoor)
    body = b"runner.greeting = 'taken over'\n"
    head = "POST / HTTP/1.1\r\nHost: localhost:3000\r\nContent-Length: {}\r\n\r\n"
    visitor.socket.sendall(head.format(len(body)).encode() + body)
    assert visitor.hung_up_on()
    assert runner.greeting == "hello from inside"
    assert "speaks HTTP: b'POST / HTTP/1.1" in caplog.text


def test_a_line_without_end(backdoor, caplog):
    visitor = Visitor(backdoor)
    with pytest.raises(OSError):
        while True:
            visitor.socket.sendall(b"x" * 1_000_000)
    assert "has no end" in caplog.text


def test_mistakes_are_shown_to_who_makes_them(backdoor, monkeypatch):
    """Also where a library reports errors, for which it replaces sys.excepthook."""
    reported = []
    monkeypatch.setattr("sys.excepthook", lambda *error: reported.append(error))
    visitor = Visitor(backdoor)
    assert visitor.asks("1 / 0").splitlines()[:3] == [
        "Traceback (most recent call last):",
        '  File "<console>", line 1, in <module>',
        "ZeroDivisionError: division by zero",
    ]
    assert "SyntaxError" in visitor.asks("1 +* 1")
    assert reported == []


def test_visitors_see_their_own_output_only(backdoor, capsys):
    one, other = Visitor(backdoor), Visitor(backdoor)
    one.asks("x = 'mine'")
    assert one.asks("print(x)") == "mine\n>>> "
    assert "NameError" in other.asks("x")
    sys.stdout.write("the service's own\n")
    assert capsys.readouterr().out == "the service's own\n"
    assert one.asks("1 + 1") == "2\n>>> "


def test_output_is_as_before_when_they_have_left(backdoor):
    before = sys.stdout
    one, other = Visitor(backdoor), Visitor(backdoor)
    assert sys.stdout is not before
    one.socket.shutdown(socket.SHUT_WR)
    assert one.hung_up_on()
    other.socket.sendall(b"raise SystemExit\n")
    assert other.hung_up_on()
    for thread in threading.enumerate():
        if thread.name == "nameko-backdoor-visitor":
            thread.join(10)
    assert sys.stdout is before


def test_the_end_hangs_up_on_visitors(runner):
    server, thread = setup_backdoor(runner, 0)
    visitor = Visitor(server)
    thread.kill()
    assert visitor.hung_up_on()


def test_a_port_that_is_taken(backdoor, runner):
    port = backdoor.fd.getsockname()[1]
    with pytest.raises(CommandError, match="cannot listen at localhost:{}".format(port)):
        setup_backdoor(runner, port)


@pytest.fixture
def port(folder, broker_uri):
    """The backdoor of a running service."""
    command = ("run", "hello", "--broker", broker_uri, "--backdoor-port", "0")
    with Program(*command, cwd=folder.path) as program:
        line = program.wait_for("backdoor: nameko backdoor ")
        program.wait_for("ready at")
        yield re.search(r"\d+$", line.strip()).group()
        program.signal(TERM)
        assert program.wait() == 0


def test_on_a_terminal(port, uid):
    with Terminal("backdoor", port) as terminal:
        terminal.wait_for(">>> ")
        terminal.type("list(runner.service_names)\n")
        terminal.wait_for("['hello_{}']".format(uid))
        terminal.wait_for(">>> ")
        terminal.press("\x03", ">>> ")
        terminal.type("\x04")
        assert terminal.process.wait(30) == 0


def test_leaving_while_something_runs(port):
    with Terminal("backdoor", port) as terminal:
        terminal.wait_for(">>> ")
        terminal.type("import time; print('begun'); time.sleep(20)\n")
        terminal.wait_for("begun\r\n")
        terminal.type("\x03")
        terminal.wait_for("leaving; what was typed last runs on")
        assert terminal.process.wait(30) == 0


def test_the_services_end(folder, broker_uri):
    command = ("run", "hello", "--broker", broker_uri, "--backdoor-port", "0")
    with Program(*command, cwd=folder.path) as program:
        port = program.wait_for("backdoor: nameko backdoor ").split()[-1]
        program.wait_for("ready at")
        with Terminal("backdoor", port) as terminal:
            terminal.wait_for(">>> ")
            program.signal(TERM)
            terminal.wait_for("the services have hung up")
            terminal.type("\n")
            assert terminal.process.wait(30) == 0
        assert program.wait() == 0


def test_in_a_pipe(port, uid):
    # With no netcat and no telnet in reach.
    ended = run("backdoor", port, stdin="print(*runner.service_names)\n", PATH="/nowhere")
    assert "hello_{}\n".format(uid) in ended.stdout
    assert ended.returncode == 0


# What netcat of OpenBSD does with `nc HOST PORT -N`, and says with -h.
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
print("said netcat")
"""


def test_by_netcat(port, uid, tmp_path):
    netcat = tmp_path / "netcat"
    netcat.write_text(NETCAT.format(python=sys.executable))
    netcat.chmod(0o755)
    path = "{}:{}".format(tmp_path, os.environ["PATH"])
    ended = run("backdoor", port, stdin="print(*runner.service_names)\n", PATH=path)
    assert "hello_{}\n".format(uid) in ended.stdout
    assert ended.stdout.endswith("said netcat\n")


@pytest.mark.parametrize(
    ("target", "says"),
    [("1", "Backdoor unreachable on 1: "), ("host:port", "'host:port' is no [host:]port")],
)
def test_a_wrong_target(target, says):
    ended = run("backdoor", target, PATH="/nowhere")
    assert ended.returncode == 1
    assert says in ended.stdout


def test_a_program_that_fails_is_told():
    args = setup_parser().parse_args(["backdoor", "3000", "--rlwrap"])
    with (
        patch("nameko.cli.backdoor.os.system", return_value=0),
        patch("nameko.cli.backdoor.call", return_value=1) as call,
        patch("sys.stdin", io.StringIO()),
        pytest.raises(CommandError, match="Backdoor unreachable on 3000"),
    ):
        args.main(args)
    assert call.call_args.args[0] == ["rlwrap", "netcat", "localhost", "3000", "--close"]
