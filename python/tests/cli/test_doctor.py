"""``nameko doctor`` on small projects."""

import json
import os
import textwrap

import pytest
from program import run

from nameko.cli.doctor.requirements import allows, declared


class Project:
    """A project directory and its findings."""

    def __init__(self, path):
        self.path = path

    def write(self, name, text):
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))

    def findings(self, *arguments):
        """Returns (severity, location, name) of each finding, and checks the exit code."""
        ended = run("doctor", *arguments, "--format", "json", cwd=self.path)
        assert ended.stderr == ""
        self.report = json.loads(ended.stdout)
        found = [
            (
                finding["severity"],
                "{}:{}".format(finding["file"], finding["line"]),
                finding["what"],
            )
            for finding in self.report["findings"]
        ]
        assert ended.returncode == int(any(severity == "breaks" for severity, _, _ in found))
        assert all(finding["why"] for finding in self.report["findings"])
        return found


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


GOOD = """
    import json
    import time
    from kombu import Exchange, Queue
    from nameko.events import EventDispatcher, event_handler
    from nameko.extensions import DependencyProvider
    from nameko.messaging import Publisher, consume
    from nameko.rpc import RpcProxy, rpc
    from nameko.timer import timer
    import nameko.standalone.rpc
    from .helpers import helper

    class Service:
        name = "service"
        other = RpcProxy("other")

        @rpc
        def method(self):
            time.sleep(1)
            return self.other.method()
"""


def test_names_are_checked_that_are_read_as_attributes(project):
    project.write(
        "program.py",
        """
        import nameko
        import nameko.cli
        import nameko.rpc as calls
        from nameko import containers, messaging

        nameko.cli.run(["shop"])
        nameko.cli.backdoors()
        nameko.config["AMQP_URI"]
        nameko.cli.main.main.anything
        calls.rpc.decorator
        calls.Telepathy()
        containers.GreenPool
        containers.ServiceContainer.spawn_worker
        containers.patched = messaging.consume
        try:
            nameko.serialization.setup.more
        finally:
            pass
        """,
    )
    assert project.findings() == [
        ("breaks", "program.py:8", "nameko.cli.backdoors"),
        ("breaks", "program.py:12", "nameko.rpc.Telepathy"),
        ("breaks", "program.py:13", "nameko.containers.GreenPool"),
    ]


def test_a_correct_project_has_no_findings(project):
    project.write("shop/__init__.py", "")
    project.write("shop/service.py", GOOD)
    project.write("shop/helpers.py", "helper = 1\n")
    assert project.findings() == []
    assert (project.report["files"], project.report["services"]) == (3, 1)
    ended = run("doctor", cwd=project.path)
    assert ended.returncode == 0
    assert ended.stdout == "0 things break, 0 work differently, in 3 files with 1 service\n"


def test_reports_uses_of_eventlet(project):
    project.write(
        "service.py",
        """\
        try:
            import eventlet
        except ImportError:
            pass
        eventlet.monkey_patch()
        from eventlet.event import Event
        from eventlet import Timeout as Limit, sleep

        def f(name):
            event = Event()
            with Limit(3):
                eventlet.spawn(f)
            sleep(1)
            sleep(2)
            return eventlet.green.urllib
        """,
    )
    found = project.findings()
    assert [one for one in found if not one[2].startswith("import ")] == [
        ("breaks", "service.py:5", "eventlet.monkey_patch"),
        ("breaks", "service.py:10", "eventlet.event.Event"),
        ("breaks", "service.py:11", "eventlet.Timeout"),
        ("breaks", "service.py:12", "eventlet.spawn"),
        ("differs", "service.py:13", "eventlet.sleep, also in line 14"),
        ("differs", "service.py:15", "eventlet.green.urllib"),
    ]
    output = run("doctor", cwd=project.path).stdout
    assert "service.py:13: works differently: eventlet.sleep" in output
    assert "    fix: time.sleep\n" in output


