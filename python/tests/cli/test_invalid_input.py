"""Exit codes and messages of ``nameko run`` for invalid input."""

import pytest
from program import HELLO, run

from nameko.cli.run import find_services, import_service
from nameko.exceptions import CommandError


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

    @pytest.mark.parametrize("path", ["hello:", ":Hello", ":", ""])
    def test_path_without_a_module_or_class(self, folder, path):
        output = self.fails(folder, "run", path)
        assert "Error: {!r} names no ".format(path) in output
        assert "expected module or module:Class" in output

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


def test_import_service_finds_service_classes(folder, monkeypatch):
    monkeypatch.syspath_prepend(folder.path)
    folder.write("some_services.py", HELLO)
    (service,) = import_service("some_services")
    assert import_service("some_services:Hello") == [service]
    assert find_services(["some_services", "some_services:Hello"]) == [service]
    with pytest.raises(CommandError, match="Service must be a class"):
        import_service("some_services:rpc")
