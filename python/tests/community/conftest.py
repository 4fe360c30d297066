"""Fixtures for tests of community extensions from PyPI, with real servers.

`make test-community` creates their environment and starts the servers.
"""

import os

import pytest


def server(variable):
    """Returns the address of a server. Without one, tests fail instead of being skipped."""
    try:
        return os.environ[variable]
    except KeyError:
        pytest.fail("{} is not set: run `make test-community`".format(variable), pytrace=False)


@pytest.fixture(scope="session")
def postgresql_url():
    return server("POSTGRESQL_URL")


@pytest.fixture(scope="session")
def redis_url():
    # redis-py uses another scheme.
    return server("REDIS_URL").replace("redis+unix:", "unix:")
