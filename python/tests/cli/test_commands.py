"""``nameko show-config``, ``--version`` and ``--help``."""

import os
from unittest.mock import patch

import pytest
from program import run

import nameko
from nameko.cli import cli


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
    arguments = ["show-config", "-d", "DEBUG", "-c", os.devnull]
    with patch("sys.argv", ["nameko", *arguments]), pytest.raises(SystemExit) as exited:
        cli()
    assert exited.value.code == 0
    assert cli(arguments, standalone_mode=False) == 0


def test_prints_version_and_help():
    assert run("--version").stdout.strip() == nameko.__version__
    assert run("run", "--help").stdout.startswith("usage: nameko run")
    assert "show-config" in run("--help").stdout
    assert run().returncode == 2
