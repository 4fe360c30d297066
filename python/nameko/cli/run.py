"""``nameko run``."""

from __future__ import annotations

import inspect
import logging
import logging.config
import os
import re
import signal
import sys
import threading
import traceback
from typing import Any

from amqp.exceptions import AMQPError
from kombu.exceptions import OperationalError

import nameko
from nameko import _nameko
from nameko.amqp import connection
from nameko.cli.config import load_config
from nameko.cli.output import log_to_stderr, say
from nameko.constants import AMQP_URI_CONFIG_KEY, DEFAULT_AMQP_URI
from nameko.containers import get_service_name
from nameko.exceptions import CommandError, ConfigurationError
from nameko.extensions import ENTRYPOINT_EXTENSIONS_ATTR
from nameko.runners import ServiceRunner
from nameko.utils import sanitize_url
from nameko.utils.threads import spawn


def is_type(obj: Any) -> bool:
    return isinstance(obj, type)


def is_entrypoint(method: Any) -> bool:
    return hasattr(method, ENTRYPOINT_EXTENSIONS_ATTR)


def import_service(module_name: str) -> list[type]:
    """The service classes of ``module`` or ``module:Class``.

    CommandError where there is no such module or class; what the module raises is left alone.
    """
    module_name, _, class_name = module_name.partition(":")
    try:
        __import__(module_name)
    except ImportError as exc:
        if module_name.endswith(".py") and os.path.exists(module_name):
            raise CommandError(
                "Failed to find service, did you mean '{}'?".format(
                    os.path.normpath(module_name)[:-3].replace(os.sep, ".")
                )
            )
        # The module named, or a package it is in, as against one that the module imports.
        missing = getattr(exc, "name", None)
        if missing and (module_name + ".").startswith(missing + "."):
            raise CommandError(exc)
        raise
    except ValueError as exc:
        raise CommandError("{!r} is not the name of a module: {}".format(module_name, exc))
    module = sys.modules[module_name]

    if class_name:
        try:
            service_cls = getattr(module, class_name)
        except AttributeError:
            raise CommandError(
                "Failed to find service class {!r} in module {!r}".format(class_name, module_name)
            )
        if not isinstance(service_cls, type):
            raise CommandError("Service must be a class.")
        return [service_cls]

    found_services = [
        potential_service
        for _, potential_service in inspect.getmembers(module, is_type)
        if inspect.getmembers(potential_service, is_entrypoint)
    ]
    if not found_services:
        raise CommandError(
            "Failed to find anything that looks like a service in module {!r}".format(module_name)
        )
    return found_services


def run(services: list[type], config: dict[str, Any]) -> int:
    """Host the services until they stop, or the process is told to stop them; its exit code.

    CommandError where the broker refuses what a service needs at its start, or a service dies.
    """
    runner = ServiceRunner(config)
    for service_cls in services:
        runner.add_service(service_cls)
    # A wrong configuration shows before anything is started.
    connection.configured_options(config, connection.configured_heartbeat(config))
    broker = embedded_broker(config)
    if broker is not None:
        config[AMQP_URI_CONFIG_KEY] = broker.uri
    config[AMQP_URI_CONFIG_KEY] = connection.amqp_uri(config)
    try:
        return serve(runner, sanitize_url(connection.amqp_uri(config)))
    finally:
        if broker is not None:
            broker.stop()


def serve(runner: ServiceRunner, broker: str) -> int:
    """Start the runner, say what it serves, and wait for its end."""
    shutdown = Shutdown(runner)
    shutdown.install()
    try:
        say("connecting to {}".format(broker))
        start(runner)
        if not shutdown.signals:
            for container in runner.containers:
                say(describe(container))
            say("ready at {}; Ctrl-C stops".format(broker))
        try:
            runner.wait()
        except Exception as exc:
            raise CommandError(
                "A service died of {}: {} (the log tells where)".format(type(exc).__name__, exc)
            )
    finally:
        shutdown.uninstall()
    return shutdown.exit_code()


def start(runner: ServiceRunner) -> None:
    try:
        runner.start()
    except (OperationalError, AMQPError) as exc:
        runner.kill()
        raise CommandError(str(exc))
    except (CommandError, ConfigurationError):
        runner.kill()
        raise
    except Exception as exc:
        runner.kill()
        raise _broken("A service could not start", exc)
    except BaseException:
        runner.kill()
        raise


