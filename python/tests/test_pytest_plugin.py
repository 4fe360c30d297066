"""The pytest plugin. Each test runs a test file like those of users."""

import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from nameko import config

pytest_plugins = ["pytester"]

EXTERNAL_URI = os.environ.get("NAMEKO_TEST_AMQP_URI")


@pytest.fixture
def run(pytester):
    """``run(tests, *options)`` runs a file of tests and returns the result."""

    def run(tests, *options):
        pytester.makepyfile(dedent(tests))
        if EXTERNAL_URI and "--amqp-uri" not in options:
            options += ("--amqp-uri", EXTERNAL_URI)
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", *options)

    return run


def test_supports_tests_written_for_nameko_2(run):
    outcome = run(
        """
        from queue import Empty

        import pytest

        from nameko.dependency_providers import Config
        from nameko.events import EventDispatcher, event_handler
        from nameko.extensions import DependencyProvider
        from nameko.messaging import Publisher
        from nameko.rpc import RpcProxy, rpc
        from nameko.standalone.rpc import ServiceRpcProxy
        from nameko.testing.services import entrypoint_hook, entrypoint_waiter, worker_factory
        from nameko.testing.utils import get_container


        class Shop:
            name = "shop"

            settings = Config()
            stock = RpcProxy("stock")
            dispatch = EventDispatcher()
            publish = Publisher()

            @rpc
            def order(self, what):
                left = self.stock.take(what)
                self.dispatch("ordered", what)
                return "{} left, {}".format(left, self.settings["GREETING"])

            @rpc
            def note(self, text):
                self.publish(text, routing_key="notes")


        class Stock:
            name = "stock"

            @rpc
            def take(self, what):
                return 4

            @event_handler("shop", "ordered")
            def ordered(self, what):
                return what


        @pytest.fixture
        def config(rabbit_config):
            rabbit_config["GREETING"] = "bye"
            return rabbit_config


        def test_unit():
            shop = worker_factory(Shop, settings={"GREETING": "hi"})
            shop.stock.take.return_value = 1
            assert shop.order("tea") == "1 left, hi"


        def test_services_together(runner_factory, config):
            runner = runner_factory(config, Shop, Stock)
            runner.start()
            stock = get_container(runner, Stock)
            with entrypoint_waiter(stock, "ordered") as result:
                with entrypoint_hook(get_container(runner, Shop), "order") as order:
                    assert order("tea") == "4 left, bye"
            assert result.get() == "tea"


        def test_over_the_network(container_factory, config):
            container = container_factory(Stock, config)
            container.start()
            assert container.config is config
            with ServiceRpcProxy("stock", config) as stock:
                assert stock.take("tea") == 4


        def test_messages(
            container_factory, config, rabbit_manager, get_message_from_queue
        ):
            vhost = config["vhost"]
            rabbit_manager.create_queue(vhost, "notes", durable=True)
            container = container_factory(Shop, config)
            container.start()
            with entrypoint_hook(container, "note") as note:
                note("remember")
            assert get_message_from_queue("notes", ack=False).payload == "remember"
            message = get_message_from_queue("notes")
            assert message.payload == "remember"
            assert message.properties["content_type"] == "application/json"
            with pytest.raises(Empty):
                get_message_from_queue("notes", block=False)
            with pytest.raises(Empty):
                get_message_from_queue("notes", timeout=0.01)
            rabbit_manager.publish(vhost, "amq.default", "notes", "x", {"content_type": "odd"})
            assert get_message_from_queue("notes", accept="odd").payload == "x"


        class Seen(DependencyProvider):
            call_ids = []

            def worker_setup(self, worker_ctx):
                self.call_ids.append(worker_ctx.call_id)


        @pytest.mark.usefixtures("predictable_call_ids")
        def test_call_ids(runner_factory, config):
            class A(Shop):
                name = "a"
                seen = Seen()

            class B(Stock):
                name = "stock"
                seen = Seen()

            runner = runner_factory(config, A, B)
            runner.start()
            with ServiceRpcProxy("a", config) as a:
                a.order("tea")
            assert Seen.call_ids[:2] == ["a.order.1", "stock.take.2"]


        def test_extension(mock_container):
            mock_container.service_name = "shop"
            provider = Config().bind(mock_container, "settings")
            provider.setup()
            assert provider.get_dependency(None) == {"serializer": "json"}


        def test_nothing(empty_config):
            assert empty_config == {}
        """
    )
    outcome.assert_outcomes(passed=7)


