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

    def test_merges_layers(self, folder):
        folder.path.joinpath("base.yaml").write_text("smtp: {host: localhost, port: 25}\n")
        folder.path.joinpath("local.yaml").write_text("smtp: {host: mail}\n")
        files = ["--config", "base.yaml", "-c", "local.yaml"]
        ended = run("show-config", *files, "-d", "smtp.tls=true", cwd=folder.path)
        assert ended.stdout.strip() == "smtp:\n  host: mail\n  port: 25\n  tls: true"

    def test_reports_probable_mistakes(self, folder):
        folder.path.joinpath("config.yaml").write_text("max_worker: ${NOT_SET_ANYWHERE}\n")
        ended = run("show-config", cwd=folder.path)
        assert ended.stdout.strip() == "max_worker: null"
        assert ended.stderr.splitlines() == [
            "warning: the environment variable NOT_SET_ANYWHERE is not set and has no default, so "
            "it is empty; ${NOT_SET_ANYWHERE:} allows that",
            "warning: the unknown key `max_worker` has no effect; did you mean `max_workers`?",
        ]


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
