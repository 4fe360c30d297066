"""The Python API of the embedded broker: management API and virtual hosts."""

import base64
import json
import urllib.request
from urllib.error import HTTPError

import pytest

from nameko import _nameko


@pytest.fixture
def broker():
    broker = _nameko.Broker(management_port=0)
    yield broker
    broker.stop()


def ask(broker, path):
    login = base64.b64encode(b"guest:guest").decode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{broker.management_port}/api/{path}",
        headers={"Authorization": f"Basic {login}"},
    )
    with urllib.request.urlopen(request, timeout=10) as reply:
        return json.load(reply)


def test_serves_the_management_api_on_request(broker):
    assert broker.management_uri == f"http://guest:guest@127.0.0.1:{broker.management_port}"
    assert ask(broker, "whoami")["name"] == "guest"
    without = _nameko.Broker()
    assert without.management_uri is None
    assert without.management_port is None
    without.stop()


def test_adds_and_deletes_virtual_hosts(broker):
    assert broker.add_vhost("staging") is True
    assert broker.add_vhost("staging") is False
    assert [vhost["name"] for vhost in ask(broker, "vhosts")] == ["/", "staging"]
    assert broker.delete_vhost("staging") is True
    assert broker.delete_vhost("staging") is False
    with pytest.raises(HTTPError, match="404"):
        ask(broker, "vhosts/staging")


def test_stats_are_per_virtual_host(broker):
    broker.add_vhost("staging")
    publisher = _nameko.Publisher(_nameko.Options(broker.uri + "/staging"))
    publisher.declare([], [{"name": "q"}])
    assert list(broker.stats("staging")["queues"]) == ["q"]
    assert broker.stats()["queues"] == {}
    assert broker.stats()["connections"] == 1


def test_reports_a_port_in_use(broker):
    with pytest.raises(OSError, match=f"{broker.management_port}: the broker's management API"):
        _nameko.Broker(management_port=broker.management_port)


def test_a_stopped_broker_rejects_virtual_hosts(broker):
    broker.stop()
    with pytest.raises(RuntimeError, match="stopped"):
        broker.add_vhost("late")
