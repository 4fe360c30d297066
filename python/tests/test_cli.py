"""The command line as a user meets it."""

import os
import socket
import subprocess
import textwrap
import threading
import uuid
from unittest.mock import patch

import pytest
from program import HELLO, INT, NAMEKO, PATIENCE, TERM, Program, Terminal, environment, run

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
    """The hello service, run by the command."""
    with Program("run", "hello", "--broker", broker_uri, cwd=folder.path) as program:
        program.wait_for("ready at")
        yield program


class TestRun:
    @pytest.mark.parametrize("signum", [TERM, INT])
    def test_it_says_what_it_serves_and_stops_at_a_signal(self, running, cluster, uid, signum):
        said = "".join(running.seen)
        assert "hello_{}: hang (rpc), hello (rpc), slow (rpc)".format(uid) in said
        assert ":********@" in said
        assert cluster["hello_" + uid].hello("zq") == "Hello, zq!"
        running.signal(signum)
        running.wait_for("stopped")
        assert running.wait() == 0

    def test_calls_in_work_are_finished_first(self, running, cluster, uid):
        reply = cluster["hello_" + uid].slow.call_async()
        running.wait_for("working")
        running.signal(TERM)
        assert reply.result() == "finished"
        assert running.wait() == 0

    def test_a_second_signal_does_not_wait_for_them(self, running, cluster, uid):
        cluster["hello_" + uid].hang.call_async()
        running.wait_for("hanging")
        running.signal(TERM)
        running.wait_for("stopping; once more stops at once")
        running.signal(TERM)
        assert running.wait() == 143

    def test_several_modules(self, folder, broker_uri, uid):
        folder.write("other.py", HELLO.replace("hello_", "other_"))
        with Program(
            "run", "hello:Hello", "other", "hello", "--broker", broker_uri, cwd=folder.path
        ) as program:
            program.wait_for("hello_{}:".format(uid))
            program.wait_for("other_{}:".format(uid))
            program.wait_for("ready at")

    def test_a_configured_broker_that_is_away_is_waited_for(self, folder):
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
        ("change", "says"),
        [
            (lambda uri: uri.replace("guest:guest", "guest:wrong"), "guest"),
            (lambda uri: uri.rstrip("/") + "/nowhere", "nowhere"),
        ],
        ids=["wrong password", "wrong vhost"],
    )
    def test_a_broker_that_refuses_is_named_and_tried_again(self, folder, own_broker, change, says):
        with Program(
            "run", "hello", "--broker", change(own_broker.uri), cwd=folder.path
        ) as program:
            assert says in program.wait_for("Error connecting to broker at")
            program.signal(INT)
            assert program.wait() == 0

    def test_a_port_that_talks_something_else(self, folder):
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

    def test_a_service_that_dies_ends_the_command(self, folder, broker_uri, cluster, uid):
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
    def test_a_dependency_that_cannot_start_is_shown(self, folder, broker_uri, method):
        folder.write("database.py", self.DATABASE.replace("METHOD", method))
        ended = run("run", "database", "--broker", broker_uri, cwd=folder.path)
        assert ended.returncode == 1
        assert 'database.py", line 7, in {}'.format(method) in ended.stderr
        assert "nameko/cli" not in ended.stderr
        last = ended.stdout.splitlines()[-1]
        assert last == (
            "Error: A service could not start: RuntimeError: no database at db:5432, see above"
        )

    def test_a_dependency_that_cannot_stop_does_not_hang_the_command(self, folder, broker_uri):
        folder.write("database.py", self.DATABASE.replace("METHOD", "stop"))
        with Program("run", "database", "--broker", broker_uri, cwd=folder.path) as program:
            program.wait_for("ready at")
            program.signal(TERM)
            program.wait_for('database.py", line 7, in stop')
            program.wait_for("Error: A service could not stop: RuntimeError: no database at")
            assert program.wait() == 1

    @pytest.mark.parametrize("output", ["nobody reads", "a full disk"])
    def test_it_serves_on_when_its_output_takes_nothing(
        self, folder, broker_uri, cluster, uid, output
    ):
        if output == "nobody reads":
            reader, writer = os.pipe()
            os.close(reader)
        elif os.path.exists("/dev/full"):
            writer = os.open("/dev/full", os.O_WRONLY)
        else:
            pytest.skip("this system has no /dev/full")
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
            assert program.wait(PATIENCE) == 0
            assert "Error" not in program.stderr.read()


def test_the_configuration_can_be_read_while_modules_are_imported(folder, broker_uri, uid):
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
def test_ctrl_c_while_modules_are_imported(folder, options, code):
    folder.write("slow.py", "import time\nprint('importing', flush=True)\ntime.sleep(30)\n")
    command = ("run", "slow", "--broker", "amqp://127.0.0.1:1", *options)
    with Terminal(*command, cwd=folder.path) as terminal:
        terminal.wait_for("importing")
        terminal.type("\x03")
        assert terminal.process.wait(PATIENCE) == code


