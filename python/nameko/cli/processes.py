"""``nameko run --workers`` and ``--reload``: processes that are started, watched, started again and
stopped by this one."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import sys
import time
from logging import getLogger
from typing import Any

from nameko.amqp import connection
from nameko.cli.config import number_of_seconds
from nameko.cli.fleet import Fleet, Verdict
from nameko.cli.output import echo, error
from nameko.cli.run import DEFAULT_STOP_TIMEOUT, STOP_TIMEOUT, embedded_broker
from nameko.constants import AMQP_URI_CONFIG_KEY
from nameko.exceptions import CommandError
from nameko.utils import sanitize_url

_log = getLogger("nameko.run")

# A process that could be called for that long (s) is in good health: when it dies, the next one is
# started soon.
HEALTHY = 30.0

# How long (s) the next one is waited with, at first and at most.
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 30.0

# What a process may need (s), beyond its stop_timeout, to end: then it is killed.
GRACE = 10.0


def run(args: Any, config: dict[str, Any]) -> int:
    """Run the processes that ``args`` ask for until a signal ends them; the exit code."""
    # A wrong configuration shows once, here.
    connection.configured_options(config, connection.configured_heartbeat(config))
    timeout = number_of_seconds(config, STOP_TIMEOUT, DEFAULT_STOP_TIMEOUT)
    broker = embedded_broker(config)
    environment = dict(os.environ)
    if broker is not None:
        config[AMQP_URI_CONFIG_KEY] = environment[AMQP_URI_CONFIG_KEY] = broker.uri
    place = sanitize_url(connection.amqp_uri(config))
    try:
        echo("connecting to {}".format(place))
        supervisor = Supervisor(Program(args, environment), place, timeout)
        return asyncio.run(supervisor.supervise())
    finally:
        if broker is not None:
            broker.stop()


class Program:
    """How processes are started: as this one was, plus a number and the link to this one."""

    def __init__(self, args: Any, environment: dict[str, str]) -> None:
        # None: there is one, which watches its files.
        self.workers: int | None = args.workers
        self._environment = environment
        options = ["--config", args.config] if args.config else []
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
        """OSError where it cannot be started."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                child = await asyncio.create_subprocess_exec(
                    *self.command(number, theirs.fileno()),
                    pass_fds=[theirs.fileno()],
                    env=self._environment,
                    # One that is being developed keeps the terminal, for its debugger. Otherwise a
                    # Ctrl-C there reaches this process alone, which tells the others.
                    stdin=None if self.workers is None else asyncio.subprocess.DEVNULL,
                    start_new_session=self.workers is not None,
                )
            except BaseException:
                ours.close()
                raise
        reader, writer = await asyncio.open_connection(sock=ours)
        return Process(child, reader, writer)


