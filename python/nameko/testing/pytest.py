"""Fixtures for testing services with pytest. Installing the package registers them.

Tests get a virtual host each: of a broker inside the test process, or of the RabbitMQ that
``--amqp-uri`` names. Fixtures that make a configuration return it as a dictionary and also put it
into :data:`nameko.config`, until the end of the test.

Nothing is imported or started until a test asks for it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from nameko.testing import rabbit

# ---------------------------------------------------------------------------------------- options


def parse_config_option(text: str) -> tuple[str, Any]:
    """``KEY=VALUE``, where VALUE is YAML; ``KEY`` alone is true."""
    import yaml

    key, equals, value = text.partition("=")
    return (key.strip(), yaml.safe_load(value)) if equals else (text, True)


def _uri(text: str) -> str | None:
    return None if text.lower() in ("", "none") else text


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("nameko")
    group.addoption(
        "--amqp-uri",
        "--rabbit-amqp-uri",
        dest="RABBIT_AMQP_URI",
        type=_uri,
        metavar="URI",
        help="The RabbitMQ to test on. A virtual host in it is ignored: tests have their own. "
        "Default: none, which is a broker inside the test process.",
    )
    group.addoption(
        "--rabbit-api-uri",
        "--rabbit-ctl-uri",
        dest="RABBIT_API_URI",
        type=_uri,
        metavar="URI",
        help="The management API of that RabbitMQ. Default: port 15672 of the same host, with the "
        "same login.",
    )
    group.addoption(
        "--amqp-ssl-port",
        dest="AMQP_SSL_PORT",
        default=5671,
        metavar="PORT",
        help="The port at which that RabbitMQ speaks TLS, for rabbit_ssl_config. Default: 5671.",
    )
    group.addoption(
        "--amqp-ssl-option",
        dest="AMQP_SSL_OPTIONS",
        type=parse_config_option,
        action="append",
        metavar="KEY=VALUE",
        default=[
            ("ca_certs", "certs/cacert.pem"),
            ("certfile", "certs/clientcert.pem"),
            ("keyfile", "certs/clientkey.pem"),
            ("cert_reqs", 2),  # ssl.CERT_REQUIRED
        ],
        help="A TLS option for rabbit_ssl_config, as ssl.wrap_socket had them; VALUE is YAML. "
        "May be repeated. Default: certificates in certs/, as in "
        "--amqp-ssl-option certfile=certs/clientcert.pem.",
    )
    group.addoption(
        "--blocking-detection",
        action="store_true",
        dest="blocking_detection",
        default=False,
        help="Was eventlet's. Without eventlet nothing blocks the others: this only warns of that.",
    )
    group.addoption(
        "--suppress-nameko-eventlet-notification",
        action="store_true",
        dest="suppress_eventlet_notification",
        default=False,
        help="Taken for the sake of old settings: there is no such notification any more.",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("RABBIT_API_URI") and not config.getoption("RABBIT_AMQP_URI"):
        raise pytest.UsageError(
            "--rabbit-api-uri is the management API of a RabbitMQ: say with --amqp-uri which"
        )
    if config.getoption("blocking_detection"):
        config.issue_config_time_warning(
            pytest.PytestConfigWarning(
                "--blocking-detection has no effect: workers are threads, and one that blocks "
                "does not block the others"
            ),
            stacklevel=2,
        )


# ---------------------------------------------------------------------------------- configuration


@pytest.fixture
def _nameko_config() -> Iterator[Any]:
    """:data:`nameko.config`, which is after the test what it was before.

    Whoever changes it asks for this, so that it is put back last, in whatever order fixtures end.
    """
    from nameko import config

    with config.patch({}):
        yield config


@pytest.fixture
def empty_config(_nameko_config: Any) -> dict[str, Any]:
    """An empty dictionary. :data:`nameko.config` is empty too, as in version 3."""
    _nameko_config.clear()
    return {}


@pytest.fixture
def mock_container(_nameko_config: Any) -> Any:
    """A mock of a :class:`~nameko.containers.ServiceContainer`, to bind extensions to."""
    from unittest.mock import create_autospec

    from nameko.constants import DEFAULT_SERIALIZER, SERIALIZER_CONFIG_KEY
    from nameko.containers import ServiceContainer

    _nameko_config[SERIALIZER_CONFIG_KEY] = DEFAULT_SERIALIZER
    container = create_autospec(ServiceContainer)
    container.config = _nameko_config
    container.shared_extensions = {}
    container.serializer = DEFAULT_SERIALIZER
    container.accept = [DEFAULT_SERIALIZER]
    return container


@pytest.fixture
def predictable_call_ids() -> Iterator[Any]:
    """Numbers calls: the first one's id is ``service.method.0``. Gives the mock that counts."""
    from itertools import count
    from unittest.mock import patch

    with patch("nameko.containers.new_call_id", autospec=True) as new_call_id:
        new_call_id.side_effect = map(str, count())
        yield new_call_id


