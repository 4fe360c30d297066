"""``nameko run``."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from logging import getLogger
from typing import Any

from amqp.exceptions import AMQPError
from kombu.exceptions import OperationalError

import nameko
from nameko import _nameko
from nameko._config import number_of_seconds, track
from nameko.amqp import connection
from nameko.cli.command_module import make_callable
from nameko.cli.config import load_config, unset_variables
from nameko.cli.console import BackdoorServer
from nameko.cli.logs import set_runner, setup_logging
from nameko.cli.output import echo, set_prefix, show_traceback
from nameko.cli.parent import Parent
from nameko.cli.services import describe, find_services, import_service, users_traceback
from nameko.cli.services import is_entrypoint as is_entrypoint
from nameko.cli.services import is_type as is_type
from nameko.cli.shutdown import Shutdown
from nameko.constants import AMQP_URI_CONFIG_KEY, DEFAULT_AMQP_URI
from nameko.exceptions import CommandError, ConfigurationError
from nameko.extensions import ENTRYPOINT_EXTENSIONS_ATTR as ENTRYPOINT_EXTENSIONS_ATTR
from nameko.runners import ServiceRunner
from nameko.utils import eventlet_guard, sanitize_url
from nameko.utils.threads import spawn

__all__ = ["ServiceRunner", "import_service", "main", "run", "setup_backdoor"]

logger = logging.getLogger(__name__)

# Config key of the HTTP server that lets processes share an address.
REUSE_PORT = "WEB_SERVER_REUSE_PORT"

# Config key of the seconds for running workers to finish at shutdown, and its default.
STOP_TIMEOUT = "stop_timeout"
DEFAULT_STOP_TIMEOUT = 30

# Upper bound of the delay, in seconds, with which the main thread handles a signal.
_SIGNAL_LATENCY = 0.5


def main(args: Any) -> int:
    if "." not in sys.path:
        sys.path.insert(0, ".")
    if args.reload and args.link is not None:
        from nameko.cli import reload

        return reload.serve(args)
    values = configure(args)
    if args.link is None and (args.workers or args.reload):
        from nameko.cli import processes

        return processes.run(args, values)
    if args.link is None:
        return load_and_run(args, values, None)
    if args.process is not None:
        set_prefix("[{}] ".format(args.process))
    # The processes share their HTTP addresses.
    values.setdefault(REUSE_PORT, True)
    return load_and_run(args, values, Parent(args.link))


def configure(args: Any) -> dict[str, Any]:
    """Loads the configuration and sets up logging."""
    values = load_config(args)
    setup_logging(args, values, args.process)
    for warning in unset_variables():
        getLogger("nameko.config").warning("%s", warning)
    return values


def load_and_run(args: Any, values: dict[str, Any], parent: Parent | None) -> int:
    # Set before the import: modules may read the configuration at import time.
    config = nameko.config
    config.setup(values)
    track(config)
    services = find_services(args.services)
    options: dict[str, Any] = {} if parent is None else {"parent": parent}
    return run(services, config, backdoor_port=backdoor_address(args), **options)


def backdoor_address(args: Any) -> tuple[str, int] | None:
    """Returns the backdoor address of this process, distinct under a supervisor."""
    if args.backdoor_port is None:
        return None
    host, port = args.backdoor_port
    return host, port + args.process - 1 if port and args.process is not None else port


def run(
    services: list[type],
    config: dict[str, Any],
    backdoor_port: int | tuple[str, int] | None = None,
    *,
    parent: Parent | None = None,
) -> int:
    """Hosts the services until they stop or are stopped, and returns the exit code.

    ``parent`` is the link to the supervisor, which prints for this process and can stop it.
    CommandError if the broker rejects a declaration of a service, or a service dies.
    """
    try:
        eventlet_guard()
    except RuntimeError as exc:
        raise CommandError("{}\n  `nameko doctor` finds the call".format(exc))
    runner = ServiceRunner(config)
    for service_cls in services:
        runner.add_service(service_cls)
    # Validates the configuration before anything is started.
    connection.configured_options(config)
    timeout = number_of_seconds(config, STOP_TIMEOUT, DEFAULT_STOP_TIMEOUT)
    broker = embedded_broker(config) if parent is None else None
    if broker is not None:
        config[AMQP_URI_CONFIG_KEY] = broker.uri
    config[AMQP_URI_CONFIG_KEY] = connection.amqp_uri(config)
    backdoor = None
    try:
        if backdoor_port is not None:
            _, backdoor = setup_backdoor(runner, backdoor_port)
            echo("backdoor: nameko backdoor {}".format(backdoor.target))
        return serve(runner, Shutdown(runner, timeout, announce=parent is None), parent)
    finally:
        if backdoor is not None:
            backdoor.kill()
        if broker is not None:
            broker.stop()


def serve(runner: ServiceRunner, shutdown: Shutdown, parent: Parent | None = None) -> int:
    """Starts the runner, reports its services, and waits until it ends."""
    broker = sanitize_url(connection.amqp_uri(runner.config))
    shutdown.install()
    set_runner(runner)
    try:
        if parent is None:
            echo("connecting to {}".format(broker))
        else:
            parent.loaded([describe(container) for container in runner.containers])
            parent.on_stop(shutdown.begin)
        start(runner, shutdown)
        if not shutdown.stopping:
            if parent is None:
                for container in runner.containers:
                    echo(describe(container))
                echo("ready at {}; press Ctrl-C to stop".format(broker))
            else:
                parent.ready()
        try:
            _run_to_end(runner.wait)
        except Exception as exc:
            raise CommandError(
                "A service died of {}: {} (see the log for the traceback)".format(
                    type(exc).__name__, exc
                )
            )
    finally:
        set_runner(None)
        shutdown.uninstall()
    if shutdown.failure is not None:
        raise _shown("A service could not stop", shutdown.failure)
    if len(shutdown.signals) > 1:
        return 128 + shutdown.signals[1]
    if shutdown.stopping and parent is None:
        echo("stopped")
    return 0


def start(runner: ServiceRunner, shutdown: Shutdown) -> None:
    """Starts all services. Returns once they are ready, or have been stopped."""
    try:
        _run_to_end(runner.start, shutdown.over)
    except (OperationalError, AMQPError) as exc:
        runner.kill()
        raise CommandError(str(exc))
    except (CommandError, ConfigurationError):
        runner.kill()
        raise
    except Exception as exc:
        runner.kill()
        raise _shown("A service could not start", exc)
    except BaseException:
        runner.kill()
        raise


def _run_to_end(call: Callable[[], Any], over: threading.Event | None = None) -> None:
    """Runs a call on another thread and waits for it, but hardly longer than until ``over`` is set.

    The main thread stays available for signals. Python runs the handler of a signal that arrives
    just before the main thread blocks only once that wakes up, hence the short waits.
    """
    running = spawn(call)
    while not running.dead:
        was_over = over is not None and over.is_set()
        try:
            running.wait(_SIGNAL_LATENCY)
        except TimeoutError:  # of this wait; one raised by the call is raised again below
            if was_over and not running.dead:
                return
    running.wait()


def _shown(summary: str, exc: BaseException) -> CommandError:
    """Prints the traceback of an exception of the user's code, and returns the error to raise."""
    show_traceback(users_traceback(exc))
    return CommandError("{}: {}: {}, see above".format(summary, type(exc).__name__, exc))


