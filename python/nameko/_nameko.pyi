"""The compiled half: connections, topology, confirms, reply matching, the worker thread queue, the embedded broker.

Everything that blocks releases the GIL, and can be interrupted (Ctrl-C on the main thread). No callback into Python
ever runs on the I/O thread: callbacks are queued and run by Python threads. What a callback raises goes to
`sys.unraisablehook`.
"""

from collections.abc import Callable, Sequence
from typing import Any, final

__all__ = [
    "AmqpError",
    "Broker",
    "Completions",
    "Consumers",
    "Delivery",
    "HttpBody",
    "HttpRequest",
    "HttpServer",
    "Jobs",
    "Options",
    "PatchGuard",
    "Pending",
    "ProcessTable",
    "Publisher",
    "ReplyListener",
    "WebSocket",
    "__version__",
    "interrupt",
    "on_log",
    "probe",
    "shutdown",
]

__version__: str

class AmqpError(Exception):
    """Something on a broker, or on the way to it, did not work.

    kind: 'uri' | 'io' | 'tls' | 'timeout' | 'not_amqp' | 'handshake' | 'access_refused' | 'not_allowed'
    | 'channel_closed' | 'connection_closed' | 'lost' | 'unsendable' | 'unroutable' | 'nacked' | 'stopped'.
    code: AMQP's reply code, where the broker gave one. text: what was wrong and what to do; also `str()` of it.
    """

    kind: str
    code: int | None
    text: str

@final
class Options:
    """How to connect to a broker. Hashable; equal options share one publishing connection.

    heartbeat: seconds, None or 0 for none. ssl: True, False, or a dict of `ssl.wrap_socket`'s options.
    login_method: PLAIN, AMQPLAIN, EXTERNAL. name: shown by the broker for the connection.
    Raises AmqpError of kind 'uri', ValueError or TypeError.
    """

    def __new__(
        cls,
        amqp_uri: str,
        heartbeat: int | None = 60,
        ssl: bool | dict[str, Any] | None = None,
        login_method: str | None = None,
        name: str | None = None,
    ) -> Options: ...
    @property
    def uri(self) -> str:
        """The URI without its password."""

    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...

@final
class PatchGuard:
    """What some attributes are meant to be. A test, or an extension, may have replaced one, at any time.

    expected: (owner, name, original). Of a dict it is the item that is looked at, with None for one that is not to be there; of
    anything else the attribute.
    """

    def __new__(cls, expected: list[tuple[Any, str, Any]]) -> PatchGuard: ...
    def intact(self) -> bool:
        """Whether all of them are there, and nothing where nothing is to be."""

@final
class HttpServer:
    """A port that is listened on; requests are answered from `serve` on.

    settings: the configuration's keys `WEB_SERVER_*`, `WEBSOCKET_*` and `stop_timeout`. Raises OSError when it cannot listen there,
    ValueError when a setting does not hold what it should.
    """

    def __new__(cls, host: str, port: int, settings: dict[str, Any]) -> HttpServer: ...
    @property
    def address(self) -> tuple[str, int]:
        """Host, and the port that was taken."""

    @property
    def stop_timeout(self) -> float:
        """How long a stop waits for clients, in seconds."""

    def fileno(self) -> int:
        """The file descriptor of the port, before it is served. It stays the server's own: duplicate it."""

    def serve(self, handler: Callable[[HttpRequest], object], jobs: Jobs, limit: int) -> None:
        """Give every request to `handler` as a job of `jobs`, at most `limit` at a time: others wait their turn."""

    def stop_listening(self) -> None:
        """Take no more requests and close the port. Requests in work go on."""

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until no request is in work. False after `timeout` seconds."""

    def close_sockets(self, timeout: float | None = None) -> bool:
        """Tell WebSockets that the service stops, and close each when the message that it has in work is handled.

        False where some are open after `timeout` seconds. One that is opened from now on is closed at once.
        """

    def stop(self) -> None:
        """Withdraw, wait until all clients have their answers, for `stop_timeout` at most, then cut the connections."""

    def kill(self) -> None:
        """Close the port and cut the connections."""

@final
class HttpRequest:
    """A request of a client, which is answered once, with `respond` or with `start_response`, `write` and `end`.

    One that is dropped before: the client is told that the service stops.
    """

    def fill_environ(self, environ: dict[str, Any]) -> None:
        """Add what the request's head says to a WSGI environ."""

    def body(self) -> bytes | HttpBody:
        """The body, to be asked for once; where it is large, what reads it."""

    def respond(self, status: str, headers: list[tuple[str, str]], body: bytes) -> None:
        """Answer with a status, ``200 OK`` say. ValueError for a status or headers that cannot be sent, RuntimeError where it was answered already."""

    def start_response(self, status: str, headers: list[tuple[str, str]]) -> None:
        """Begin an answer whose body follows. Raises as `respond`."""

    def websocket(self) -> WebSocket | None:
        """The WebSocket that the request asks for; it is this request's answer. None where it asks for none: it is answered then."""

    @property
    def answered(self) -> bool:
        """Whether its answer was given, or begun, or left to a WebSocket."""

    def write(self, data: bytes) -> None:
        """Send a piece of the body, once the client has taken most of what came before. ConnectionResetError when the client
        has gone."""

    def end(self) -> None:
        """The body is whole."""

    def abort(self) -> None:
        """Break off: the client sees that the body is not whole. Unanswered, it is answered with 500."""