def test_reports_uses_of_internals(project):
    project.write(
        "extensions.py",
        """\
        from kombu.mixins import ConsumerMixin
        from kombu import pools
        from nameko.messaging import Consumer, QueueConsumer
        from nameko.amqp.nothing import thing
        from nameko.rpc import Rpc, no_such_name

        pools.set_limit(7)

        class Quick(QueueConsumer):
            sharing_key = "quick"

            def get_consumers(self, consumer_cls, channel):
                return []

            def on_connection_error(self, exc, interval):
                pass

        class Own(ConsumerMixin):
            pass

        class Provider:
            def start(self):
                self.container.spawn_managed_thread(self.run)
                self.container._protected_threads.add(1)
                self.queue_consumer.register_provider(self)
                self.queue_consumer.gt.kill()
        """,
    )
    assert project.findings() == [
        ("breaks", "extensions.py:4", "nameko.amqp.nothing"),
        ("breaks", "extensions.py:5", "nameko.rpc.no_such_name"),
        (
            "breaks",
            "extensions.py:12",
            "Quick.get_consumers overrides a method of kombu's ConsumerMixin",
        ),
        ("breaks", "extensions.py:24", "container._protected_threads"),
        ("breaks", "extensions.py:26", "queue_consumer.gt"),
        ("differs", "extensions.py:7", "kombu.pools.set_limit"),
        ("differs", "extensions.py:18", "Own is a kombu ConsumerMixin"),
    ]


def test_reports_missing_packages(project):
    project.write(
        "service.py",
        """\
        import no_such_driver
        from no_such_driver import more
        from typing import TYPE_CHECKING
        try:
            import not_needed
        except ImportError:
            not_needed = None
        if TYPE_CHECKING:
            import only_for_types
        import helpers.texts
        """,
    )
    project.write("helpers/texts.py", "import no_such_driver")
    found = project.findings()
    assert len(found) == 1
    assert found[0][0] == "breaks"
    assert found[0][2] == "import no_such_driver"


def test_checks_a_module_with_its_imports(project):
    project.write("shop/__init__.py", "")
    project.write("shop/service.py", "from . import deep\nfrom shop.other import x\n")
    project.write("shop/deep.py", "import eventlet\neventlet.spawn(print)\n")
    project.write("shop/other.py", "x = 1\n")
    project.write("shop/unrelated.py", "print 'this is Python 2'\n")
    found = project.findings("shop.service:Service")
    assert ("breaks", "shop/deep.py:2", "eventlet.spawn") in found
    assert project.report["files"] == 4
    found = project.findings("shop/unrelated.py")
    assert [one[:2] for one in found] == [("breaks", "shop/unrelated.py:1")]
    assert found[0][2].startswith("not valid Python 3.")


def test_reports_or_skips_unreadable_files(project):
    project.write("generated.py", "x = {}\n".format("+".join(["1"] * 20_000)))
    project.write("latin.py", "x = 1\n")
    project.path.joinpath("latin.py").write_bytes(b'x = "\xe9"\n')
    project.path.joinpath(".#lock.py").symlink_to("user@host.1234")
    project.path.joinpath("again").symlink_to(".")
    os.mkfifo(project.path / "pipe.py")
    found = project.findings(".")
    assert [one[:2] for one in found] == [
        ("breaks", "latin.py:1"),
        ("differs", "generated.py:None"),
    ]


POETRY = """\
    [tool.poetry.dependencies]
    python = "~3.8"
    nameko = {version = "^2.14", extras = ["x"]}
    kombu = "^5.3"
    """


def test_checks_requirements(project):
    project.write("requirements/base.txt", "# ours\n-r other.txt\nnameko==2.14.1\neventlet\nsix\n")
    project.write("setup.cfg", "[options]\ninstall_requires =\n    nameko>=2.12,<3\n    requests\n")
    project.write("pyproject.toml", '[project]\ndependencies = ["kombu<5", "nameko>=3.0.0rc6"]\n')
    project.write("Pipfile", '[packages]\nnameko = "~=2.13"\n')
    project.write("sub/pyproject.toml", POETRY)
    project.write("sub/setup.py", "setup(\n    python_requires='>=3.6,<3.9',\n)\n")
    project.write("Dockerfile", "FROM python:3.7-slim AS build\nFROM python:3.12-alpine\n")
    assert project.findings(".") == [
        ("breaks", "Dockerfile:1", "FROM python:3.7-slim AS build"),
        ("breaks", "Pipfile:2", "nameko ~=2.13"),
        ("breaks", "pyproject.toml:2", "kombu <5"),
        ("breaks", "requirements/base.txt:3", "nameko ==2.14.1"),
        ("breaks", "setup.cfg:3", "nameko >=2.12,<3"),
        ("breaks", "sub/pyproject.toml:2", "Python ~3.8"),
        ("breaks", "sub/pyproject.toml:3", "nameko ^2.14"),
        ("breaks", "sub/setup.py:2", "Python >=3.6,<3.9"),
        ("differs", "Dockerfile:2", "FROM python:3.12-alpine"),
        ("fine", "requirements/base.txt:4", "eventlet"),
    ]
    assert {"nameko", "eventlet", "six"} <= declared([project.path / "requirements/base.txt"])