def setup_backdoor(
    runner: Any, port: int | tuple[str, int]
) -> tuple[BackdoorServer, BackdoorServer]:
    """Listens for ``nameko backdoor`` at a port of localhost, or at ``(host, port)``.

    Returns the server twice, in place of upstream's socket and thread.
    """
    host, number = port if isinstance(port, tuple) else ("localhost", port)

    def bad_call() -> None:
        raise RuntimeError(
            "This would kill your service, not close the backdoor. To exit, use ctrl-c."
        )

    names = {"runner": runner, "quit": bad_call, "exit": bad_call}
    try:
        server = BackdoorServer(host, number, names)
    except OSError as exc:
        raise CommandError(
            "Cannot listen at {}:{} for the backdoor: {}".format(host, number, exc.strerror or exc)
        )
    server.start()
    return server, server


def embedded_broker(config: dict[str, Any]) -> _nameko.Broker | None:
    """Starts a broker in this process, unless one is configured or running."""
    if config.get(AMQP_URI_CONFIG_KEY) or _nameko.probe(DEFAULT_AMQP_URI):
        return None
    try:
        broker = _nameko.Broker("127.0.0.1", 5672)
    except OSError:
        return None  # another process started one meanwhile
    echo(
        "no broker is configured and none runs at localhost:5672: started an embedded one at "
        "127.0.0.1:{}; it keeps messages in memory, for development only".format(broker.port)
    )
    return broker


make_callable(__name__)