@final
class WebSocket:
    """A WebSocket. What is sent before `accept` waits for it."""

    def accept(
        self, on_message: Callable[[str | bytes], object], on_close: Callable[[], object]
    ) -> None:
        """Accept the connection. `on_message` is called for each message, one after the other, and `on_close` when the client
        has left or is lost; both as jobs. A client that says goodbye is answered when `on_close` has returned."""

    def send(self, text: str) -> bool:
        """Send a text. One for a socket that is closed is dropped: False."""

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection, once all that was sent before is out; one that was not accepted as soon as it is."""

    def reject(self) -> None:
        """Answer the handshake with 500, unless it was accepted."""

    @property
    def closed(self) -> bool:
        """Nothing more can be sent."""

@final
class HttpBody:
    """The body of a request, read while it comes."""

    def next(self) -> bytes:
        """The next piece; b"" at the end. ConnectionResetError when the client broke off, TimeoutError when it is too slow,
        OverflowError when the body is larger than it may be."""

@final
class Jobs:
    """The worker queue of one container. Rust pushes deliveries, Python pushes callables; Python threads call `run()`.

    One hot thread drains it, many jobs per GIL attach. A further thread is woken only when the hot one is blocked or busy
    for some hundred microseconds, or waits in a call of this module. `spawn` starts one more Python thread that calls
    `run()`; it is called on Python threads only, and one spare thread is kept.
    """

    def __new__(cls, max_threads: int, spawn: Callable[[], object]) -> Jobs: ...
    def put(self, job: Callable[[], object]) -> None:
        """Queue a callable. RuntimeError after `stop()`."""

    def run(self) -> None:
        """The loop of one worker thread. Returns when the queue has been stopped."""

    def pending(self) -> int:
        """Jobs not begun."""

    def unfinished(self) -> int:
        """Jobs not begun, and jobs begun and not over."""

    def stop(self, discard: bool = False) -> None:
        """Take no more jobs. Threads return when the queue is empty; with `discard` at once, and queued deliveries go back
        to the broker's queue."""

@final
class Delivery:
    """A message that came. What Python does not look at is not converted."""

    @property
    def body(self) -> bytes: ...
    @property
    def json_text(self) -> str | None:
        """The body, where it is JSON as Nameko writes it and nothing else has a say in how it is read: `application/json` in
        UTF-8, not compressed, without kombu's `__type__`."""

    def headers_without_prefix(self, prefix: str) -> dict[str, Any]:
        """A new dict of the headers, with `prefix` taken from the names that have it."""

    @property
    def headers(self) -> dict[str, Any]: ...
    @property
    def properties(self) -> dict[str, Any]:
        """kombu's names, only those present: content_type, content_encoding, application_headers (always; the same dict as
        `headers`), delivery_mode, priority, correlation_id, reply_to, expiration (ms as str), message_id, timestamp (int),
        type, user_id, app_id, cluster_id."""

    @property
    def content_type(self) -> str | None: ...
    @property
    def content_encoding(self) -> str | None: ...
    @property
    def correlation_id(self) -> str | None: ...
    @property
    def reply_to(self) -> str | None: ...
    @property
    def exchange(self) -> str: ...
    @property
    def routing_key(self) -> str: ...
    @property
    def redelivered(self) -> bool: ...
    @property
    def consumer_tag(self) -> str: ...
    @property
    def delivery_tag(self) -> int: ...
    @property
    def acknowledged(self) -> bool:
        """It was acknowledged or rejected, or that is left to `respond(wait=False)`."""

    def ack(self) -> None:
        """The message is done with. Nothing happens the second time, or when its connection is gone."""

    def reject(self, requeue: bool = False) -> None:
        """The message is not wanted: back to its queue with `requeue`, else dropped."""

    def respond(
        self,
        options: Options,
        exchange: str,
        body: bytes,
        content_type: str,
        content_encoding: str,
        ack: bool = True,
        wait: bool = True,
        batch: bool = False,
    ) -> None:
        """The RPC reply: published to `reply_to` with the correlation id copied; once it is confirmed the request is
        acknowledged. ValueError without `reply_to`; AmqpError when it cannot be published (not acknowledged then).

        wait=False: returns at once, that goes on in the background in the same order, and a failure is logged. A reply that
        could not be sent because the broker was away leaves the request to be delivered again.
        """