class TestWrongInput:
    """Each ends with exit code 1 and a message that says what was wrong."""

    def fails(self, folder, *arguments):
        ended = run(*arguments, cwd=folder.path)
        assert ended.returncode == 1
        assert "nameko/cli" not in ended.stderr
        return ended.stdout + ended.stderr

    def test_no_such_module(self, folder):
        assert "Error: No module named 'missing'" in self.fails(folder, "run", "missing")

    def test_no_such_class(self, folder):
        said = self.fails(folder, "run", "hello:Missing")
        assert "Error: Failed to find service class 'Missing' in module 'hello'" in said

    def test_file_name_for_module_name(self, folder):
        assert "did you mean 'hello'?" in self.fails(folder, "run", "hello.py")
        assert "did you mean 'hello'?" in self.fails(folder, "run", "./hello.py")

    def test_module_that_raises(self, folder):
        folder.write("broken.py", "def f():\n    1 / 0\n\nf()\n")
        said = self.fails(folder, "run", "broken")
        assert 'broken.py", line 4, in <module>' in said
        assert "ZeroDivisionError: division by zero" in said
        assert "importlib" not in said

    def test_module_that_does_not_parse(self, folder):
        folder.write("broken.py", "def f(:\n    pass\n")
        said = self.fails(folder, "run", "broken")
        assert 'broken.py", line 1' in said
        assert "SyntaxError" in said

    def test_module_that_imports_what_is_not_there(self, folder):
        folder.write("broken.py", "import not_installed\n")
        said = self.fails(folder, "run", "broken")
        assert "No module named 'not_installed'" in said
        assert 'broken.py", line 1' in said

    @pytest.mark.parametrize("name", ["eventlet", "gevent"])
    def test_module_that_patches_threads(self, folder, name):
        # As these do it: a function of theirs stands in the place of the real one.
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
        said = self.fails(folder, "run", "hello", "--broker", "amqp://127.0.0.1:1")
        assert "Error: This process called {}.monkey".format(name) in said
        assert "`nameko doctor` finds it" in said

    def test_module_without_a_service(self, folder):
        folder.write("empty.py", "x = 1\n")
        said = self.fails(folder, "run", "empty")
        assert "Failed to find anything that looks like a service in module 'empty'" in said

    def test_service_without_a_name(self, folder):
        folder.write("nameless.py", HELLO.replace("name = ", "label = "))
        said = self.fails(folder, "run", "nameless")
        assert "Service class must define a `name` attribute (nameless.Hello)" in said

    def test_two_services_of_one_name(self, folder, uid):
        folder.write("twin.py", HELLO)
        said = self.fails(folder, "run", "hello", "twin")
        assert "Two services are called 'hello_{}': hello.Hello and twin.Hello".format(uid) in said

    def test_yaml_that_does_not_parse(self, folder):
        folder.write("config.yaml", "AMQP_URI: amqp://\nlist: [1, 2\nother: 3\n")
        said = self.fails(folder, "run", "hello", "--config", "config.yaml")
        assert "Error: config.yaml:3:6: this is not YAML: " in said

    def test_configuration_that_is_no_mapping(self, folder):
        folder.write("config.yaml", "- 1\n")
        assert "config.yaml: a configuration is a mapping" in self.fails(folder, "show-config")

    def test_no_configuration_file(self, folder):
        said = self.fails(folder, "run", "hello", "--config", "missing.yaml")
        assert "Cannot read the configuration file missing.yaml: No such file" in said

    def test_uri_that_makes_no_sense(self, folder):
        said = self.fails(folder, "run", "hello", "--broker", "http://localhost")
        assert "Error: bad AMQP URI `http://localhost`" in said
        assert "connecting" not in said

    @pytest.mark.parametrize(
        ("definition", "says"),
        [
            ("max_workers=many", "max_workers must be a whole number, not 'many'"),
            ("max_workers=-1", "max_workers must not be negative, not -1"),
            ("prefetch_count=[1]", "prefetch_count must be a whole number, not [1]"),
            ("parent_calls_tracked=x", "parent_calls_tracked must be a whole number, not 'x'"),
            ("HEARTBEAT=often", "HEARTBEAT must be a whole number, not 'often'"),
        ],
    )
    def test_setting_that_makes_no_sense(self, folder, definition, says):
        said = self.fails(folder, "run", "hello", "-d", definition)
        assert said == "Error: {}\n".format(says)

    def test_unknown_arguments(self, folder):
        ended = run("run", "hello", "--nonsense", cwd=folder.path)
        assert ended.returncode == 2
        assert "unrecognized arguments: --nonsense" in ended.stderr


