"""``nameko run --workers`` and ``--reload``: starts, watches, restarts and stops processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from logging import getLogger
from typing import Any

from nameko._config import number_of_seconds
from nameko._nameko import ProcessTable
from nameko.amqp import connection
from nameko.cli.config import config_files
from nameko.cli.output import echo, error
from nameko.cli.run import DEFAULT_STOP_TIMEOUT, STOP_TIMEOUT, embedded_broker
from nameko.constants import AMQP_URI_CONFIG_KEY
from nameko.exceptions import CommandError
from nameko.utils import sanitize_url

_log = getLogger("nameko.run")

# Seconds beyond stop_timeout after which a process that does not stop is killed.
KILL_AFTER = 10.0


def run(args: Any, config: dict[str, Any]) -> int:
    """Runs the processes until a signal ends them, and returns the exit code."""
    # Validated here, so that an error is printed once.
    connection.configured_options(config)
    timeout = number_of_seconds(config, STOP_TIMEOUT, DEFAULT_STOP_TIMEOUT)
    broker = embedded_broker(config)
    environment = dict(os.environ)
    if broker is not None:
        config[AMQP_URI_CONFIG_KEY] = environment[AMQP_URI_CONFIG_KEY] = broker.uri
    address = sanitize_url(connection.amqp_uri(config))
    try:
        echo("connecting to {}".format(address))
        supervisor = Supervisor(Program(args, environment), address, timeout)
        return asyncio.run(supervisor.supervise())
    finally:
        if broker is not None:
            broker.stop()


class Program:
    """Command line of the processes: that of this one, plus a number and a link to this one."""

    def __init__(self, args: Any, environment: dict[str, str]) -> None:
        # None with --reload: a single process that watches its files.
        self.workers: int | None = args.workers
        self._environment = environment
        options = ["--config={}".format(path) for path in config_files(args)]
        for option in ("broker", "log", "log_format"):
            if getattr(args, option):
                options.append("--{}={}".format(option.replace("_", "-"), getattr(args, option)))
        options += ["--define={}".format(definition) for definition in args.define]
        if args.backdoor_port is not None:
            options.append("--backdoor-port={}:{}".format(*args.backdoor_port))
        if args.reload:
            options.append("--reload")
        self._arguments = [*options, *args.services]

    def command(self, number: int, link: int) -> list[str]:
        numbered = [] if self.workers is None else ["--process", str(number)]
        return [
            *(sys.executable, "-m", "nameko", "run", "--link", str(link)),
            *numbered,
            *self._arguments,
        ]

    async def start(self, number: int) -> Process:
        """Spawns process ``number``. OSError if that fails."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                child = await asyncio.create_subprocess_exec(
                    *self.command(number, theirs.fileno()),
                    pass_fds=[theirs.fileno()],
                    env=self._environment,
                    # With --reload the terminal stays available to a debugger. Otherwise Ctrl-C
                    # reaches only this process, which stops the others over their links.
                    stdin=None if self.workers is None else asyncio.subprocess.DEVNULL,
                    start_new_session=self.workers is not None,
                )
            except BaseException:
                ours.close()
                raise
        reader, writer = await asyncio.open_connection(sock=ours)
        return Process(child, reader, writer)


