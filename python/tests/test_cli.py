"""The command line, run as a process."""

import os
import socket
import subprocess
import textwrap
import threading
import uuid
from unittest.mock import patch

import pytest
from program import HELLO, INT, NAMEKO, TERM, TIMEOUT, Program, Terminal, environment, run

import nameko
from nameko import _nameko
from nameko.cli import cli
from nameko.cli.main import setup_parser
from nameko.cli.run import embedded_broker, find_services, import_service
from nameko.constants import DEFAULT_AMQP_URI
from nameko.exceptions import CommandError
from nameko.testing.utils import assert_stops_raising


@pytest.fixture
def running(folder, broker_uri):
    """The hello service under ``nameko run``."""
    with Program("run", "hello", "--broker", broker_uri, cwd=folder.path) as program:
        program.wait_for("ready at")
        yield program


class TestRun:
    @pytest.mark.parametrize("signum", [TERM, INT])
    def test_lists_its_services_and_stops_on_a_signal(self, running, cluster, uid, signum):
        output = "".join(running.seen)
        assert "hello_{}: hang (rpc), hello (rpc), slow (rpc)".format(uid) in output
        assert ":********@" in output
        assert cluster["hello_" + uid].hello("zq") == "Hello, zq!"
        running.signal(signum)
        running.wait_for("stopped")
        assert running.wait() == 0

    def test_finishes_running_calls_before_it_stops(self, running, cluster, uid):
        reply = cluster["hello_" + uid].slow.call_async()
        running.wait_for("working")
        running.signal(TERM)
        assert reply.result() == "finished"
        assert running.wait() == 0

    def test_a_second_signal_forces_the_exit(self, running, cluster, uid):
        cluster["hello_" + uid].hang.call_async()
        running.wait_for("hanging")
        running.signal(TERM)
        running.wait_for("shutting down (press Ctrl-C again to force)")
        running.signal(TERM)
        assert running.wait() == 143

    def test_runs_several_modules(self, folder, broker_uri, uid):
        folder.write("other.py", HELLO.replace("hello_", "other_"))
        with Program(
            "run", "hello:Hello", "other", "hello", "--broker", broker_uri, cwd=folder.path
        ) as program:
            program.wait_for("hello_{}:".format(uid))
            program.wait_for("other_{}:".format(uid))
            program.wait_for("ready at")

    def test_waits_for_an_unreachable_broker(self, folder):
        broker = _nameko.Broker()
        uri, port = broker.uri, broker.port
        broker.stop()
        folder.write("config.yaml", "AMQP_URI: '{}'".format(uri))
        with Program("run", "hello", "--config", "config.yaml", cwd=folder.path) as program:
            program.wait_for("Error connecting to broker at amqp://guest:********@127.0.0.1:")
            program.wait_for("Retrying in")
            broker = _nameko.Broker("127.0.0.1", port)
            program.wait_for("ready at")
            program.signal(INT)
            assert program.wait() == 0
        broker.stop()

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            (lambda uri: uri.replace("guest:guest", "guest:wrong"), "guest"),
            (lambda uri: uri.rstrip("/") + "/nowhere", "nowhere"),
        ],
        ids=["wrong password", "wrong vhost"],
    )
    def test_retries_when_the_broker_refuses_the_login(self, folder, own_broker, change, expected):
        with Program(
            "run", "hello", "--broker", change(own_broker.uri), cwd=folder.path
        ) as program:
            assert expected in program.wait_for("Error connecting to broker at")
            program.signal(INT)
            assert program.wait() == 0

    def test_reports_a_port_that_does_not_speak_amqp(self, folder):
        with socket.create_server(("127.0.0.1", 0)) as server:

            def answer():
                try:
                    while True:
                        peer, _ = server.accept()
                        peer.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                        peer.close()
                except OSError:
                    pass

            threading.Thread(target=answer, daemon=True).start()
            uri = "amqp://127.0.0.1:{}".format(server.getsockname()[1])
            with Program("run", "hello", "--broker", uri, cwd=folder.path) as program:
                assert "AMQP" in program.wait_for("Error connecting to broker at")

    def test_exits_when_a_service_dies(self, folder, broker_uri, cluster, uid):
        folder.write(
            "deadly.py",
            """
            from nameko.extensions import DependencyProvider
            from nameko.rpc import rpc

            class Deadly(DependencyProvider):
                def worker_setup(self, worker_ctx):
                    raise RuntimeError("fatal setup")

            class Service:
                name = "deadly_{uid}"
                deadly = Deadly()

                @rpc
                def method(self):
                    pass
            """,
        )
        with Program("run", "deadly", "--broker", broker_uri, cwd=folder.path) as program:
            program.wait_for("ready at")
            cluster["deadly_" + uid].method.call_async()
            program.wait_for("RuntimeError: fatal setup")
            program.wait_for("Error: A service died of RuntimeError: fatal setup")
            assert program.wait() == 1

    DATABASE = """
        from nameko.extensions import DependencyProvider
        from nameko.rpc import rpc

        class Database(DependencyProvider):
            def METHOD(self):
                raise RuntimeError("no database at db:5432")

        class Service:
            name = "database_{uid}"
            database = Database()

            @rpc
            def method(self):
                pass
    """

    @pytest.mark.parametrize("method", ["setup", "start"])
    def test_shows_the_traceback_of_a_dependency_that_fails_to_start(
        self, folder, broker_uri, method
    ):
        folder.write("database.py", self.DATABASE.replace("METHOD", method))
        ended = run("run", "database", "--broker", broker_uri, cwd=folder.path)
        assert ended.returncode == 1
        assert 'database.py", line 7, in {}'.format(method) in ended.stderr
        assert "nameko/cli" not in ended.stderr
        last = ended.stdout.splitlines()[-1]
        assert last == (
            "Error: A service could not start: RuntimeError: no database at db:5432, see above"
        )

    def test_exits_when_a_dependency_fails_to_stop(self, folder, broker_uri):
        folder.write("database.py", self.DATABASE.replace("METHOD", "stop"))
        with Program("run", "database", "--broker", broker_uri, cwd=folder.path) as program:
            program.wait_for("ready at")
            program.signal(TERM)
            program.wait_for('database.py", line 7, in stop')
            program.wait_for("Error: A service could not stop: RuntimeError: no database at")
            assert program.wait() == 1

    @pytest.mark.parametrize("output", ["closed pipe", "full disk"])
    def test_keeps_serving_when_its_output_fails(self, folder, broker_uri, cluster, uid, output):
        if output == "closed pipe":
            reader, writer = os.pipe()
            os.close(reader)
        elif os.path.exists("/dev/full"):
            writer = os.open("/dev/full", os.O_WRONLY)
        else:
            pytest.skip("/dev/full is missing")
        program = subprocess.Popen(
            [*NAMEKO, "run", "hello", "--broker", broker_uri],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder.path,
            env=environment(),
        )
        os.close(writer)
        with program:
            assert "starting services" in program.stderr.readline()
            assert_stops_raising(lambda: cluster["hello_" + uid].hello("zq"))
            program.send_signal(TERM)
            assert program.wait(TIMEOUT) == 0
            assert "Error" not in program.stderr.read()