# ----------------------------------------------------------------------------------------- broker


@pytest.fixture(scope="session")
def _broker_uris(request: pytest.FixtureRequest) -> Iterator[tuple[str, str, Any]]:
    """Where the broker and its management API are; and, if it is in this process, the broker."""
    from nameko._nameko import Broker, probe

    uri = request.config.getoption("RABBIT_AMQP_URI")
    if uri:
        # Services would wait for it, and the tests with them.
        if not probe(uri):
            from nameko.utils import sanitize_url

            pytest.fail(
                "nothing listens at {}, where --amqp-uri says that RabbitMQ is".format(
                    sanitize_url(uri)
                ),
                pytrace=False,
            )
        parts = urlsplit(uri)
        login = parts.netloc.rpartition("@")[0] or "guest:guest"
        api_uri = "http://{}@{}:15672".format(login, parts.hostname)
        yield uri, request.config.getoption("RABBIT_API_URI") or api_uri, None
        return
    broker = Broker(management_port=0)
    yield broker.uri, str(broker.management_uri), broker
    broker.stop()


@pytest.fixture(scope="session")
def rabbit_manager(_broker_uris: Any) -> rabbit.Client:
    """A client of the broker's management API."""
    from nameko.testing import rabbit

    return rabbit.Client(_broker_uris[1])


@pytest.fixture(scope="session")
def vhost_pipeline(request: pytest.FixtureRequest, _broker_uris: Any) -> Iterator[Any]:
    """``with vhost_pipeline.get() as vhost:`` has the name of a virtual host that is new, and gone
    after the block."""
    uri, _, broker = _broker_uris
    if broker:
        yield _Vhosts(broker)
        return
    from nameko.testing.utils import ResourcePipeline

    manager = request.getfixturevalue("rabbit_manager")
    username = urlsplit(uri).username or "guest"

    def create() -> str:
        vhost = _vhost_name()
        manager.create_vhost(vhost)
        manager.set_vhost_permissions(vhost, username, ".*", ".*", ".*")
        return vhost

    def destroy(vhost: str) -> None:
        _delete_vhost(manager, vhost)
        _close_pools(vhost)

    # RabbitMQ takes its time for both, which tests do not wait for.
    with ResourcePipeline(create, destroy).run() as pipeline:
        yield pipeline


class _Vhosts:
    """The virtual hosts of a broker in this process, which take no time to make."""

    def __init__(self, broker: Any) -> None:
        self._broker = broker

    @contextmanager
    def get(self) -> Iterator[str]:
        vhost = _vhost_name()
        self._broker.add_vhost(vhost)
        try:
            yield vhost
        finally:
            self._broker.delete_vhost(vhost)
            _close_pools(vhost)


def _vhost_name() -> str:
    import uuid

    return "nameko_test_{}".format(uuid.uuid4().hex[:12])


def _delete_vhost(manager: rabbit.Client, vhost: str) -> None:
    from nameko.testing.rabbit import HTTPError
    from nameko.utils.retry import retry

    @retry(for_exceptions=(HTTPError, TimeoutError), delay=1, max_attempts=9)
    def delete() -> None:
        manager.delete_vhost(vhost)

    delete()


def _close_pools(vhost: str) -> None:
    """Close the connections that kombu keeps to a virtual host which is gone."""
    pools = getattr(sys.modules.get("kombu.pools"), "connections", {})
    for settings, pool in list(pools.items()):
        # The fifth of a connection's settings is the virtual host. The pools' own way to delete one
        # takes a connection, and there is none at hand.
        if settings[4] == vhost:
            dict.pop(pools, settings)
            pool.force_close_all()


@pytest.fixture
def rabbit_uri(_broker_uris: Any, vhost_pipeline: Any) -> Iterator[str]:
    """The URI of a virtual host that is the test's own."""
    parts = urlsplit(_broker_uris[0])
    with vhost_pipeline.get() as vhost:
        yield "{}://{}/{}".format(parts.scheme, parts.netloc, vhost)


@pytest.fixture
def rabbit_config(rabbit_uri: str, _nameko_config: Any) -> dict[str, Any]:
    """The configuration of a virtual host that is the test's own: ``AMQP_URI``; beside it
    ``username`` and ``vhost``, for the management API."""
    from nameko.constants import AMQP_URI_CONFIG_KEY

    parts = urlsplit(rabbit_uri)
    _nameko_config[AMQP_URI_CONFIG_KEY] = rabbit_uri
    return {
        AMQP_URI_CONFIG_KEY: rabbit_uri,
        "username": parts.username,
        "vhost": parts.path[1:],
    }