class TestShell:
    def script(self, broker_uri, text):
        return run("shell", "--broker", broker_uri, stdin=textwrap.dedent(text))

    def test_a_script_on_a_pipe(self, running, broker_uri, uid):
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
        ("line", "says"),
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
    def test_a_script_that_raises(self, running, broker_uri, uid, line, says):
        ended = self.script(broker_uri, line.format(uid=uid) + "\nprint('not reached')\n")
        assert ended.returncode == 1
        assert says in ended.stderr
        assert "Traceback" in ended.stderr or "SyntaxError" in ended.stderr
        assert ended.stdout == ""

    def test_a_50_mb_argument(self, running, broker_uri, uid):
        ended = self.script(
            broker_uri, "print(len(n.rpc.hello_{}.hello('x' * 50_000_000)))".format(uid)
        )
        assert ended.stdout == "50000008\n"

    def test_no_broker(self):
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
            ended = self.script("amqp://127.0.0.1:{}".format(port), "print(1)")
        assert ended.returncode == 1
        assert "Error: cannot connect to 127.0.0.1:{}".format(port) in ended.stdout
        assert "Traceback" not in ended.stderr

    def test_no_broker_configured_and_none_running(self):
        args = setup_parser().parse_args(["shell"])
        with (
            patch("nameko._nameko.probe", return_value=False),
            patch.dict("os.environ", AMQP_URI=""),
            pytest.raises(CommandError, match="start a service with `nameko run`"),
        ):
            args.main(args)

    def test_without_standard_input(self, broker_uri):
        command = '"$@" <&-'
        ended = subprocess.run(
            ["bash", "-c", command, "bash", *NAMEKO, "shell", "--broker", broker_uri],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=PATIENCE,
            check=False,
        )
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")

    def test_a_script_whose_output_nobody_reads(self, broker_uri):
        reader, writer = os.pipe()
        os.close(reader)
        ended = subprocess.run(
            [*NAMEKO, "shell", "--broker", broker_uri],
            input="print('unread', flush=True)",
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            timeout=PATIENCE,
            check=False,
        )
        os.close(writer)
        assert (ended.returncode, ended.stderr) == (1, "")

    def test_on_a_terminal(self, running, broker_uri, uid):
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

    def test_events_and_configuration(self, broker_uri):
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
    def test_environment_variables_are_filled_in(self, folder):
        folder.path.joinpath("config.yaml").write_text(
            "FOO: ${FOO:foobar}\nBAR: ${BAR}\nRAW: '${BAR}'\nPORT: ${PORT:8000}\n"
        )
        ended = run("show-config", "-d", "max_workers=3", "-dON", cwd=folder.path, BAR="[1,2]")
        assert ended.stdout.strip() == (
            "BAR:\n- 1\n- 2\nFOO: foobar\n'ON': true\nPORT: 8000\nRAW: '${BAR}'\nmax_workers: 3"
        )

    def test_who_wins(self, folder):
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

    def test_what_is_empty_says_nothing(self, folder):
        folder.path.joinpath("config.yaml").write_text("AMQP_URI:\n")
        ended = run("show-config", "--broker", "", cwd=folder.path, AMQP_URI="amqp://environment")
        assert ended.stdout.strip() == "AMQP_URI: amqp://environment"
        folder.path.joinpath("config.yaml").write_text("x: 1\n")
        ended = run("show-config", cwd=folder.path, AMQP_URI="")
        assert ended.stdout.strip() == "x: 1"


def test_version_3_calls_the_command_line_cli():
    with patch("sys.argv", ["nameko", "show-config", "-d", "DEBUG", "-c", os.devnull]):
        assert cli() == 0


def test_version_and_help():
    assert run("--version").stdout.strip() == nameko.__version__
    assert run("run", "--help").stdout.startswith("usage: nameko run")
    assert "show-config" in run("--help").stdout
    assert run().returncode == 2


class TestEmbeddedBroker:
    def test_it_is_started_only_where_no_broker_is_configured_or_running(self, own_broker, capsys):
        assert embedded_broker({"AMQP_URI": "amqp://127.0.0.1:1"}) is None
        with patch("nameko._nameko.probe", return_value=True):
            assert embedded_broker({}) is None
        assert capsys.readouterr().out == ""

    def test_a_newcomer_needs_no_broker(self, folder, uid):
        # Where this machine runs a broker already, that one has to be used.
        there_is_one = _nameko.probe(DEFAULT_AMQP_URI)
        with Program("run", "hello", cwd=folder.path) as program:
            program.wait_for("ready at")
            brought_one = any("none runs at localhost:5672" in line for line in program.seen)
            assert brought_one is not there_is_one
            ended = run("shell", stdin="n.rpc.hello_{}.hello('zq')".format(uid))
            assert ended.stdout == "'Hello, zq!'\n"
            program.signal(INT)
            program.wait_for("stopped")
            assert program.wait() == 0


def test_import_service_finds_classes(folder, monkeypatch):
    monkeypatch.syspath_prepend(folder.path)
    folder.write("some_services.py", HELLO)
    (service,) = import_service("some_services")
    assert import_service("some_services:Hello") == [service]
    assert find_services(["some_services", "some_services:Hello"]) == [service]
    with pytest.raises(CommandError, match="Service must be a class"):
        import_service("some_services:rpc")


def test_logs_are_plain_where_there_is_no_terminal(running):
    assert "\x1b" not in "".join(running.seen)


def test_logging_can_be_configured(folder, broker_uri):
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
