"""Runners: several services in one process."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from logging import getLogger
from typing import Any

import nameko
from nameko._config import is_config
from nameko.containers import get_container_cls, get_service_name
from nameko.exceptions import ConfigurationError
from nameko.layers import Layer, check_layers
from nameko.utils.concurrency import SpawningProxy, start_all

_log = getLogger(__name__)


def make_container(container_cls: Any, service_cls: Any, config: Any) -> Any:
    """Returns a new container. Container classes for version 3 take no configuration."""
    try:
        inspect.signature(container_cls).bind(service_cls, config)
    except TypeError:
        return container_cls(service_cls)
    except ValueError:
        pass  # without a signature
    return container_cls(service_cls, config)


class ServiceRunner:
    """Starts and stops the containers of several services together.

    ::

        runner = ServiceRunner(config)
        runner.add_service(Foobar)
        runner.add_service(Spam)
        runner.start()
        runner.wait()

    ``config`` is ``nameko.config`` by default. ``layers`` wrap the workers of all services, see
    :mod:`nameko.layers`.
    """

    def __init__(self, config: Any = None, *, layers: Iterable[Layer] = ()) -> None:
        # Containers by service name.
        self.service_map: dict[str, Any] = {}
        self.config = nameko.config if config is None else config
        self.layers = check_layers(layers, "the argument `layers`")
        self.container_cls = get_container_cls(self.config)

    @property
    def service_names(self) -> Any:
        return self.service_map.keys()

    @property
    def containers(self) -> Any:
        return self.service_map.values()

    def add_service(self, cls: Any) -> None:
        """Adds a service class. Replaces an earlier one of the same name."""
        service_name = get_service_name(cls)
        container = make_container(self.container_cls, cls, self.config)
        if self.layers:
            if not hasattr(container, "add_outer_layers"):
                raise ConfigurationError(
                    "{} has no layers: derive it from ServiceContainer".format(self.container_cls)
                )
            container.add_outer_layers(self.layers)
        self.service_map[service_name] = container

    def start(self) -> None:
        """Starts all services concurrently and returns when all are serving. If a service fails to
        start, its exception is raised at once; the others should be killed then."""
        service_names = ", ".join(self.service_names)
        _log.info("starting services: %s", service_names)
        start_all([container.start for container in self.containers])
        _log.debug("services started: %s", service_names)

    def stop(self) -> None:
        """Stops all services concurrently and returns when all have stopped."""
        service_names = ", ".join(self.service_names)
        _log.info("stopping services: %s", service_names)
        SpawningProxy(self.containers).stop()
        _log.debug("services stopped: %s", service_names)

    def kill(self) -> None:
        """Kills all services concurrently."""
        service_names = ", ".join(self.service_names)
        _log.info("killing services: %s", service_names)
        SpawningProxy(self.containers).kill()
        _log.debug("services killed: %s ", service_names)

    def wait(self) -> None:
        """Waits until all services have stopped. If one fails, stops the others and raises its
        exception."""
        try:
            SpawningProxy(self.containers, abort_on_error=True).wait()
        # SystemExit: a thread of one service may have called sys.exit().
        except (Exception, SystemExit):
            self.stop()
            raise


@contextmanager
def run_services(
    *args: Any, kill_on_exit: bool = False, layers: Iterable[Layer] = ()
) -> Iterator[ServiceRunner]:
    """Runs services while the block runs.

    ::

        with run_services(config, Foobar, Spam) as runner:
            ...

    The configuration is ``nameko.config`` by default. ``kill_on_exit`` kills the services at the
    end of the block instead of stopping them. ``layers`` are those of the runner.
    """
    config, services = (args[0], args[1:]) if args and is_config(args[0]) else (None, args)
    runner = ServiceRunner(config, layers=layers)
    for service in services:
        runner.add_service(service)
    try:
        runner.start()
        yield runner
    except BaseException:
        runner.kill()
        raise
    if kill_on_exit:
        runner.kill()
    else:
        runner.stop()