@pytest.fixture
def rabbit_ssl_options(request: pytest.FixtureRequest) -> Any:
    """What ``--amqp-ssl-option`` says, for ``AMQP_SSL``."""
    return dict(request.config.getoption("AMQP_SSL_OPTIONS")) or True


@pytest.fixture
def rabbit_ssl_uri(request: pytest.FixtureRequest, rabbit_config: dict[str, Any]) -> str:
    """The URI of the test's virtual host over TLS. Skips the test where no RabbitMQ is named."""
    from nameko.constants import AMQP_URI_CONFIG_KEY

    if not request.config.getoption("RABBIT_AMQP_URI"):
        pytest.skip(
            "the broker in the test process has no TLS: name a RabbitMQ that has, with --amqp-uri "
            "and --amqp-ssl-port"
        )
    parts = urlsplit(rabbit_config[AMQP_URI_CONFIG_KEY])
    login, at, _ = parts.netloc.rpartition("@")
    host = "[{}]".format(parts.hostname) if ":" in (parts.hostname or "") else parts.hostname
    port = request.config.getoption("AMQP_SSL_PORT")
    return parts._replace(netloc="{}{}{}:{}".format(login, at, host, port)).geturl()


@pytest.fixture
def rabbit_ssl_config(
    rabbit_config: dict[str, Any],
    rabbit_ssl_uri: str,
    rabbit_ssl_options: Any,
    _nameko_config: Any,
) -> dict[str, Any]:
    """As ``rabbit_config``, over TLS."""
    from nameko.constants import AMQP_SSL_CONFIG_KEY, AMQP_URI_CONFIG_KEY

    tls = {AMQP_URI_CONFIG_KEY: rabbit_ssl_uri, AMQP_SSL_CONFIG_KEY: rabbit_ssl_options}
    _nameko_config.update(tls)
    return {**rabbit_config, **tls}


@pytest.fixture
def amqp_uri(rabbit_config: dict[str, Any] | None) -> str:
    """The URI in ``rabbit_config``."""
    from nameko import config
    from nameko.constants import AMQP_URI_CONFIG_KEY

    # One of a project's own, written for version 3, gives nothing back.
    return (config if rabbit_config is None else rabbit_config)[AMQP_URI_CONFIG_KEY]


@pytest.fixture
def get_message_from_queue(amqp_uri: str) -> Callable[..., Any]:
    """``get_message_from_queue(queue_name)`` takes a message; ``queue.Empty`` where none comes
    within ``timeout`` seconds, or is there if not ``block``. Without ``ack`` it goes back.

    ``accept``: the content types to decode, those of kombu if nothing is said.
    """
    from kombu.simple import SimpleQueue

    from nameko.amqp.publish import get_connection

    def get(
        queue_name: str,
        ack: bool = True,
        block: bool = True,
        timeout: float = 1,
        accept: Any = None,
    ) -> Any:
        with get_connection(amqp_uri) as connection:
            # kombu closes one in whose use an exception was raised.
            connection.ensure_connection(max_retries=3)
            # What else is delivered on the channel goes back when that is closed.
            with connection.channel() as channel:
                queue = SimpleQueue(channel, queue_name)
                if accept is not None:
                    queue.consumer.accept = accept
                message = queue.get(block=block, timeout=timeout)
                queue.close()
                if ack:
                    message.ack()
                else:
                    message.requeue()
        return message

    return get


# --------------------------------------------------------------------------------------- services


@pytest.fixture
def _hosts() -> Iterator[list[Any]]:
    """The containers and runners that the factories have made in this test."""
    hosts: list[Any] = []
    yield hosts
    _kill(hosts)


@pytest.fixture
def container_factory(_nameko_config: Any, _hosts: list[Any]) -> Callable[..., Any]:
    """``container_factory(service_cls, config)`` makes a container, which is killed after the test.

    Without ``config`` it has :data:`nameko.config`, as in version 3.
    """
    from nameko.containers import get_container_cls
    from nameko.runners import make_container

    def make(service_cls: type, config: Any = None) -> Any:
        config = _in_effect(config, _nameko_config)
        container = make_container(get_container_cls(config), service_cls, config)
        _hosts.append(container)
        return container

    return make


