"""Fixtures for testing services with pytest. Installing the package registers them.

Each test gets a virtual host of its own, on a broker inside the test process or on the RabbitMQ at
``--amqp-uri``. Configuration fixtures return a dictionary, and set :data:`nameko.config` to it
until the end of the test.

Imports are lazy: a test session without these fixtures does not pay for them.
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
    """Parses ``KEY=VALUE`` with a YAML value; ``KEY`` alone means true."""
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
        help="RabbitMQ server for the tests. Its virtual host is ignored: tests have their own. "
        "Default: a broker inside the test process.",
    )
    group.addoption(
        "--rabbit-api-uri",
        "--rabbit-ctl-uri",
        dest="RABBIT_API_URI",
        type=_uri,
        metavar="URI",
        help="Management API of that server. Default: the port 10000 above the AMQP port, as 15672 "
        "is above 5672, with the same credentials.",
    )
    group.addoption(
        "--amqp-ssl-port",
        dest="AMQP_SSL_PORT",
        default=5671,
        metavar="PORT",
        help="TLS port of that server, for rabbit_ssl_config. Default: 5671.",
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
        help="TLS option for rabbit_ssl_config, with the keys of ssl.wrap_socket and a YAML value. "
        "Repeatable. Default: certificates in certs/, as in "
        "--amqp-ssl-option certfile=certs/clientcert.pem.",
    )
    group.addoption(
        "--blocking-detection",
        action="store_true",
        dest="blocking_detection",
        default=False,
        help="No effect except for a warning: without eventlet, workers do not block each other.",
    )
    group.addoption(
        "--suppress-nameko-eventlet-notification",
        action="store_true",
        dest="suppress_eventlet_notification",
        default=False,
        help="No effect. Accepted for compatibility with existing settings.",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("RABBIT_API_URI") and not config.getoption("RABBIT_AMQP_URI"):
        raise pytest.UsageError(
            "--rabbit-api-uri requires --amqp-uri, the RabbitMQ server of the management API"
        )
    if config.getoption("blocking_detection"):
        config.issue_config_time_warning(
            pytest.PytestConfigWarning(
                "--blocking-detection has no effect: workers are threads, which do not block "
                "each other"
            ),
            stacklevel=2,
        )


# ---------------------------------------------------------------------------------- configuration


@pytest.fixture
def _nameko_config() -> Iterator[Any]:
    """:data:`nameko.config`, restored after the test.

    All fixtures that change it depend on this one, so that it is restored last.
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
    """Numbers calls, starting with ``service.method.0``. Yields the counting mock."""
    from itertools import count
    from unittest.mock import patch

    with patch("nameko.containers.new_call_id", autospec=True) as new_call_id:
        new_call_id.side_effect = map(str, count())
        yield new_call_id


# ----------------------------------------------------------------------------------------- broker


@pytest.fixture(scope="session")
def _broker_uris(request: pytest.FixtureRequest) -> Iterator[tuple[str, str, Any]]:
    """URIs of the broker and its management API, and the broker itself if it is embedded."""
    from nameko._nameko import Broker, probe

    uri = request.config.getoption("RABBIT_AMQP_URI")
    if uri:
        # Services, and so the tests, would wait for it.
        if not probe(uri):
            from nameko.utils import sanitize_url

            pytest.fail(
                "no RabbitMQ is listening at {}, the value of --amqp-uri".format(sanitize_url(uri)),
                pytrace=False,
            )
        from nameko.testing import rabbit

        api_uri = request.config.getoption("RABBIT_API_URI") or rabbit.default_api_uri(uri)
        yield uri, api_uri, None
        return
    broker = Broker(management_port=0)
    yield broker.uri, str(broker.management_uri), broker
    broker.stop()


@pytest.fixture(scope="session")
def rabbit_manager(_broker_uris: Any) -> rabbit.Client:
    """A client for the management API of the broker."""
    from nameko.testing import rabbit

    return rabbit.Client(_broker_uris[1])


@pytest.fixture(scope="session")
def vhost_pipeline(request: pytest.FixtureRequest, _broker_uris: Any) -> Iterator[Any]:
    """``with vhost_pipeline.get() as vhost:`` creates a virtual host for the block."""
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

    # Both are slow on RabbitMQ, so they run in the background.
    with ResourcePipeline(create, destroy).run() as pipeline:
        yield pipeline


class _Vhosts:
    """Virtual hosts of an embedded broker, which are created without delay."""

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
    """Closes the pooled kombu connections to a deleted virtual host."""
    pools = getattr(sys.modules.get("kombu.pools"), "connections", {})
    for settings, pool in list(pools.items()):
        # The virtual host is the fifth setting of a connection. The method of kombu to delete a
        # pool requires a connection.
        if settings[4] == vhost:
            dict.pop(pools, settings)
            pool.force_close_all()


@pytest.fixture
def rabbit_uri(_broker_uris: Any, vhost_pipeline: Any) -> Iterator[str]:
    """The URI of the test's virtual host."""
    parts = urlsplit(_broker_uris[0])
    with vhost_pipeline.get() as vhost:
        yield "{}://{}/{}".format(parts.scheme, parts.netloc, vhost)