def test_modules_can_read_the_configuration_at_import_time(folder, broker_uri, uid):
    folder.write(
        "early.py",
        """
        from nameko import config
        from nameko.rpc import rpc

        class Early:
            name = config["NAME"]

            @rpc
            def method(self):
                pass
        """,
    )
    command = ("run", "early", "--broker", broker_uri, "-d", "NAME=early_" + uid)
    with Program(*command, cwd=folder.path) as program:
        program.wait_for("early_{}: method (rpc)".format(uid))
        program.wait_for("ready at")


@pytest.mark.parametrize(
    ("options", "code"), [([], 130), (["--workers", "2"], 0), (["--reload"], 0)]
)
def test_ctrl_c_works_during_the_import(folder, options, code):
    folder.write("slow.py", "import time\nprint('importing', flush=True)\ntime.sleep(30)\n")
    command = ("run", "slow", "--broker", "amqp://127.0.0.1:1", *options)
    with Terminal(*command, cwd=folder.path) as terminal:
        terminal.wait_for("importing")
        terminal.type("\x03")
        assert terminal.process.wait(TIMEOUT) == code


class TestInvalidInput:
    """Exits with code 1 and a message with the reason."""

    def fails(self, folder, *arguments):
        ended = run(*arguments, cwd=folder.path)
        assert ended.returncode == 1
        assert "nameko/cli" not in ended.stderr
        return ended.stdout + ended.stderr

    def test_missing_module(self, folder):
        assert "Error: No module named 'missing'" in self.fails(folder, "run", "missing")

    def test_missing_class(self, folder):
        output = self.fails(folder, "run", "hello:Missing")
        assert "Error: Failed to find service class 'Missing' in module 'hello'" in output

    def test_file_name_instead_of_module_name(self, folder):
        assert "did you mean 'hello'?" in self.fails(folder, "run", "hello.py")
        assert "did you mean 'hello'?" in self.fails(folder, "run", "./hello.py")

    def test_module_raises(self, folder):
        folder.write("broken.py", "def f():\n    1 / 0\n\nf()\n")
        output = self.fails(folder, "run", "broken")
        assert 'broken.py", line 4, in <module>' in output
        assert "ZeroDivisionError: division by zero" in output
        assert "importlib" not in output

    def test_module_with_a_syntax_error(self, folder):
        folder.write("broken.py", "def f(:\n    pass\n")
        output = self.fails(folder, "run", "broken")
        assert 'broken.py", line 1' in output
        assert "SyntaxError" in output

    def test_module_imports_a_missing_module(self, folder):
        folder.write("broken.py", "import not_installed\n")
        output = self.fails(folder, "run", "broken")
        assert "No module named 'not_installed'" in output
        assert 'broken.py", line 1' in output

    @pytest.mark.parametrize("name", ["eventlet", "gevent"])
    def test_module_patches_threads(self, folder, name):
        # Like these packages, replaces the function that starts threads.
        folder.write(
            name + ".py",
            """
            import _thread

            def start_new_thread(*args):
                raise NotImplementedError

            def monkey_patch():
                _thread.start_new_thread = start_new_thread
            """,
        )
        text = folder.path.joinpath("hello.py").read_text()
        patch = "import {0}\n{0}.monkey_patch()\n".format(name)
        folder.path.joinpath("hello.py").write_text(patch + text)
        output = self.fails(folder, "run", "hello", "--broker", "amqp://127.0.0.1:1")
        assert "Error: This process called {}.monkey".format(name) in output
        assert "`nameko doctor` finds the call" in output

    def test_module_without_a_service(self, folder):
        folder.write("empty.py", "x = 1\n")
        output = self.fails(folder, "run", "empty")
        assert "Failed to find anything that looks like a service in module 'empty'" in output

    def test_service_without_a_name(self, folder):
        folder.write("nameless.py", HELLO.replace("name = ", "label = "))
        output = self.fails(folder, "run", "nameless")
        assert "Service class must define a `name` attribute (nameless.Hello)" in output

    def test_two_services_with_the_same_name(self, folder, uid):
        folder.write("twin.py", HELLO)
        output = self.fails(folder, "run", "hello", "twin")
        assert "Two services are named 'hello_{}': hello.Hello and twin.Hello".format(uid) in output

    def test_invalid_yaml(self, folder):
        folder.write("config.yaml", "AMQP_URI: amqp://\nlist: [1, 2\nother: 3\n")
        output = self.fails(folder, "run", "hello", "--config", "config.yaml")
        assert "Error: config.yaml:3:6: invalid YAML: " in output

    def test_configuration_is_not_a_mapping(self, folder):
        folder.write("config.yaml", "- 1\n")
        assert "config.yaml: expected a mapping of keys" in self.fails(folder, "show-config")

    def test_missing_configuration_file(self, folder):
        output = self.fails(folder, "run", "hello", "--config", "missing.yaml")
        assert "Cannot read the configuration file missing.yaml: No such file" in output

    def test_invalid_broker_uri(self, folder):
        output = self.fails(folder, "run", "hello", "--broker", "http://localhost")
        assert "Error: bad AMQP URI `http://localhost`" in output
        assert "connecting" not in output

    @pytest.mark.parametrize(
        ("definition", "expected"),
        [
            ("max_workers=many", "max_workers must be a whole number, not 'many'"),
            ("max_workers=-1", "max_workers must not be negative, not -1"),
            ("prefetch_count=[1]", "prefetch_count must be a whole number, not [1]"),
            ("parent_calls_tracked=x", "parent_calls_tracked must be a whole number, not 'x'"),
            ("HEARTBEAT=often", "HEARTBEAT must be a whole number, not 'often'"),
        ],
    )
    def test_invalid_setting(self, folder, definition, expected):
        output = self.fails(folder, "run", "hello", "-d", definition)
        assert output == "Error: {}\n".format(expected)

    def test_unknown_arguments(self, folder):
        ended = run("run", "hello", "--nonsense", cwd=folder.path)
        assert ended.returncode == 2
        assert "unrecognized arguments: --nonsense" in ended.stderr


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
            print("done")
            """.format(uid=uid),
        )
        assert ended.stdout == "'Hello, zq!'\nHello, a!\nHello, b!\ndone\n"
        assert ended.stderr == ""
        assert ended.returncode == 0

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

    def test_takes_a_50_mb_argument(self, running, broker_uri, uid):
        ended = self.script(
            broker_uri, "print(len(n.rpc.hello_{}.hello('x' * 50_000_000)))".format(uid)
        )
        assert ended.stdout == "50000008\n"

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


class TestShowConfig:
    def test_substitutes_environment_variables(self, folder):
        folder.path.joinpath("config.yaml").write_text(
            "FOO: ${FOO:foobar}\nBAR: ${BAR}\nRAW: '${BAR}'\nPORT: ${PORT:8000}\n"
        )
        ended = run("show-config", "-d", "max_workers=3", "-dON", cwd=folder.path, BAR="[1,2]")
        assert ended.stdout.strip() == (
            "BAR:\n- 1\n- 2\nFOO: foobar\n'ON': true\nPORT: 8000\nRAW: '${BAR}'\nmax_workers: 3"
        )

    def test_command_line_overrides_file_overrides_environment(self, folder):
        folder.path.joinpath("config.yaml").write_text("x: 1\n")
        ended = run("show-config", cwd=folder.path, AMQP_URI="amqp://environment")
        assert ended.stdout.strip() == "AMQP_URI: amqp://environment\nx: 1"
        folder.path.joinpath("config.yaml").write_text("AMQP_URI: amqp://file\n")
        ended = run("show-config", cwd=folder.path, AMQP_URI="amqp://environment")
        assert ended.stdout.strip() == "AMQP_URI: amqp://file"
        option = ["--broker", "amqp://option"]
        ended = run("show-config", *option, cwd=folder.path)
        assert ended.stdout.strip() == "AMQP_URI: amqp://option"
        ended = run("show-config", *option, "-d", "AMQP_URI=amqp://defined", cwd=folder.path)
        assert ended.stdout.strip() == "AMQP_URI: amqp://defined"

    def test_ignores_empty_values(self, folder):
        folder.path.joinpath("config.yaml").write_text("AMQP_URI:\n")
        ended = run("show-config", "--broker", "", cwd=folder.path, AMQP_URI="amqp://environment")
        assert ended.stdout.strip() == "AMQP_URI: amqp://environment"
        folder.path.joinpath("config.yaml").write_text("x: 1\n")
        ended = run("show-config", cwd=folder.path, AMQP_URI="")
        assert ended.stdout.strip() == "x: 1"


def test_has_the_entry_point_of_version_3():
    with patch("sys.argv", ["nameko", "show-config", "-d", "DEBUG", "-c", os.devnull]):
        assert cli() == 0


def test_prints_version_and_help():
    assert run("--version").stdout.strip() == nameko.__version__
    assert run("run", "--help").stdout.startswith("usage: nameko run")
    assert "show-config" in run("--help").stdout
    assert run().returncode == 2


class TestEmbeddedBroker:
    def test_is_started_only_if_no_broker_is_configured_or_running(self, own_broker, capsys):
        assert embedded_broker({"AMQP_URI": "amqp://127.0.0.1:1"}) is None
        with patch("nameko._nameko.probe", return_value=True):
            assert embedded_broker({}) is None
        assert capsys.readouterr().out == ""

    def test_run_works_without_a_broker_installed(self, folder, uid):
        # A broker running on this machine takes precedence.
        is_running = _nameko.probe(DEFAULT_AMQP_URI)
        with Program("run", "hello", cwd=folder.path) as program:
            program.wait_for("ready at")
            started_one = any("none runs at localhost:5672" in line for line in program.seen)
            assert started_one is not is_running
            ended = run("shell", stdin="n.rpc.hello_{}.hello('zq')".format(uid))
            assert ended.stdout == "'Hello, zq!'\n"
            program.signal(INT)
            program.wait_for("stopped")
            assert program.wait() == 0


def test_import_service_finds_service_classes(folder, monkeypatch):
    monkeypatch.syspath_prepend(folder.path)
    folder.write("some_services.py", HELLO)
    (service,) = import_service("some_services")
    assert import_service("some_services:Hello") == [service]
    assert find_services(["some_services", "some_services:Hello"]) == [service]
    with pytest.raises(CommandError, match="Service must be a class"):
        import_service("some_services:rpc")


def test_logs_have_no_colours_without_a_terminal(running):
    assert "\x1b" not in "".join(running.seen)


def test_configures_logging_from_the_configuration(folder, broker_uri):
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"simple": {"format": "<%(name)s> %(message)s"}},
        "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "simple"}},
        "root": {"level": "INFO", "handlers": ["out"]},
    }
    folder.path.joinpath("config.yaml").write_text(
        "AMQP_URI: {}\nLOGGING: {}\n".format(broker_uri, config)
    )
    with Program("run", "hello", "--config", "config.yaml", cwd=folder.path) as program:
        program.wait_for("<nameko.runners> starting services")