@final
class Consumers:
    """One connection with one channel for all queues of a container, kept alive. Deliveries become jobs.

    `on_error(error, retry_in_seconds)` is called after each failed attempt to connect, `on_connected()` whenever every
    queue is consumed; both on the thread `nameko-callbacks`.
    """

    def __new__(
        cls,
        options: Options,
        on_error: Callable[[AmqpError, float], object] | None = None,
        on_connected: Callable[[], object] | None = None,
    ) -> Consumers: ...
    def add(
        self,
        queue: dict[str, Any],
        handler: Callable[[Delivery], object],
        jobs: Jobs,
        prefetch: int | None = None,
    ) -> int:
        """Consume a queue: `handler(delivery)` runs as a job of `jobs`. Before the start, or while running.

        queue: {'name', 'durable', 'exclusive', 'auto_delete', 'passive', 'no_declare', 'arguments', 'bindings': [{'exchange':
        {'name', 'type', 'durable', 'auto_delete', 'internal', 'passive', 'no_declare', 'arguments'}, 'routing_key',
        'arguments'}]}; what is absent or None is kombu's default.
        """

    def start(self, timeout: float | None = None) -> bool:
        """Connect, retrying until it works. True when every queue is consumed; False when it was stopped meanwhile, or after
        `timeout` seconds (it goes on trying then)."""

    def cancel(self, id: int) -> None:
        """End a subscription; the queue is left. Deliveries that are here already still reach their handler."""

    def stop(self) -> None:
        """Close channel and connection, within a second once the replies sent in the background are out (five seconds at
        most). Calls that wait for a reply fail."""

    def kill(self) -> None:
        """Drop the connection at once: unacknowledged deliveries go back to their queues. Calls that wait for a reply fail."""

    @property
    def connected(self) -> bool:
        """Everything is consumed right now."""

@final
class ReplyListener:
    """A reply queue on a `Consumers`, and the calls that wait for replies in it. Replies are matched by correlation id on
    the I/O thread, never behind a busy worker, and acknowledged there.

    Calls fail with AmqpError of kind 'lost' when the reply queue was gone after a lost connection, when the connection
    stays lost for 30 s, and when the consumers are stopped.
    """

    def __new__(
        cls, consumers: Consumers, queue: dict[str, Any], prefetch: int | None = None
    ) -> ReplyListener: ...
    def expect(self, correlation_id: str) -> Pending:
        """Expect a reply. ValueError when one is expected with that id already."""

    @property
    def pending(self) -> int:
        """Replies waited for."""

    def on_unknown(self, callback: Callable[[Delivery], object]) -> None:
        """Have `callback(delivery)` called, on the thread `nameko-callbacks`, for each reply that nobody waits for here."""

    def discard(self, correlation_id: str) -> None:
        """Expect the reply no more."""

@final
class Pending:
    """A reply, or the end of a publish, that comes later. Dropping it is cancelling it."""

    def wait(self, timeout: float | None = None) -> Delivery | None:
        """The reply; None for a publish. TimeoutError after `timeout` seconds (it may be waited for again); AmqpError when it
        failed: kind 'lost' when the reply can no longer come; RuntimeError when it was cancelled."""

    def done(self) -> bool:
        """There is a result, or there will be none."""

    def cancel(self) -> None:
        """Nobody waits for it any more: a reply that still comes is unknown."""

    def add_done_callback(self, loop_notifier: Completions, fn: Callable[[], object]) -> None:
        """Have `fn()` called, by `loop_notifier.run()`, when it is done; also when it is done already."""

@final
class Completions:
    """Wakes an asyncio loop: `loop.add_reader(completions.fileno(), completions.run)`."""

    def __new__(cls) -> Completions: ...
    def fileno(self) -> int:
        """Readable while callbacks are due."""

    def run(self) -> None:
        """Call the callbacks that are due, on this thread."""

