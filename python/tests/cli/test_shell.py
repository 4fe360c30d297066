"""``nameko shell``."""

import os
import socket
import subprocess
import textwrap
import uuid
from unittest.mock import patch

import pytest
from program import NAMEKO, TIMEOUT, Terminal, environment, run

from nameko.cli.main import setup_parser
from nameko.exceptions import CommandError


class TestShell:
    def script(self, broker_uri, text):
        return run("shell", "--broker", broker_uri, stdin=textwrap.dedent(text))

    def test_runs_a_script_from_a_pipe(self, running, broker_uri, uid):
        ended = self.script(
            broker_uri,
            """\
            n.rpc.hello_{uid}.hello(name='zq')
            for name in ["a", "b"]:
                print(n.rpc.hello_{uid}.hello(name))
            print(n.rpc.with_context(user_id=7).hello_{uid}.hello("c"))
            print("done")
            """.format(uid=uid),
        )
        assert ended.stdout == "'Hello, zq!'\nHello, a!\nHello, b!\nHello, c!\ndone\n"
        assert ended.stderr == ""
        assert ended.returncode == 0

    @pytest.mark.parametrize(
        ("text", "output"),
        [
            ("print(1)\n\nprint(2)\n", "1\n2\n"),
            ("#!/usr/bin/env nameko shell\n# a comment\nprint(1)\n", "1\n"),
            ("print(1)  # one\n    # indented\n\n\nprint(2)", "1\n2\n"),
            ("\n\n\\\nprint(1)\n", "1\n"),
            (
                "if True:\n\n    print(1)\n# a comment\n    print(2)\n\nelse:\n    1\n3\n",
                "1\n2\n3\n",
            ),
            ("@staticmethod\n\ndef f():\n    return 1\nf()\n", "1\n"),
            ("text = '''a\n\n# b\n'''\nlen(text)\n", "7\n"),
            ("x = [\n\n1,  # one\n]\nx; 2\n", "[1]\n2\n"),
            ("from __future__ import annotations\ndef f(a: unknown): pass\nprint(1)\n", "1\n"),
            ("\ufeffprint(1)\n", "1\n"),
            ("", ""),
            ("# nothing", ""),
        ],
    )
    def test_runs_any_script_that_python_runs(self, broker_uri, text, output):
        ended = self.script(broker_uri, text)
        assert (ended.stdout, ended.stderr, ended.returncode) == (output, "", 0)

    def test_shows_the_line_of_an_exception(self, broker_uri):
        ended = self.script(broker_uri, "print(1)\n\nvalue = int('x')\n")
        assert ended.stdout == "1\n"
        assert 'File "<stdin>", line 3' in ended.stderr
        assert "value = int('x')" in ended.stderr
        assert ended.returncode == 1

    @pytest.mark.parametrize("text", ["print(1)\nreturn\n", "print(1)\n  x\n", "print(1)\n(\n"])
    def test_runs_nothing_of_a_script_with_a_syntax_error(self, broker_uri, text):
        ended = self.script(broker_uri, text)
        assert ended.stdout == ""
        assert "Error: " in ended.stderr
        assert ended.returncode == 1

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("raise ValueError('no')", "ValueError: no"),
            ("this cannot be Python", "SyntaxError"),
            ("n.rpc.nobody.method()", "UnknownService: Unknown service `nobody`"),
            ("n.rpc.hello_{uid}.nothing()", "MethodNotFound: nothing"),
            ("n.rpc.hello_{uid}.hello(nam='x')", "IncorrectSignature: "),
            ("n.rpc.hello_{uid}.hello(1, 2)", "IncorrectSignature: "),
            ("n.rpc.hello_{uid}.hello(object())", "EncodeError: "),
            ("n.rpc.hello_{uid}.unserializable()", "RemoteError: UnserializableValueError"),
        ],
    )
    def test_aborts_a_script_at_the_first_exception(self, running, broker_uri, uid, line, expected):
        ended = self.script(broker_uri, line.format(uid=uid) + "\nprint('not reached')\n")
        assert ended.returncode == 1
        assert expected in ended.stderr
        assert "Traceback" in ended.stderr or "SyntaxError" in ended.stderr
        assert ended.stdout == ""

    def test_sends_context_data(self, running, broker_uri, uid):
        context = ["--context", "tenant=acme", "--context", "call_id_stack=['browser']"]
        ended = run(
            "shell",
            *("--broker", broker_uri, *context),
            stdin="data = n.rpc._worker_ctx.context_data\n"
            "print(data['tenant'], data['call_id_stack'][0])\n",
        )
        assert ended.stdout == "acme browser\n", ended.stderr
        for wrong, message in (
            ("tenant", "--context takes KEY=VALUE"),
            ("tenant=[1", "neither a Python nor a JSON literal"),
            ("call_id_stack=browser", "call_id_stack"),
        ):
            ended = run("shell", "--broker", broker_uri, "--context", wrong, stdin="")
            assert ended.returncode == 1
            assert message in ended.stdout

    def test_takes_a_16_mb_argument(self, running, broker_uri, uid):
        ended = self.script(
            broker_uri, "print(len(n.rpc.hello_{}.hello('x' * 16_000_000)))".format(uid)
        )
        assert ended.stdout == "16000008\n"

    def test_reports_an_unreachable_broker(self):
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
            ended = self.script("amqp://127.0.0.1:{}".format(port), "print(1)")
        assert ended.returncode == 1
        assert "Error: cannot connect to 127.0.0.1:{}".format(port) in ended.stdout
        assert "Traceback" not in ended.stderr

    def test_suggests_nameko_run_without_a_broker(self):
        args = setup_parser().parse_args(["shell"])
        with (
            patch("nameko._nameko.probe", return_value=False),
            patch.dict("os.environ", AMQP_URI=""),
            pytest.raises(CommandError, match="start a service with `nameko run`"),
        ):
            args.main(args)

    def test_runs_with_standard_input_closed(self, broker_uri):
        command = '"$@" <&-'
        ended = subprocess.run(
            ["bash", "-c", command, "bash", *NAMEKO, "shell", "--broker", broker_uri],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=TIMEOUT,
            check=False,
        )
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")

    def test_aborts_a_script_when_its_output_pipe_is_closed(self, broker_uri):
        reader, writer = os.pipe()
        os.close(reader)
        ended = subprocess.run(
            [*NAMEKO, "shell", "--broker", broker_uri],
            input="print('unread', flush=True)",
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            timeout=TIMEOUT,
            check=False,
        )
        os.close(writer)
        assert (ended.returncode, ended.stderr) == (1, "")

    def test_ctrl_c_interrupts_a_call_on_a_terminal(self, running, broker_uri, uid):
        with Terminal("shell", "--broker", broker_uri, "--interface", "plain") as shell:
            shell.wait_for("Broker: ")
            shell.wait_for(">>> ")
            shell.type("n.rpc.hello_{}.hello(name='zq')\n".format(uid))
            shell.wait_for("'Hello, zq!'")
            shell.type("n.rpc.hello_{}.hang()\n".format(uid))
            running.wait_for("hanging")
            shell.type("\x03")
            shell.wait_for("KeyboardInterrupt")
            shell.type("1 + 1\n")
            shell.wait_for("2")
            shell.wait_for(">>> ")
            shell.type("\x04")
            assert shell.process.wait(30) == 0

    def test_dispatches_events_and_shows_the_configuration(self, broker_uri):
        ended = self.script(
            broker_uri,
            """\
            print(n.config["AMQP_URI"] is not None)
            try:
                n.dispatch_event("nobody-{}", "type", "data")
            except Exception as exc:
                print(type(exc).__name__)
            """.format(uuid.uuid4()),
        )
        assert ended.stdout == "True\nNotFound\n"
