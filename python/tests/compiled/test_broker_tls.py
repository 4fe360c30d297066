"""The TLS port of the embedded broker, with kombu and with the compiled client."""

import ssl
from pathlib import Path

import kombu
import pytest
from amqp.exceptions import AccessRefused

from nameko import _nameko

CERTIFICATES = Path(__file__).parents[3] / "crates/nameko-amqp/tests/it/certificates"
CA_CERTS = {"ca_certs": str(CERTIFICATES / "ca.pem"), "cert_reqs": ssl.CERT_REQUIRED}
CLIENT = {
    **CA_CERTS,
    "certfile": str(CERTIFICATES / "client.pem"),
    "keyfile": str(CERTIFICATES / "client.key"),
}
SERVER = {"certfile": CERTIFICATES / "server.pem", "keyfile": CERTIFICATES / "server.key"}


@pytest.fixture
def make_broker():
    brokers = []

    def make(**options):
        brokers.append(_nameko.Broker(tls_port=0, **{**SERVER, **options}))
        return brokers[-1]

    yield make
    for broker in brokers:
        broker.stop()


def test_kombu_sends_and_receives_over_tls(make_broker):
    broker = make_broker()
    assert broker.tls_uri.startswith("amqps://guest:guest@127.0.0.1:")
    uri = broker.tls_uri.replace("amqps", "amqp")
    with kombu.Connection(uri, ssl=CA_CERTS) as connection:
        queue = connection.SimpleQueue("q")
        for body in ["small", "x" * 3_000_000]:
            queue.put(body)
            message = queue.get(timeout=10)
            assert message.payload == body
            message.ack()
        queue.close()


def test_kombu_logs_in_with_a_client_certificate(make_broker):
    broker = make_broker(cacertfile=CERTIFICATES / "ca.pem")
    uri = broker.tls_uri.replace("amqps://guest:guest", "amqp://")
    with kombu.Connection(uri, ssl=CLIENT, login_method="EXTERNAL") as connection:
        connection.connect()
    for options in [CA_CERTS, {**CA_CERTS, **as_client("server")}]:
        connection = kombu.Connection(uri, ssl=options, login_method="EXTERNAL")
        with pytest.raises(AccessRefused, match="mechanism EXTERNAL"):
            connection.connect()


def test_client_certificates_can_be_required(make_broker):
    broker = make_broker(cacertfile=CERTIFICATES / "ca.pem", fail_if_no_peer_cert=True)
    uri = broker.tls_uri.replace("amqps", "amqp")
    with kombu.Connection(uri, ssl=CLIENT) as connection:
        connection.connect()
    for options in [CA_CERTS, {**CA_CERTS, **as_client("self")}]:
        with pytest.raises(OSError):
            kombu.Connection(uri, ssl=options).connect()


def test_the_compiled_client_logs_in_with_a_client_certificate(make_broker):
    broker = make_broker(cacertfile=CERTIFICATES / "ca.pem")
    options = _nameko.Options(broker.tls_uri, ssl=CLIENT, login_method="EXTERNAL")
    _nameko.Publisher(options).declare([], [{"name": "q"}])
    assert list(broker.stats()["queues"]) == ["q"]


def test_unusable_files_are_errors(make_broker):
    with pytest.raises(ValueError, match="tls_port needs a certfile"):
        _nameko.Broker(tls_port=0)
    with pytest.raises(ValueError, match=r"keyfile .*client.key does not belong to"):
        make_broker(keyfile=CERTIFICATES / "client.key")
    with pytest.raises(ValueError, match=r"cacertfile .*none.pem"):
        make_broker(cacertfile=CERTIFICATES / "none.pem")


def as_client(name):
    return {
        "certfile": str(CERTIFICATES / f"{name}.pem"),
        "keyfile": str(CERTIFICATES / f"{name}.key"),
    }