class Process:
    """A running process, and this one's end of the link to it."""

    def __init__(
        self,
        child: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._child = child
        self._reader = reader
        self._writer = writer
        # When it could be called (s, monotonic).
        self.ready_since: float | None = None
        # The file for whose sake another one shall be started.
        self.changed: str | None = None
        # What ends it, once it was told to stop.
        self._deadline: asyncio.TimerHandle | None = None

    async def news(self) -> dict[str, Any] | None:
        """What it says next; None once it has hung up."""
        try:
            line = await self._reader.readline()
        except ConnectionError:  # it ended with something unread
            return None
        return json.loads(line) if line.endswith(b"\n") else None

    async def wait(self) -> int:
        """Its exit code, as a shell has it: 128 and the signal's number where one ended it."""
        code = await self._child.wait()
        if self._deadline is not None:
            self._deadline.cancel()
        self._writer.close()
        return 128 - code if code < 0 else code

    def stop(self, number: int, timeout: float) -> None:
        """Tell it to stop, and kill it where it has not within ``timeout`` seconds."""
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
        _log.error("process %s has not stopped within %g seconds: killing it", number, timeout)
        self.kill()


class Supervisor:
    """Keeps processes of ``program`` running until a signal comes, or none of them can start.

    ``place`` is where the broker is, as the user is told; ``stop_timeout`` what their workers have
    to end, in seconds.
    """

    def __init__(self, program: Program, place: str, stop_timeout: float) -> None:
        self.program = program
        self.place = place
        self.stop_timeout = stop_timeout
        self.fleet = Fleet(program.workers or 1)
        # Those that run, by number.
        self._processes: dict[int, Process] = {}
        # A task for each number.
        self._keepers: list[asyncio.Task[None]] = []
        self._signals: list[int] = []
        # Set once all shall stop.
        self._stopping = asyncio.Event()
        # What this process ends with.
        self._code = 0
        self._gave_up = False

    async def supervise(self) -> int:
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._handle_signal, signum)
        # The others follow when this one has found the services: what is wrong with them is told
        # once.
        self._keep(1)
        try:
            for keeper in self._keepers:  # it grows meanwhile
                await keeper
        finally:
            for process in self._processes.values():
                process.kill()
        if self._gave_up:
            error(
                CommandError(
                    "no process could start; the last one ended with exit code {}".format(
                        self._code
                    )
                )
            )
        elif not self._code:
            echo("stopped")
        return self._code

    def _keep(self, number: int) -> None:
        self.fleet.started(number)
        self._keepers.append(asyncio.create_task(self._keep_running(number)))

    async def _keep_running(self, number: int) -> None:
        """Run a process, and another one whenever it ends, until all shall stop."""
        failures = 0
        while not self._stopping.is_set():
            was_ready, changed = False, None
            try:
                process = await self.program.start(number)
            except OSError as exc:
                code, end = 1, "can't be started: {}".format(exc)
            else:
                self._processes[number] = process
                if self._stopping.is_set():
                    self._stop_one(number, process)
                code = await self._watch(number, process)
                del self._processes[number]
                end = _describe_end(code)
                was_ready, changed = process.ready_since is not None, process.changed
                if was_ready and time.monotonic() - (process.ready_since or 0) >= HEALTHY:
                    failures = 0
            if self._stopping.is_set():
                self._code = self._code or code
                return
            if changed is not None:
                failures = 0
                continue
            if not was_ready:
                end += " before it was ready"
            if self.fleet.ended(number, was_ready) is Verdict.GIVE_UP:
                _log.error("process %s %s", number, end)
                self._gave_up = True
                self._code = code or 1
                self._stop_all()
                return
            pause = _pause(failures)
            failures += 1
            _log.error("process %s %s; another one is started in %.1fs", number, end, pause)
            try:
                await asyncio.wait_for(self._stopping.wait(), pause)
            except asyncio.TimeoutError:
                pass

    async def _watch(self, number: int, process: Process) -> int:
        """Listen to it until it has ended; its exit code."""
        listening = asyncio.create_task(self._listen(number, process))
        code = await process.wait()
        # All it has said is there to be read by now.
        await listening
        return code

    async def _listen(self, number: int, process: Process) -> None:
        while (news := await process.news()) is not None:
            if "loaded" in news:
                self._announce(news["loaded"])
            if "changed" in news:
                process.changed = news["changed"]
                echo("{} has changed: starting again".format(process.changed))
            if "ready" in news:
                process.ready_since = time.monotonic()
                verdict = self.fleet.ready(number)
                if self.program.workers is None:
                    echo("ready at {}; Ctrl-C stops".format(self.place))
                    continue
                _log.info("process %s is ready", number)
                if verdict is Verdict.ALL_READY and not self._stopping.is_set():
                    echo(
                        "ready at {}, {} processes; Ctrl-C stops".format(
                            self.place, self.fleet.count
                        )
                    )

    def _announce(self, services: list[str]) -> None:
        """A process has found its services: tell of them, and start those that waited for that."""
        if self.program.workers is None or len(self._keepers) < self.fleet.count:
            for line in services:
                echo(line)
        if not self._stopping.is_set():
            for number in range(len(self._keepers) + 1, self.fleet.count + 1):
                self._keep(number)

    def _handle_signal(self, signum: int) -> None:
        self._signals.append(signum)
        if not self._stopping.is_set():
            echo("stopping; once more stops at once")
            self._stop_all()
        elif len(self._signals) > 1:
            self._code = 128 + signum
            for process in self._processes.values():
                process.kill()

    def _stop_all(self) -> None:
        self._stopping.set()
        for number, process in self._processes.items():
            self._stop_one(number, process)

    def _stop_one(self, number: int, process: Process) -> None:
        process.stop(number, self.stop_timeout + GRACE)


def _pause(failures: int) -> float:
    """How long to wait (s) after so many failures; up to a quarter less, at random."""
    full = min(FIRST_PAUSE * 2.0 ** min(failures, 16), LONGEST_PAUSE)
    return full * (1 - random.random() / 4)


def _describe_end(code: int) -> str:
    if code > 128:
        return "was ended by signal {}".format(code - 128)
    return "ended with exit code {}".format(code)
