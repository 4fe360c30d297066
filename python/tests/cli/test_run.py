"""``nameko run``."""

import os
import signal
import socket
import subprocess
import sys
import threading
from unittest.mock import patch

import pytest
from program import HELLO, INT, NAMEKO, ROOT, TERM, TIMEOUT, Program, Terminal, environment, run

from nameko import _nameko
from nameko.cli.run import embedded_broker
from nameko.constants import DEFAULT_AMQP_URI
from nameko.standalone.rpc import ClusterRpcProxy
from nameko.testing.utils import assert_stops_raising


def test_the_last_of_two_services_with_one_name_is_run(folder, broker_uri, uid):
    folder.write(
        "twin.py",
        """
        from hello import Hello as Base
        from nameko.rpc import rpc

        class Hello(Base):
            name = "hello_{uid}"

            @rpc
            def hello(self, name):
                return "twin"
        """,
    )
    with Program("run", "hello", "twin", "--broker", broker_uri, cwd=folder.path) as program:
        line = program.wait_for("is not run")
        assert line.startswith("hello.Hello is not run: twin.Hello has the same name")
        program.wait_for("ready at")
        with ClusterRpcProxy({"AMQP_URI": broker_uri}, timeout=10) as cluster:
            assert cluster["hello_" + uid].hello("you") == "twin"
        program.signal(TERM)
        assert program.wait() == 0


@pytest.mark.parametrize(
    "call",
    ["nameko.cli.run(['hello'])", "nameko.cli.cli(['run', 'hello'])", "nameko.cli.run()"],
)
def test_a_program_can_run_services(folder, broker_uri, call):
    folder.write("program.py", "import nameko.cli\n" + call + "\n")
    command = [sys.executable, "program.py", "hello"]
    with Program(command=command, cwd=folder.path, AMQP_URI=broker_uri) as program:
        program.wait_for("ready at")
        program.signal(TERM)
        assert program.wait() == 0


def test_a_program_may_get_the_exit_code_of_a_command(capfd):
    import nameko.cli

    assert nameko.cli.show_config(["--config", "missing.yaml"], standalone_mode=False) == 1
    with pytest.raises(SystemExit) as exited:
        nameko.cli.show_config(["--config", "missing.yaml"])
    assert exited.value.code == 1
    assert "missing.yaml" in capfd.readouterr().out


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

    def test_reports_a_misspelled_key(self, folder, broker_uri):
        options = ["-d", "max_worker=7", "--broker", broker_uri]
        with Program("run", "hello", *options, cwd=folder.path) as program:
            line = program.wait_for("max_worker")
            assert "the unknown key `max_worker` has no effect; did you mean `max_workers`?" in line

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


def test_ctrl_c_is_tested_also_by_a_background_job():
    # A shell starts background jobs with SIGINT ignored: `make test &` in a script.
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", __file__, "-k", "ctrl_c_works_during_the_import"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