class Process:
    """A running process and this end of the link to it."""

    def __init__(
        self,
        child: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._child = child
        self._reader = reader
        self._writer = writer
        # The changed file that is the reason for a restart.
        self.changed: str | None = None
        # Kills the process, once it has been asked to stop.
        self._deadline: asyncio.TimerHandle | None = None

    async def next_event(self) -> dict[str, Any] | None:
        """The next event of the process; None once it has closed the link."""
        try:
            line = await self._reader.readline()
        except ConnectionError:  # it ended with a command unread
            return None
        return json.loads(line) if line.endswith(b"\n") else None

    async def wait(self) -> int:
        """The return code of the process, negative for a signal."""
        code = await self._child.wait()
        if self._deadline is not None:
            self._deadline.cancel()
        self._writer.close()
        return code

    def stop(self, number: int, timeout: float) -> None:
        """Asks the process to stop, and kills it ``timeout`` seconds later."""
        if self._deadline is None:
            self._writer.write(b".")
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(timeout, self._kill_blocked, number, timeout)

    def kill(self) -> None:
        try:
            self._child.kill()
        except ProcessLookupError:
            pass

    def _kill_blocked(self, number: int, timeout: float) -> None:
        _log.error("process %s has not stopped within %g seconds, killing it", number, timeout)
        self.kill()


class Supervisor:
    """Keeps processes of ``program`` running until a signal comes, or none of them can start.

    ``broker`` is the URI of the broker in messages, ``stop_timeout`` the seconds that running
    workers have when the processes stop.
    """

    def __init__(self, program: Program, broker: str, stop_timeout: float) -> None:
        self.program = program
        self.broker = broker
        self.stop_timeout = stop_timeout
        self.count = program.workers or 1
        self.table = ProcessTable(self.count)
        # Running processes by number.
        self._processes: dict[int, Process] = {}
        # One task per process number, in order.
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()

    async def supervise(self) -> int:
        """Runs the processes and returns the exit code."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._handle_signal, signum)
        # The others start once this one has found the services, so that errors are printed once.
        self._start(1)
        try:
            for task in self._tasks:  # grows meanwhile
                await task
        finally:
            for process in self._processes.values():
                process.kill()
        failure = self.table.failure
        if failure is not None:
            error(CommandError(failure))
        elif not self.table.exit_code:
            echo("stopped")
        return self.table.exit_code

    def _start(self, number: int) -> None:
        self.table.started(number)
        self._tasks.append(asyncio.create_task(self._keep_running(number)))

    async def _keep_running(self, number: int) -> None:
        """Runs a process, and restarts it whenever it ends, until the supervisor stops."""
        while not self._stopping.is_set():
            ended: int | str
            try:
                process = await self.program.start(number)
            except OSError as exc:
                ended = str(exc)
            else:
                self._processes[number] = process
                if self._stopping.is_set():
                    self._stop_process(number, process)
                ended = await self._watch(number, process)
                del self._processes[number]
                if process.changed is not None and not self._stopping.is_set():
                    self.table.restarted(number)
                    continue
            message, delay = self.table.ended(number, ended)
            if message is not None:
                _log.error("%s", message)
            if delay is None:
                self._stop_all()
                return
            try:
                await asyncio.wait_for(self._stopping.wait(), delay)
            except asyncio.TimeoutError:
                pass

    async def _watch(self, number: int, process: Process) -> int:
        """Handles the events of a process until it has ended, and returns its return code."""
        listening = asyncio.create_task(self._listen(number, process))
        code = await process.wait()
        # All its events are readable by now.
        await listening
        return code

    async def _listen(self, number: int, process: Process) -> None:
        while (event := await process.next_event()) is not None:
            if "loaded" in event:
                self._on_loaded(event["loaded"])
            if "changed" in event:
                process.changed = event["changed"]
                echo("{} has changed, restarting".format(process.changed))
            if "ready" in event:
                self._on_ready(number)

    def _on_loaded(self, services: list[str]) -> None:
        """Prints the services that a process has found, and starts the other processes."""
        if self.program.workers is None or len(self._tasks) < self.count:
            for line in services:
                echo(line)
        if not self._stopping.is_set():
            for number in range(len(self._tasks) + 1, self.count + 1):
                self._start(number)

    def _on_ready(self, number: int) -> None:
        all_ready = self.table.ready(number)
        if self.program.workers is None:
            echo("ready at {}; press Ctrl-C to stop".format(self.broker))
            return
        _log.info("process %s is ready", number)
        if all_ready:
            echo("ready at {}, {} processes; press Ctrl-C to stop".format(self.broker, self.count))

    def _handle_signal(self, signum: int) -> None:
        if self.table.stop(128 + signum):
            for process in self._processes.values():
                process.kill()
        else:
            echo("shutting down (press Ctrl-C again to force)")
            self._stop_all()

    def _stop_all(self) -> None:
        self._stopping.set()
        for number, process in self._processes.items():
            self._stop_process(number, process)

    def _stop_process(self, number: int, process: Process) -> None:
        process.stop(number, self.stop_timeout + KILL_AFTER)