class Shutdown:
    """Stops a runner at the first SIGTERM or SIGINT and kills it at the second. A third ends the
    process whatever it does."""

    def __init__(self, runner: ServiceRunner) -> None:
        self.runner = runner
        # Those that came.
        self.signals: list[int] = []
        # What an extension raised when it was to stop.
        self._failure: Exception | None = None
        self._previous: dict[int, Any] = {}

    def install(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # Python runs handlers in the main thread only
        for signum in (signal.SIGTERM, signal.SIGINT):
            self._previous[signum] = signal.signal(signum, self._handle)

    def uninstall(self) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def exit_code(self) -> int:
        """Call it when the runner has stopped. CommandError where it did not stop cleanly."""
        if self._failure is not None:
            raise _broken("A service could not stop", self._failure)
        if len(self.signals) > 1:
            return 128 + self.signals[1]
        if self.signals:
            say("stopped")
        return 0

    def _handle(self, signum: int, frame: Any) -> None:
        # The main thread may be in the middle of anything, so the work is done in another one.
        self.signals.append(signum)
        if len(self.signals) == 1:
            spawn(self._stop)
        elif len(self.signals) == 2:
            spawn(self.runner.kill)
        else:
            os._exit(128 + signum)

    def _stop(self) -> None:
        say("stopping; once more stops at once")
        try:
            self.runner.stop()
        except Exception as exc:
            # Whoever waits for the runner waits no longer once it is killed.
            self._failure = exc
            self.runner.kill()


def describe(container: Any) -> str:
    """One line that says what a container serves."""
    entrypoints = sorted(
        "{} ({})".format(entrypoint.method_name, _spelling(type(entrypoint).__name__))
        for entrypoint in container.entrypoints
    )
    return "{}: {}".format(container.service_name, ", ".join(entrypoints) or "nothing to call")


def _spelling(class_name: str) -> str:
    """The name of an entrypoint class as its decorator is spelled: EventHandler, event_handler."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", class_name).lower()


def find_services(paths: list[str]) -> list[type]:
    """The service classes at all these paths, each once."""
    services: list[type] = []
    for path in paths:
        try:
            found = import_service(path)
        except CommandError:
            raise
        except Exception as exc:
            print(_users_traceback(exc), file=sys.stderr, end="")
            raise CommandError("{!r} does not import, see above".format(path.partition(":")[0]))
        services.extend(service for service in found if service not in services)

    by_name: dict[str, type] = {}
    for service in services:
        other = by_name.setdefault(get_service_name(service), service)
        if other is not service:
            raise CommandError(
                "Two services are called {!r}: {}.{} and {}.{}; one process can run one of "
                "them".format(
                    get_service_name(service),
                    other.__module__,
                    other.__name__,
                    service.__module__,
                    service.__name__,
                )
            )
    return services


def _broken(what: str, exc: Exception) -> CommandError:
    """The error to raise where the user's code raised ``exc``, whose traceback is shown."""
    print(_users_traceback(exc), file=sys.stderr, end="")
    return CommandError("{}: {}: {}, see above".format(what, type(exc).__name__, exc))


def _users_traceback(exc: BaseException) -> str:
    """The traceback without the frames of this package and of the import system at its top."""
    here = os.path.dirname(nameko.__file__) + os.sep
    tb = exc.__traceback__
    while tb is not None:
        filename = tb.tb_frame.f_code.co_filename
        if not filename.startswith((here, "<frozen importlib")):
            break
        tb = tb.tb_next
    if tb is None and not isinstance(exc, SyntaxError):
        tb = exc.__traceback__  # none is the user's: all of them are needed
    return "".join(traceback.format_exception(type(exc), exc, tb))


def embedded_broker(config: dict[str, Any]) -> _nameko.Broker | None:
    """The broker to start inside this process: none where one is configured or running."""
    if config.get(AMQP_URI_CONFIG_KEY) or _nameko.probe(DEFAULT_AMQP_URI):
        return None
    try:
        broker = _nameko.Broker("127.0.0.1", 5672)
    except OSError:
        return None  # another process was quicker
    say(
        "no broker is configured and none runs at localhost:5672: started one in this process, at "
        "127.0.0.1:{}; it is for trying out, its messages live in memory".format(broker.port)
    )
    return broker


def main(args: Any) -> int:
    if "." not in sys.path:
        sys.path.insert(0, ".")
    config = load_config(args)
    if "LOGGING" in config:
        logging.config.dictConfig(config["LOGGING"])
    else:
        log_to_stderr()

    return run(find_services(args.services), config)