@final
class Publisher:
    """Publishes messages: pipelined and confirmed, on one connection per process and options, made at the first one.

    A lost connection is made again and the message sent again, `max_retries` times (None: for ever), with waits as in
    kombu's retry policy (seconds).
    """

    def __new__(cls, options: Options) -> Publisher: ...
    def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: dict[str, Any],
        mandatory: bool = False,
        confirm: bool = True,
        max_retries: int | None = 3,
        interval_start: float = 1.0,
        interval_step: float = 1.0,
        interval_max: float = 1.0,
        timeout: float | None = None,
    ) -> None:
        """Publish and, with `confirm`, wait until the broker has taken charge of the message.

        properties: kombu's names as in `Delivery.properties`, `headers` for `application_headers` too; None is absent, other
        names are ignored; a number as expiration is seconds. AmqpError: kind 'unroutable', 'nacked', 'channel_closed', ...;
        TimeoutError after `timeout` seconds.
        """

    def start_publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: dict[str, Any],
        mandatory: bool = False,
        confirm: bool = True,
        max_retries: int | None = 3,
        interval_start: float = 1.0,
        interval_step: float = 1.0,
        interval_max: float = 1.0,
    ) -> Pending:
        """As `publish`, but returns at once."""

    def call(
        self,
        pending: Pending,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: dict[str, Any],
        confirm: bool = True,
        max_retries: int | None = 3,
        interval_start: float = 1.0,
        interval_step: float = 1.0,
        interval_max: float = 1.0,
    ) -> None:
        """Send a request, mandatory, whose reply `pending` waits for, and return at once: if it cannot be published,
        `pending` fails, e.g. with kind 'unroutable'."""

    def declare(
        self, exchanges: Sequence[dict[str, Any]], queues: Sequence[dict[str, Any]]
    ) -> None:
        """Declare exchanges and queues, the queues with their bindings; dicts as for `Consumers.add`."""

@final
class Broker:
    """An AMQP 0-9-1 broker in this process, in memory. User and password are guest; port 0 takes a free one.

    management_port: where it serves its management API, a part of RabbitMQ's; None for nowhere.
    OSError when an address cannot be listened on.
    """

    def __new__(
        cls, host: str = "127.0.0.1", port: int = 0, management_port: int | None = None
    ) -> Broker: ...
    @property
    def uri(self) -> str:
        """Where clients connect, with user and password."""

    @property
    def port(self) -> int:
        """The TCP port it listens on."""

    @property
    def management_uri(self) -> str | None:
        """Where its management API is, with user and password: `http://guest:guest@127.0.0.1:41232`. None without one."""

    @property
    def management_port(self) -> int | None:
        """The TCP port of its management API; None without one."""

    def add_vhost(self, name: str) -> bool:
        """Add a virtual host; False when there is one of that name. RuntimeError after `stop()`."""

    def delete_vhost(self, name: str) -> bool:
        """Delete a virtual host with all that is in it, and close its connections, as RabbitMQ does; False when there is
        none of that name. RuntimeError after `stop()`."""

    def stats(self, vhost: str = "/") -> dict[str, Any]:
        """What is there now: {'connections': int, 'channels': int, 'queues': {name: {'messages', 'unacked', 'consumers'}}}.

        The queues are those of `vhost`.
        """

    def close_connections(self) -> None:
        """Close all client connections, as a broker that restarts does. Clients may connect again."""

    def stop(self) -> None:
        """Stop it; its messages are gone. Nothing happens the second time."""

@final
class ProcessTable:
    """State machine of a supervisor of processes, numbered from 1. It does no I/O."""

    def __new__(cls, count: int) -> ProcessTable: ...
    def started(self, number: int) -> None:
        """Record that a process is being started."""

    def ready(self, number: int) -> bool:
        """Record that the services of a process can be called. True the first time that all processes are ready."""

    def restarted(self, number: int) -> None:
        """Record that a process has exited on purpose and is started again at once, with a fresh backoff."""

    def ended(self, number: int, ended: int | str) -> tuple[str | None, float | None]:
        """Record the end of a process: its return code as in `subprocess`, or the reason why it could not be started.

        Returns the message to log, and the seconds until the restart: None if the supervisor stops.
        """

    def stop(self, exit_code: int | None = None) -> bool:
        """Record a request to stop, with the exit code of the signal behind it. True if a stop was requested before, so
        that the processes are to be killed."""

    @property
    def exit_code(self) -> int:
        """The exit code of the supervisor."""

    @property
    def failure(self) -> str | None:
        """The reason why the supervisor gave up, if it did."""

def probe(amqp_uri: str, timeout: float = 1.0) -> bool:
    """Whether something listens at the host and port of one of the URIs."""

def interrupt(ident: int, exc_type: type[BaseException]) -> bool:
    """Have `exc_type` raised in the thread `ident`, unless it is just where a lock could stay behind, or in a finalizer,
    whose exceptions are dropped. Returns whether it will be raised."""

def on_log(callback: Callable[[int, str, str], object], level: int = 30) -> None:
    """Have `callback(level, logger, text)` called, on the thread `nameko-callbacks`, for each record of the compiled half
    from `level` on, with `logging`'s numbers and names. Replaces the callback before."""

def shutdown() -> None:
    """Close the publishers, and end the I/O thread and the thread `nameko-callbacks`. For `atexit`."""