@pytest.fixture
def rabbit_config(rabbit_uri: str, _nameko_config: Any) -> dict[str, Any]:
    """A configuration with ``AMQP_URI`` of the test's virtual host.

    It also has ``username`` and ``vhost``, for the management API.
    """
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
    """The values of ``--amqp-ssl-option``, for ``AMQP_SSL``."""
    return dict(request.config.getoption("AMQP_SSL_OPTIONS")) or True


@pytest.fixture
def rabbit_ssl_uri(request: pytest.FixtureRequest, rabbit_config: dict[str, Any]) -> str:
    """The URI of the test's virtual host over TLS. Skips the test without ``--amqp-uri``."""
    from nameko.constants import AMQP_URI_CONFIG_KEY

    if not request.config.getoption("RABBIT_AMQP_URI"):
        pytest.skip(
            "the broker in the test process has no TLS port: set --amqp-uri and --amqp-ssl-port "
            "to those of a RabbitMQ server, or of the command `nameko broker`, with TLS"
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
    """Like ``rabbit_config``, over TLS."""
    from nameko.constants import AMQP_SSL_CONFIG_KEY, AMQP_URI_CONFIG_KEY

    tls = {AMQP_URI_CONFIG_KEY: rabbit_ssl_uri, AMQP_SSL_CONFIG_KEY: rabbit_ssl_options}
    _nameko_config.update(tls)
    return {**rabbit_config, **tls}


@pytest.fixture
def amqp_uri(rabbit_config: dict[str, Any] | None) -> str:
    """The URI in ``rabbit_config``."""
    from nameko import config
    from nameko.constants import AMQP_URI_CONFIG_KEY

    # A fixture of the project, written for version 3, returns None.
    return (config if rabbit_config is None else rabbit_config)[AMQP_URI_CONFIG_KEY]


@pytest.fixture
def get_message_from_queue(amqp_uri: str) -> Callable[..., Any]:
    """``get_message_from_queue(queue_name)`` takes a message from a queue.

    ``queue.Empty`` if there is none within ``timeout`` seconds, or immediately with
    ``block=False``. With ``ack=False`` the message is requeued. ``accept`` holds the content types
    to decode, by default those of kombu.
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
            # kombu closes a pooled connection after an exception.
            connection.ensure_connection(max_retries=3)
            # Further messages delivered on the channel are requeued when it is closed.
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
    """The containers and runners created by the factories in this test."""
    hosts: list[Any] = []
    yield hosts
    _kill(hosts)


@pytest.fixture
def container_factory(_nameko_config: Any, _hosts: list[Any]) -> Callable[..., Any]:
    """``container_factory(service_cls, config)`` creates a container, and kills it after the test.

    ``config`` defaults to :data:`nameko.config`, as in version 3.
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
    """``runner_factory(config, *service_classes)`` creates a runner, and kills it after the test.

    ``config`` defaults to :data:`nameko.config`, as in version 3.
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
    """Returns the configuration for a container.

    The configuration of a test is merged into ``nameko.config``, which services of version 3 read.
    One without a broker extends that of the fixtures.
    """
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
            # Logged only, so that it does not fail another test.
            getLogger(__name__).warning("%s could not be killed", host, exc_info=True)


# -------------------------------------------------------------------------------------------- web


@pytest.fixture
def web_config(empty_config: dict[str, Any], _nameko_config: Any) -> dict[str, Any]:
    """A configuration with a web server on a free port of localhost."""
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

    # A fixture of the project, written for version 3, returns None.
    address = (config if web_config is None else web_config)[WEB_SERVER_CONFIG_KEY]
    return int(parse_address(address).port)


@pytest.fixture
def web_session(web_config_port: int) -> Iterator[Any]:
    """A ``requests.Session`` for the service at ``web_config_port``, which takes relative URLs."""
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
    """``websocket()`` connects to the service at ``web_config_port``, and returns a
    :class:`~nameko.testing.websocket.VirtualSocket`."""
    import threading

    from nameko.testing.websocket import close_gracefully, make_virtual_socket

    active: list[tuple[Any, threading.Thread]] = []

    def connect() -> Any:
        app, wait_until_connected = make_virtual_socket("127.0.0.1", web_config_port)
        thread = threading.Thread(target=app.run_forever, name="websocket", daemon=True)
        active.append((app, thread))
        thread.start()
        return wait_until_connected()

    yield connect
    for app, thread in active:
        close_gracefully(app)
        # A socket that cannot be closed ends with its server.
        thread.join(1)


@pytest.fixture(autouse=True)
def fast_teardown(request: pytest.FixtureRequest) -> Iterator[None]:
    """Kills containers before their virtual host is deleted, independent of the order of fixtures.

    Otherwise they would log errors and reconnect. If extensions consume with kombu, the virtual
    host is deleted first, which ends their consumers without delay.
    """
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
    # kombu consumers would reconnect.
    consumers: list[Any] = []
    init = mixin.__init__

    def recording_init(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        consumers.append(self)

    mixin.__init__ = recording_init
    try:
        yield
    finally:
        mixin.__init__ = init
        for consumer in consumers:
            consumer.should_stop = True
        if not consumers:
            _kill(hosts)