def test_supports_tests_written_for_version_3(run):
    outcome = run(
        """
        import pytest

        from nameko import config
        from nameko.events import EventDispatcher, EventHandler
        from nameko.rpc import ServiceRpc, rpc
        from nameko.standalone.rpc import ServiceRpcClient
        from nameko.testing.services import entrypoint_hook


        class Shop:
            name = "shop"
            stock = ServiceRpc("stock")

            @rpc
            def order(self):
                return "{} {}".format(self.stock.take(), config["GREETING"])


        class Stock:
            name = "stock"

            @rpc
            def take(self):
                return 4


        @pytest.mark.usefixtures("rabbit_config")
        def test_runner(runner_factory):
            with config.patch({"GREETING": "bye"}):
                runner_factory(Shop, Stock).start()
                with ServiceRpcClient("shop") as shop:
                    assert shop.order() == "4 bye"


        def test_container(container_factory, rabbit_config):
            container_factory(Stock).start()
            # Merged with the configuration of the fixtures.
            container = container_factory(Shop, {"GREETING": "hi"})
            container.start()
            with entrypoint_hook(container, "order") as order:
                assert order() == "4 hi"


        def test_nothing_is_left():
            assert config == {}


        def test_an_empty_one(rabbit_config, empty_config):
            assert config == {}


        def test_extension(rabbit_config, mock_container):
            mock_container.service_name = "shop"
            dispatcher = EventDispatcher().bind(mock_container, "dispatch")
            dispatcher.setup()
            handler = EventHandler("shop", "opened").bind(mock_container, "method")
            handler.setup()
            dispatcher.publisher.publish("now", exchange=dispatcher.exchange)


        def test_uri(rabbit_uri, rabbit_manager):
            vhost = rabbit_uri.rpartition("/")[2]
            assert vhost in [found["name"] for found in rabbit_manager.get_all_vhosts()]


        @pytest.fixture
        def own_config(rabbit_uri):
            with config.patch({"AMQP_URI": rabbit_uri}):
                yield


        def test_a_configuration_of_its_own(own_config, container_factory):
            container_factory(Stock).start()
        """
    )
    outcome.assert_outcomes(passed=7)
    assert config == {}


def test_an_overridden_rabbit_config_can_return_none(run):
    outcome = run(
        """
        import pytest

        from nameko import config


        @pytest.fixture
        def rabbit_config(rabbit_uri):
            with config.patch({"AMQP_URI": rabbit_uri}):
                yield


        def test_uri(amqp_uri, rabbit_uri):
            assert amqp_uri == rabbit_uri
        """
    )
    outcome.assert_outcomes(passed=1)


def test_runs_the_tests_of_the_guide(run):
    page = Path(__file__).parents[2] / "docs" / "guides" / "testing.md"
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)
    run("\n".join(blocks)).assert_outcomes(passed=2)


def test_each_test_has_its_own_virtual_host(run):
    outcome = run(
        """
        import pytest

        vhosts = []


        @pytest.mark.parametrize("n", range(3))
        def test_alone(rabbit_config, rabbit_manager, n):
            vhosts.append(rabbit_config["vhost"])
            assert rabbit_manager.get_queues(vhosts[-1]) == []
            rabbit_manager.create_queue(vhosts[-1], "the same")


        def test_apart(rabbit_manager):
            assert len(set(vhosts)) == 3
            from nameko.testing.utils import assert_stops_raising

            def gone():
                there = [found["name"] for found in rabbit_manager.get_all_vhosts()]
                assert not set(vhosts) & set(there)

            assert_stops_raising(gone)
        """
    )
    outcome.assert_outcomes(passed=4)


def test_the_virtual_host_ends_before_the_containers_in_any_fixture_order(run, pytester):
    pytester.makeconftest(
        """
        import pytest

        ended = []

        @pytest.fixture
        def rabbit_config():
            yield
            ended.append("rabbit")

        @pytest.fixture
        def container_factory():
            yield
            ended.append("container")

        @pytest.fixture(scope="session")
        def order():
            return ended
        """
    )
    outcome = run(
        """
        def test_one(container_factory, rabbit_config):
            pass

        def test_other(rabbit_config, container_factory):
            pass

        def test_order(order):
            assert order == ["rabbit", "container"] * 2
        """
    )
    outcome.assert_outcomes(passed=3)


def test_closes_websockets_after_each_test(run):
    outcome = run(
        """
        import threading

        import pytest

        from nameko.web.websocket import rpc


        class Echo:
            name = "echo"

            @rpc
            def echo(self, socket_id, value):
                return value


        @pytest.mark.parametrize("n", range(5))
        def test_socket(container_factory, web_config, websocket, n):
            assert "websocket" not in [thread.name for thread in threading.enumerate()]
            container_factory(Echo, web_config).start()
            assert websocket().rpc("echo", value=n) == n
        """
    )
    outcome.assert_outcomes(passed=5)