@pytest.mark.parametrize(
    ("versions", "ours"),
    [
        ("", True),
        (">=2", True),
        (">=2.8.5,!=2.9", True),
        (">=3.0.0rc6", True),
        ("~=3.0", True),
        ("==3.*", True),
        ("^3.0.0rc6", True),
        ("~3.0", True),
        ("^2.14", False),
        ("~2", False),
        ("==3.0.0", True),
        ("<3", False),
        (">=2,<3.0", False),
        ("~=2.14", False),
        ("==2.14.1", False),
        ("!=3.0.0", False),
        (">3", False),
    ],
)
def test_compares_version_specifiers(versions, ours):
    assert allows(versions, "3.0.0") is ours


def test_reports_unknown_configuration_keys(project):
    project.write("service.py", "def setup(config):\n    return config['WEB_SERVER_ADRESS_2']\n")
    project.write(
        "config.yaml",
        """\
        AMQP_URL: amqp://localhost
        MAX_WORKERS: 3
        WEB_SERVER_ADRESS_2: mine
        SENTRY: {DSN: x}
        TRANSPORT_OPTIONS: {max_retries: 3, confirm_publish: true}
        """,
    )
    assert project.findings("--config", "config.yaml") == [
        ("differs", "config.yaml:1", "unknown key AMQP_URL"),
        ("differs", "config.yaml:2", "unknown key MAX_WORKERS"),
        ("differs", "config.yaml:5", "TRANSPORT_OPTIONS"),
    ]


def test_checks_installed_extensions(project):
    # A package in the working directory counts as installed.
    project.write(
        "nameko_green-1.0.dist-info/METADATA",
        "Metadata-Version: 2.1\nName: nameko-green\nVersion: 1.0\nRequires-Dist: nameko>=2\n",
    )
    project.write("nameko_green-1.0.dist-info/RECORD", "nameko_green.py,,\n")
    project.write("nameko_green.py", "from eventlet.queue import Queue\nqueue = Queue()\n")
    project.write("service/service.py", "x = 1\n")
    assert project.findings("service") == [
        ("breaks", "nameko-green 1.0: nameko_green.py:2", "eventlet.queue.Queue")
    ]


def test_reports_known_issues_of_extensions(project):
    for name in ("nameko-sentry", "nameko-prometheus"):
        project.write(
            "{}-1.0.dist-info/METADATA".format(name),
            "Metadata-Version: 2.1\nName: {}\nVersion: 1.0\nRequires-Dist: nameko>=2\n".format(
                name
            ),
        )
    project.write("six.py", "")
    project.write("eventlet.py", "")
    project.write("service/service.py", "x = 1\n")
    assert project.findings("service") == [
        ("breaks", "nameko-sentry 1.0:None", "SentryReporter"),
        ("fine", "nameko-prometheus 1.0:None", "works"),
    ]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nothere"], "There is no module 'nothere' in this directory or environment"),
        (
            ["config.yaml"],
            "config.yaml is not a Python file; pass a configuration file with --config",
        ),
        (
            ["./nothere.py"],
            "There is no module './nothere.py' in this directory or environment; there is no",
        ),
        (["--config", "nothere.yaml"], "Cannot read the configuration file nothere.yaml"),
    ],
)
def test_reports_invalid_targets(project, arguments, expected):
    project.write("config.yaml", "a: 1\n")
    ended = run("doctor", *arguments, cwd=project.path)
    assert ended.returncode == 1
    assert "Error: " + expected in ended.stdout
    assert ended.stderr == ""
