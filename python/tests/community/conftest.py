"""Extensions of the community, installed from PyPI, in services on real servers.

They need an environment of their own, and servers: `make test-community` makes and starts them.
"""

import os

import pytest


def server(variable):
    """The address of a server. The tests are not skipped without one: it is started with them."""
    try:
        return os.environ[variable]
    except KeyError:
        pytest.fail("{} is not set: run `make test-community`".format(variable), pytrace=False)


@pytest.fixture(scope="session")
def postgresql_url():
    return server("POSTGRESQL_URL")


@pytest.fixture(scope="session")
def redis_url():
    # redis-py has another name for the scheme.
    return server("REDIS_URL").replace("redis+unix:", "unix:")
