"""``nameko run --reload``: restarts the services on a change."""

import os

import pytest
from program import INT, Program, run


@pytest.fixture
def reloading(folder, broker_uri):
    folder.write(
        "config.yaml", "AMQP_URI: '{}'\nstop_timeout: 0.5\ngreeting: hello\n".format(broker_uri)
    )
    command = ("run", "hello", "--reload", "--config", "config.yaml")
    # Compiled modules are kept, as by default.
    with Program(*command, cwd=folder.path, PYTHONDONTWRITEBYTECODE="") as program:
        program.wait_for("ready at")
        yield program
        program.signal(INT)
        program.wait_for("stopped")
        assert program.wait() == 0


def edit(folder, name, old, new):
    path = folder.path / name
    path.write_text(path.read_text().replace(old, new))


def test_reloads_a_changed_module(reloading, folder, cluster, uid):
    service = cluster["hello_" + uid]
    assert service.hello("zq") == "Hello, zq!"
    edit(folder, "hello.py", "Hello, ", "Good morning, ")
    reloading.wait_for("hello.py has changed, restarting")
    reloading.wait_for("ready at")
    assert service.hello("zq") == "Good morning, zq!"


def test_reloads_on_changes_of_the_configuration_and_of_imports(folder, reloading):
    edit(folder, "config.yaml", "hello", "bye")
    reloading.wait_for("config.yaml has changed, restarting")
    reloading.wait_for("ready at")
    folder.write("texts.py", "x = 1\n")
    edit(folder, "hello.py", "import logging", "import texts, logging")
    reloading.wait_for("hello.py has changed, restarting")
    reloading.wait_for("ready at")
    folder.write("texts.py", "x = 12\n")
    reloading.wait_for("texts.py has changed, restarting")
    reloading.wait_for("ready at")


def test_reloads_on_two_changes_within_one_second(folder, reloading, cluster, uid):
    """Python itself misses the second change if the size of the file stays the same."""

    def save(text, at):
        path = folder.path / "texts.py"
        path.with_name("new").write_text(text)
        os.utime(path.with_name("new"), (at, at))
        path.with_name("new").replace(path)

    save("greeting = 'Hallo'\n", at=1_700_000_000.1)
    edit(folder, "hello.py", "import logging", "import texts, logging")
    edit(folder, "hello.py", '"Hello, ', 'texts.greeting + ", ')
    reloading.wait_for("hello.py has changed, restarting")
    reloading.wait_for("ready at")
    assert cluster["hello_" + uid].hello("zq") == "Hallo, zq!"
    save("greeting = 'Salut'\n", at=1_700_000_000.6)
    reloading.wait_for("texts.py has changed, restarting")
    reloading.wait_for("ready at")
    assert cluster["hello_" + uid].hello("zq") == "Salut, zq!"


def test_survives_errors_in_files(folder, reloading):
    edit(folder, "hello.py", "class Hello:", "class Hello(:")
    reloading.wait_for("SyntaxError")
    reloading.wait_for("Error: Cannot import 'hello', see above")
    edit(folder, "hello.py", "class Hello(:", "import not_there\nclass Hello:")
    reloading.wait_for("ModuleNotFoundError")
    reloading.wait_for("Error: Cannot import 'hello', see above")
    # A new file.
    folder.write("not_there.py", "")
    reloading.wait_for("not_there.py has changed, restarting")
    reloading.wait_for("ready at")
    edit(folder, "config.yaml", "greeting: hello", "greeting: [")
    reloading.wait_for("config.yaml:4:1: invalid YAML")
    edit(folder, "config.yaml", "greeting: [", "greeting: again")
    reloading.wait_for("ready at")


def test_stops_while_the_services_cannot_start(folder):
    folder.write("broken.py", "1 / 0\n")
    with Program("run", "broken", "--reload", cwd=folder.path, AMQP_URI="amqp://x") as program:
        program.wait_for("Error: Cannot import 'broken'")
        program.signal(INT)
        assert program.wait() == 0


def test_kills_a_hanging_worker_on_reload(reloading, folder, cluster, uid):
    cluster["hello_" + uid].hang.call_async()
    reloading.wait_for("hanging")
    # Must not hang again after the restart, since the message is redelivered.
    edit(folder, "hello.py", "time.sleep(30)", "return None")
    os.utime(folder.path / "hello.py")
    reloading.wait_for("not stopped within 0.5 seconds, killing running workers")
    reloading.wait_for("ready at")


def test_cannot_be_combined_with_workers():
    ended = run("run", "hello", "--reload", "--workers", "2")
    assert ended.returncode == 2
    assert "--workers: not allowed with argument --reload" in ended.stderr