@pytest.fixture
def runner_factory(_nameko_config: Any, _hosts: list[Any]) -> Callable[..., Any]:
    """``runner_factory(config, *service_classes)`` makes a runner, which is killed after the test.

    Without ``config`` it has :data:`nameko.config`, as in version 3.
    """
    from nameko._config import is_config
    from nameko.runners import ServiceRunner

    def make(*service_classes: Any) -> Any:
        config = None
        if service_classes and is_config(service_classes[0]):
            config, service_classes = service_classes[0], service_classes[1:]
        runner = ServiceRunner(_in_effect(config, _nameko_config))
        for service_cls in service_classes:
            runner.add_service(service_cls)
        _hosts.append(runner)
        return runner

    return make


def _in_effect(config: Any, shared: Any) -> Any:
    """The configuration for a container. What a test gives is in ``nameko.config`` too, where
    services of version 3 read it. One that names no broker adds to that of the fixtures."""
    from nameko.constants import AMQP_URI_CONFIG_KEY

    if config is None or config is shared:
        return shared
    shared.update(config)
    return config if AMQP_URI_CONFIG_KEY in config or AMQP_URI_CONFIG_KEY not in shared else shared


def _kill(hosts: list[Any]) -> None:
    from logging import getLogger

    while hosts:
        host = hosts.pop(0)
        try:
            host.kill()
        except Exception:
            # The test is over: others' tests are not to fail for it.
            getLogger(__name__).warning("%s could not be killed", host, exc_info=True)


# ---------------------------------------------------------------------------------------- the web


@pytest.fixture
def web_config(empty_config: dict[str, Any], _nameko_config: Any) -> dict[str, Any]:
    """The configuration of a web server at a free port of this machine."""
    from nameko.constants import WEB_SERVER_CONFIG_KEY
    from nameko.testing.utils import find_free_port

    address = "127.0.0.1:{}".format(find_free_port())
    empty_config[WEB_SERVER_CONFIG_KEY] = _nameko_config[WEB_SERVER_CONFIG_KEY] = address
    return empty_config


@pytest.fixture
def web_config_port(web_config: dict[str, Any] | None) -> int:
    """The port in ``web_config``."""
    from nameko import config
    from nameko.constants import WEB_SERVER_CONFIG_KEY
    from nameko.web.server import parse_address

    # One of a project's own, written for version 3, gives nothing back.
    address = (config if web_config is None else web_config)[WEB_SERVER_CONFIG_KEY]
    return int(parse_address(address).port)


@pytest.fixture
def web_session(web_config_port: int) -> Iterator[Any]:
    """A ``requests.Session`` for the service at ``web_config_port``: URLs may be paths alone."""
    from urllib.parse import urljoin

    from requests import Response, Session

    class WebSession(Session):
        def request(self, method: Any, url: Any, *args: Any, **kwargs: Any) -> Response:
            url = urljoin("http://127.0.0.1:{}/".format(web_config_port), url)
            return super().request(method, url, *args, **kwargs)

    with WebSession() as session:
        yield session


@pytest.fixture
def websocket(web_config_port: int) -> Iterator[Callable[[], Any]]:
    """``websocket()`` connects to the service at ``web_config_port``, and is a
    :class:`~nameko.testing.websocket.VirtualSocket`."""
    import threading

    from nameko.testing.websocket import make_virtual_socket, say_goodbye

    active: list[tuple[Any, threading.Thread]] = []

    def connect() -> Any:
        app, wait_until_connected = make_virtual_socket("127.0.0.1", web_config_port)
        thread = threading.Thread(target=app.run_forever, name="websocket", daemon=True)
        active.append((app, thread))
        thread.start()
        return wait_until_connected()

    yield connect
    for app, thread in active:
        say_goodbye(app)
        # One that cannot be closed ends with its server.
        thread.join(1)


@pytest.fixture(autouse=True)
def fast_teardown(request: pytest.FixtureRequest) -> Iterator[None]:
    """Has containers killed before their virtual host is deleted, in whichever order a test names
    the fixtures: they would complain of it, and connect again.

    Only where extensions consume with kombu, it is deleted first: that ends their consumers, which
    would have to be waited for else."""
    hosts: list[Any] = []
    for name in ("container_factory", "runner_factory", "rabbit_config"):
        if name in request.fixturenames:
            request.getfixturevalue(name)
            hosts = request.getfixturevalue("_hosts")
    mixin = getattr(sys.modules.get("kombu.mixins"), "ConsumerMixin", None)
    if mixin is None:
        yield
        _kill(hosts)
        return
    # Consumers on kombu would try to connect again.
    consumers: list[Any] = []
    init = mixin.__init__

    def noting(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        consumers.append(self)

    mixin.__init__ = noting
    try:
        yield
    finally:
        mixin.__init__ = init
        for consumer in consumers:
            consumer.should_stop = True
        if not consumers:
            _kill(hosts)
