"""Fixtures of the shop of examples/shop."""

from urllib.parse import urlsplit

import pytest
from shop_fleet import MIXTURES, SERVICES, Shop, new_database


@pytest.fixture
def database_url():
    with new_database() as url:
        yield url


@pytest.fixture(scope="module", params=MIXTURES)
def shop(request, vhost_pipeline, _broker_uris):
    """A running shop. The tests of a module run with each mixture of languages."""
    with new_database() as database_url, vhost_pipeline.get() as vhost:
        amqp_uri = urlsplit(_broker_uris[0])._replace(path="/" + vhost).geturl()
        with Shop(MIXTURES[request.param], amqp_uri, database_url) as shop:
            shop.start(*SERVICES)
            yield shop