def test_services_do_not_log_the_end_of_their_virtual_host(run):
    outcome = run(
        """
        import logging

        import pytest

        from nameko.rpc import rpc


        class Shop:
            name = "shop"

            @rpc
            def ping(self):
                pass


        @pytest.fixture(scope="module")
        def complaints():
            seen = []
            handler = logging.Handler(logging.WARNING)
            handler.emit = seen.append
            logging.getLogger().addHandler(handler)
            yield seen
            logging.getLogger().removeHandler(handler)


        @pytest.mark.parametrize("n", range(5))
        def test_container(container_factory, rabbit_config, complaints, n):
            container_factory(Shop, rabbit_config).start()


        @pytest.mark.parametrize("n", range(5))
        def test_runner(runner_factory, rabbit_config, n):
            runner_factory(rabbit_config, Shop).start()


        def test_none(complaints):
            assert [record.getMessage() for record in complaints] == []
        """
    )
    outcome.assert_outcomes(passed=11)


def test_stops_kombu_consumers_of_extensions(run):
    outcome = run(
        """
        from kombu.mixins import ConsumerMixin

        consumers = []


        def test_one():
            consumers.append(ConsumerMixin())
            assert not consumers[0].should_stop


        def test_after():
            assert consumers[0].should_stop
        """
    )
    outcome.assert_outcomes(passed=2)


def test_tls_requires_a_rabbitmq(pytester):
    tests = """
        def test_tls(rabbit_ssl_config):
            assert rabbit_ssl_config["AMQP_URI"].startswith("amqp://guest:guest@127.0.0.1:5678/")
            assert rabbit_ssl_config["AMQP_SSL"] == {
                "ca_certs": "certs/cacert.pem",
                "certfile": "mine.pem",
                "keyfile": "certs/clientkey.pem",
                "cert_reqs": 2,
                "number": 1,
                "alone": True,
            }
        """
    pytester.makepyfile(dedent(tests))
    outcome = pytester.runpytest_inprocess("-rs")
    outcome.assert_outcomes(skipped=1)
    outcome.stdout.fnmatch_lines("*has no TLS port: set --amqp-uri*")
    if EXTERNAL_URI:
        options = ["certfile=mine.pem", "number=1", "alone"]
        options = [part for option in options for part in ("--amqp-ssl-option", option)]
        options += ["--amqp-ssl-port", "5678", "--amqp-uri", EXTERNAL_URI]
        pytester.runpytest_inprocess(*options).assert_outcomes(passed=1)


def test_fails_fast_if_the_rabbitmq_is_unreachable(run):
    tests = "def test(rabbit_config): assert False, 'not reached'"
    outcome = run(tests, "--amqp-uri", "amqp://guest:secret@127.0.0.1:1")
    outcome.assert_outcomes(errors=1)
    outcome.stdout.fnmatch_lines(
        "*no RabbitMQ is listening at amqp://guest:*@127.0.0.1:1, the value of --amqp-uri*"
    )
    outcome.stdout.no_fnmatch_line("*secret*")


def test_accepts_the_options_of_nameko_2(run):
    tests = "def test(request): assert request.config.getoption('RABBIT_AMQP_URI') is None"
    outcome = run(tests, "--amqp-uri", "none", "--blocking-detection")
    outcome.assert_outcomes(passed=1, warnings=1)
    outcome.stdout.fnmatch_lines("*--blocking-detection has no effect: workers are threads*")
    outcome = run(tests, "--amqp-uri", "none", "--suppress-nameko-eventlet-notification")
    outcome.assert_outcomes(passed=1)
    outcome = run(tests, "--amqp-uri", "none", "--rabbit-api-uri", "http://localhost:15672")
    assert outcome.ret == pytest.ExitCode.USAGE_ERROR
    outcome.stderr.fnmatch_lines("*--rabbit-api-uri requires --amqp-uri*")


def test_imports_nothing_unless_used(pytester):
    program = """
        import sys, pytest
        pytest.main(["-q"])
        print([name for name in ("kombu", "amqp", "nameko._nameko", "nameko.containers", "yaml")
               if name in sys.modules])
        """
    pytester.makepyfile("def test_own(): pass")
    ended = subprocess.run(
        [sys.executable, "-c", dedent(program)], capture_output=True, text=True, timeout=50
    )
    assert "1 passed" in ended.stdout
    assert ended.stdout.endswith("\n[]\n"), ended.stdout
