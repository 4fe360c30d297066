"""The compiled module: connections, topology, confirms, reply matching, worker queue, HTTP server,
embedded broker.

Every blocking call releases the GIL and can be interrupted (Ctrl-C on the main thread). The I/O
thread never enters Python: callbacks are queued and run by Python threads. An exception in a
callback goes to `sys.unraisablehook`.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any, TypeAlias, final

__all__ = [
    "AmqpError",
    "Broker",
    "Completions",
    "Consumers",
    "Delivery",
    "HttpBody",
    "HttpRequest",
    "HttpServer",
    "JobRunner",
    "Jobs",
    "LoopDeliveries",
    "LoopRequests",
    "Options",
    "PatchGuard",
    "Pending",
    "ProcessTable",
    "Publisher",
    "ReplyListener",
    "Retry",
    "Routes",
    "WebSocket",
    "__version__",
    "config_keys",
    "current_frame",
    "decode_from_headers",
    "finalize",
    "flush_replies",
    "hold_replies",
    "interrupt",
    "misspelled_key",
    "on_log",
    "probe",
    "shutdown",
]

__version__: str

_Message: TypeAlias = tuple[str, str, bytes, dict[str, Any]]

class AmqpError(Exception):
    """A failure of a broker or of the connection to it.

    kind: 'uri' | 'io' | 'tls' | 'timeout' | 'not_amqp' | 'handshake' | 'access_refused'
    | 'not_allowed' | 'channel_closed' | 'connection_closed' | 'lost' | 'unsendable' | 'unroutable'
    | 'nacked' | 'stopped'. code: the AMQP reply code, if the broker sent one. text: the cause and
    the remedy, also `str()` of the exception. reply_text and method: the text of a broker that
    closed the channel or the connection, and the ids of the class and method that it refused.
    """

    kind: str
    code: int | None
    text: str
    reply_text: str | None
    method: tuple[int, int]

@final
class Options:
    """Connection options. Hashable; equal options share one publishing connection.

    heartbeat: seconds; 0 disables it. ssl: True, False, or a dict of the options of
    `ssl.wrap_socket`. login_method: PLAIN, AMQPLAIN or EXTERNAL. name: the name of the connection
    at the broker. None leaves an option to the parameters of the URI, and to its default. Raises
    AmqpError of kind 'uri', ValueError or TypeError.
    """

    def __new__(
        cls,
        amqp_uri: str,
        heartbeat: int | None = None,
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
    """Detects monkey-patched or overridden attributes.

    expected: tuples of owner, name and value. Of a dict the item is compared, None for an absent
    one; of any other owner the attribute.
    """

    def __new__(cls, expected: list[tuple[Any, str, Any]]) -> PatchGuard: ...
    def intact(self) -> bool:
        """Returns whether every attribute has its expected value."""

@final
class HttpServer:
    """An HTTP server: listens once created, answers requests from `serve` on.

    settings: the configuration's keys `WEB_SERVER_*`, `WEBSOCKET_*` and `stop_timeout`. Raises
    OSError if the address cannot be bound, ValueError if a setting is not valid.
    """

    def __new__(cls, host: str, port: int, settings: dict[str, Any]) -> HttpServer: ...
    @property
    def address(self) -> tuple[str, int]:
        """The host and port of the listener."""

    @property
    def stop_timeout(self) -> float:
        """How long `stop` waits for responses, in seconds."""

    def fileno(self) -> int:
        """Returns the file descriptor of the listener, before `serve`. The server keeps owning it:
        duplicate it."""

    def serve(
        self,
        handler: Callable[[HttpRequest], object],
        jobs: Jobs,
        limit: int,
        loop_requests: LoopRequests | None = None,
    ) -> None:
        """Calls `handler` for each request as a job of `jobs`, at most `limit` at a time; further
        requests wait. Requests that `loop_requests` accepts become its items instead."""

    def stop_listening(self) -> None:
        """Stops accepting requests and closes the port. Requests in flight continue."""

    def drain(self, timeout: float | None = None) -> bool:
        """Waits until no request is in flight. Returns False after `timeout` seconds."""

    def close_sockets(self, timeout: float | None = None) -> bool:
        """Closes each WebSocket once its message in flight is handled, with the reason that the
        service is shutting down, and later ones at once.

        Returns False if some are open after `timeout` seconds.
        """

    def stop(self) -> None:
        """Stops accepting requests, waits for responses in flight, up to `stop_timeout`, then
        closes the connections."""

    def kill(self) -> None:
        """Closes the port and the connections at once."""

@final
class HttpRequest:
    """A request, responded to once: with `respond`, or with `start_response`, `write` and `end`.

    If it is dropped before, the client gets the response of a service that is shutting down.
    """

    def fill_environ(self, environ: dict[str, Any]) -> None:
        """Adds the variables of the request to a WSGI environ."""

    @property
    def method(self) -> str:
        """The method, such as ``GET``."""

    def body(self) -> bytes | HttpBody:
        """Takes the body: bytes, or a reader if it is large. May be called once."""

    def respond(self, status: str, headers: list[tuple[str, str]], body: bytes) -> None:
        """Sends the response. status: a line such as ``200 OK``.

        Raises ValueError if the status or a header is not valid, RuntimeError if a response was
        sent before.
        """

    def respond_text(
        self, status: str, headers: object, text: str, content_type: str
    ) -> int | None:
        """Sends a response with the headers of a dict or of a list of pairs, if they are plain, and
        with the headers `Content-Type` and `Content-Length`.

        Returns the number of bytes of the body that the client gets; None, without a response, if
        it has to be built by werkzeug. The response is sent after the job of this thread, or by
        `flush_replies()` if the thread holds replies.
        """

    def start_response(self, status: str, headers: list[tuple[str, str]]) -> None:
        """Sends the head of a response. Its body follows with `write`. Raises as `respond`."""

    def websocket(self) -> WebSocket | None:
        """Upgrades the request to a WebSocket, which takes over the response. Returns None after an
        error response if the request is not a valid WebSocket handshake."""

    def leave_workers(self) -> None:
        """Lets another request start, because this one leaves the worker threads."""

    def access(self) -> tuple[str, str, str, str, float]:
        """Returns the parts of a line of an access log: the client with its proxies, the method,
        the target, the protocol, and the seconds since the handling of the request began."""

    @property
    def answered(self) -> bool:
        """Whether a response was sent or begun, or is left to a WebSocket."""

    def write(self, data: bytes) -> None:
        """Sends a chunk of the body. Waits while too many chunks are unsent. Raises
        ConnectionResetError if the client has disconnected."""

    def end(self) -> None:
        """Ends the body."""

    def abort(self) -> None:
        """Cuts the response off, which the client can detect. Without a response, sends 500."""

@final
class Routes:
    """A table of URL rules whose segments are texts, ``<name>`` or ``<int:name>``.

    It finds the rule that werkzeug's ``Map`` would find, or none. Then the ``Map`` decides, which
    may find another rule, redirect, or raise.
    """

    def __new__(
        cls, rules: list[tuple[list[tuple[str | None, str]], list[str] | None, bool]]
    ) -> Routes:
        """`rules`: triples of the segments, the methods, and whether the segments are the whole
        rule; if not, only werkzeug matches it. A segment is (None, text), ("string", name) or
        ("int", name). Raises ValueError for another converter."""

    def find(self, request: HttpRequest) -> tuple[int, dict[str, Any]] | None:
        """Returns the position of the rule for a request, and the values of its variables. None if
        werkzeug has to decide."""

@final
class LoopRequests:
    """The requests of some rules, read with `loop.add_reader(requests.fileno(), ...)`."""

    def __new__(cls, routes: Routes, rules: set[int]) -> LoopRequests:
        """Accepts requests for which `routes` finds one of `rules`."""

    def fileno(self) -> int:
        """Returns a file descriptor that is readable while there are requests."""

    def take(self) -> list[HttpRequest]:
        """Takes the requests that have arrived."""

@final
class WebSocket:
    """A WebSocket. Texts that are sent before `accept` are buffered."""

    def accept(
        self, on_message: Callable[[str | bytes], object], on_close: Callable[[], object]
    ) -> None:
        """Accepts the connection. `on_message` is called for each message in order, `on_close` when
        the client has disconnected; both as jobs. The close handshake completes when `on_close` has
        returned, or after two seconds."""

    def send(self, text: str) -> bool:
        """Sends a text. Returns False if the socket is closed."""

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Closes the connection after all earlier texts, or as soon as it is accepted."""

    def reject(self) -> None:
        """Responds to the handshake with 500, unless it was accepted."""

    @property
    def closed(self) -> bool:
        """Whether the socket is closed for sending."""

@final
class HttpBody:
    """A streamed body of a request."""

    def next(self) -> bytes:
        """Returns the next chunk, b"" at the end. Raises ConnectionResetError if the client broke
        off, TimeoutError if it is too slow, OverflowError if the body exceeds its limit."""

@final
class Jobs:
    """The worker queue of one container: Rust pushes deliveries, Python pushes functions, and the
    threads of `nameko.utils.jobs` call them.

    One hot thread drains it. Another thread is woken only if the hot one is in one job for some
    hundred microseconds, or waits in a call of this module. The owner starts the first thread. The
    running threads call `spawn(jobs)` to start one more, and keep one spare.
    """

    def __new__(cls, max_threads: int, spawn: Callable[[Jobs], object]) -> Jobs: ...
    def put(self, function: Callable[[Any], object], argument: Any = None) -> None:
        """Queues `function(argument)`. Raises RuntimeError after `stop()`."""

    def __iter__(self) -> JobRunner:
        """Registers the calling thread as a worker, until the iterator ends."""

    def pending(self) -> int:
        """Returns the number of jobs that have not started."""

    def unfinished(self) -> int:
        """Returns the number of jobs that have not started or not finished."""

    @property
    def stopped(self) -> bool:
        """Whether the queue refuses further jobs."""

    def stop(self, discard: bool = False) -> None:
        """Refuses further jobs. Threads return once the queue is empty; with `discard` at once, and
        queued deliveries are requeued at the broker."""

@final
class JobRunner:
    """The jobs of one worker thread. Each job ends at the next one."""

    def __iter__(self) -> JobRunner: ...
    def __next__(self) -> tuple[Callable[[Any], object], Any]:
        """Waits for a job. Ends when the queue has been stopped."""

    def failed(self, function: Callable[[Any], object], error: BaseException) -> None:
        """Reports an exception of the latest function to `sys.unraisablehook`."""

def flush_replies() -> None:
    """Flushes the replies of this worker's job so far, because the next part may take long, or
    those that this thread holds."""

def hold_replies() -> None:
    """Holds the replies and responses of this thread until it calls `flush_replies`. For a loop."""

@final
class LoopDeliveries:
    """The deliveries with some routing keys, read with
    `loop.add_reader(deliveries.fileno(), ...)`."""

    def __new__(cls, routing_keys: set[str]) -> LoopDeliveries: ...
    def fileno(self) -> int:
        """Returns a file descriptor that is readable while there are deliveries."""

    def take(self) -> list[Delivery]:
        """Takes the deliveries that have arrived."""

@final
class Delivery:
    """A received message. Its parts are converted to Python objects on first access."""

    @property
    def body(self) -> bytes: ...
    @property
    def json_text(self) -> str | None:
        """The body, if it is plain JSON: `application/json` in UTF-8, not compressed, and without
        kombu's `__type__`. None otherwise."""

    @property
    def headers(self) -> dict[str, Any]: ...
    def context_data(self, prefix: str) -> dict[str, Any]:
        """Returns the context data in the headers, as a new dict, see `decode_from_headers`."""

    @property
    def properties(self) -> dict[str, Any]:
        """The properties that are present, by kombu's names: content_type, content_encoding,
        application_headers (always; the same dict as `headers`), delivery_mode, priority,
        correlation_id, reply_to, expiration (ms as str), message_id, timestamp (int), type,
        user_id, app_id, cluster_id."""

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
        """Whether the message was acknowledged or rejected, or is to be settled by `respond()`."""

    def ack(self) -> None:
        """Acknowledges the message. Does nothing if it is settled or its connection is gone."""

    def reject(self, requeue: bool = False) -> None:
        """Rejects the message: requeues it with `requeue`, else discards it. Does nothing if it is
        settled or its connection is gone."""

    def requeue_after_pause(self, queue: str) -> None:
        """Requeues the message after a pause that grows with each failure of it, and logs a line.
        `queue` is the name of its queue. Does nothing if it is settled."""

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
        """Publishes the reply to an RPC request, to `reply_to` with the correlation id. With `ack`,
        settles the request: acknowledges it once the reply is confirmed, or requeues it after a
        second if the broker did not take charge of the reply.

        wait=False: returns at once. The request is settled in the background and a failure is
        logged; a reply that the broker refuses settles the request too. batch=True: the reply may
        be sent together with those of the next jobs of this thread.

        Raises ValueError without `reply_to`, AmqpError if the reply cannot be published. A request
        whose reply the broker refuses is not settled then.
        """

@final
class Consumers:
    """One connection with one channel for all queues of a container, kept alive. Deliveries become
    jobs.

    `on_error(error, retry_in_seconds)` is called after each failed attempt to connect,
    `on_connected()` whenever every queue is consumed; both on the thread `nameko-callbacks`.
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
        on_loop: LoopDeliveries | None = None,
    ) -> int:
        """Consumes a queue: `handler(delivery)` runs as a job of `jobs`, except for the deliveries
        that `on_loop` accepts. May be called before the start and while running. Returns the id of
        the subscription.

        queue: {'name', 'durable', 'exclusive', 'auto_delete', 'passive', 'no_declare', 'arguments',
        'bindings': [{'exchange': {'name', 'type', 'durable', 'auto_delete', 'internal', 'passive',
        'no_declare', 'arguments'}, 'routing_key', 'arguments'}]}; absent or None is kombu's
        default.
        """

    def start(self, timeout: float | None = None) -> bool:
        """Connects, with retries. Returns True once every queue is consumed; False if stopped
        meanwhile, or after `timeout` seconds, when it keeps trying in the background."""

    def cancel(self, id: int) -> None:
        """Ends a subscription and leaves the queue in place. Deliveries that have arrived still
        reach their handler."""

    def stop(self) -> None:
        """Closes channel and connection, within a second after the replies in the background are
        sent, for which it waits up to five seconds. Pending calls fail."""

    def kill(self) -> None:
        """Drops the connection at once: the broker requeues unacknowledged deliveries. Pending
        calls fail."""

    @property
    def connected(self) -> bool:
        """Whether every queue is being consumed."""

@final
class ReplyListener:
    """A reply queue on a `Consumers`, and its pending calls. Replies are matched by correlation id
    and acknowledged on the I/O thread, never behind a busy worker.

    Calls fail with AmqpError of kind 'lost' if the reply queue is gone after a reconnect, the
    connection stays lost for 30 s, or the consumers are stopped.
    """

    def __new__(
        cls, consumers: Consumers, queue: dict[str, Any], prefetch: int | None = None
    ) -> ReplyListener: ...
    def expect(self, correlation_id: str) -> Pending:
        """Registers a call. Raises ValueError if another one is pending with this id."""

    @property
    def pending(self) -> int:
        """The number of pending calls."""

    def on_unknown(self, callback: Callable[[Delivery], object]) -> None:
        """Sets the callback for replies without a pending call. It is called on the thread
        `nameko-callbacks`."""

    def discard(self, correlation_id: str) -> None:
        """Cancels a call."""

@final
class Pending:
    """A pending call or publish. Dropping it cancels it."""

    def wait(self, timeout: float | None = None) -> Delivery | None:
        """Waits for the reply; returns None for a publish. Raises TimeoutError after `timeout`
        seconds (it may be waited for again), RuntimeError if it was cancelled, and AmqpError on a
        failure: kind 'lost' if no reply can arrive."""

    def done(self) -> bool:
        """Returns whether there is a result, or will be none."""

    def cancel(self) -> None:
        """Abandons the call. A reply that still arrives matches no call."""

    def add_done_callback(self, loop_notifier: Completions, fn: Callable[[], object]) -> None:
        """Registers `fn`, called due in `loop_notifier` on completion, also if it is complete."""

@final
class Completions:
    """The callbacks of one asyncio loop, read with `loop.add_reader(completions.fileno(), ...)`."""

    def __new__(cls) -> Completions: ...
    def fileno(self) -> int:
        """Returns a file descriptor that is readable while callbacks are due."""

    def take(self) -> list[Callable[[], object]]:
        """Takes the callbacks that are due, to be called."""

@final
class Retry:
    """A retry policy: after a lost connection a message is sent again, `max_retries` times (None:
    forever), at growing intervals in seconds as in kombu's retry policy.

    Raises ValueError if an interval is negative or not finite.
    """

    def __new__(
        cls,
        max_retries: int | None = 3,
        interval_start: float = 1.0,
        interval_step: float = 1.0,
        interval_max: float = 1.0,
    ) -> Retry: ...

@final
class Publisher:
    """Publishes messages: pipelined and confirmed, on one connection per process and options, made
    for the first message.

    A message is a tuple of exchange, routing key, body and properties. The properties have kombu's
    names as in `Delivery.properties`, or `headers` for `application_headers`; None counts as
    absent, other names are ignored; a number as expiration is in seconds. Without a `Retry`, its
    defaults apply.
    """

    def __new__(cls, options: Options) -> Publisher: ...
    def publish(
        self,
        message: _Message,
        retry: Retry | None = None,
        mandatory: bool = False,
        confirm: bool = True,
        timeout: float | None = None,
    ) -> None:
        """Publishes a message and, with `confirm`, waits for the broker's confirm.

        `timeout` in seconds limits the time with all retries; infinity for no limit. Raises
        AmqpError of kind 'unroutable', 'nacked', 'channel_closed', 'blocked', 'timeout', ...
        """

    def start_publish(
        self,
        message: _Message,
        retry: Retry | None = None,
        mandatory: bool = False,
        confirm: bool = True,
        timeout: float | None = None,
    ) -> Pending:
        """Publishes a message without waiting."""

    def call(
        self,
        pending: Pending,
        message: _Message,
        retry: Retry | None = None,
        confirm: bool = True,
        timeout: float | None = None,
    ) -> None:
        """Publishes a request, mandatory, without waiting. `pending` fails if that fails, e.g. with
        kind 'unroutable'."""

    def close_if_idle(self) -> None:
        """Closes the connection, unless a message waits for its confirm. The next message reopens
        it."""

    def start_declare(
        self, exchanges: list[dict[str, Any]], queues: list[dict[str, Any]]
    ) -> Pending:
        """Declares in the background once the broker can be reached and accepts the login.
        `Pending.cancel()` ends that."""

    def declare(
        self, exchanges: Sequence[dict[str, Any]], queues: Sequence[dict[str, Any]]
    ) -> None:
        """Declares exchanges, and queues with their bindings; dicts as for `Consumers.add`."""

@final
class Broker:
    """An in-memory AMQP 0-9-1 broker in this process. User and password are guest; port 0 takes a
    free one.

    management_port: the port of the management API, a subset of RabbitMQ's; None disables it.
    max_message_size: the largest body in bytes, 16 MiB by default. Raises OSError if an address
    cannot be bound.

    tls_port: the port for clients over TLS, with the certificate in `certfile` and its key in
    `keyfile` (by default in `certfile`). cacertfile: the authorities of client certificates, which
    are then requested, and required with fail_if_no_peer_cert; the mechanism EXTERNAL logs in the
    user that is their common name. Raises ValueError if a file cannot be used.
    """

    def __new__(
        cls,
        host: str = "127.0.0.1",
        port: int = 0,
        management_port: int | None = None,
        max_message_size: int | None = None,
        *,
        tls_port: int | None = None,
        certfile: str | os.PathLike[str] | None = None,
        keyfile: str | os.PathLike[str] | None = None,
        cacertfile: str | os.PathLike[str] | None = None,
        fail_if_no_peer_cert: bool = False,
    ) -> Broker: ...
    @property
    def uri(self) -> str:
        """The URI for clients, with user and password."""

    @property
    def port(self) -> int:
        """The TCP port of the listener."""

    @property
    def management_uri(self) -> str | None:
        """The URI of the management API, with user and password:
        `http://guest:guest@127.0.0.1:41232`. None if it is disabled."""

    @property
    def tls_uri(self) -> str | None:
        """The URI for clients over TLS, with user and password:
        `amqps://guest:guest@127.0.0.1:39114`. None without TLS."""

    @property
    def management_port(self) -> int | None:
        """The TCP port of the management API; None if it is disabled."""

    def add_vhost(self, name: str) -> bool:
        """Adds a virtual host. Returns False if it exists. Raises RuntimeError after `stop()`."""

    def delete_vhost(self, name: str) -> bool:
        """Deletes a virtual host with its contents, and closes its connections, as RabbitMQ does.
        Returns False if it does not exist. Raises RuntimeError after `stop()`."""

    def stats(self, vhost: str = "/") -> dict[str, Any]:
        """Returns counts: {'connections': int, 'channels': int, 'queues': {name: {'messages',
        'unacked', 'consumers'}}}. The queues are those of `vhost`."""

    def close_connections(self) -> None:
        """Closes all client connections, as a restart would. Clients may reconnect."""

    def stop(self) -> None:
        """Stops the broker and discards its messages. Does nothing the second time."""

@final
class ProcessTable:
    """State machine of a supervisor of processes, numbered from 1. It does no I/O."""

    def __new__(cls, count: int) -> ProcessTable: ...
    def started(self, number: int) -> None:
        """Records that a process is being started."""

    def ready(self, number: int) -> bool:
        """Records that the services of a process can be called. Returns True the first time that
        all processes are ready."""

    def restarted(self, number: int) -> None:
        """Records that a process has exited on purpose and is started again at once, with a fresh
        backoff."""

    def ended(self, number: int, ended: int | str) -> tuple[str | None, float | None]:
        """Records the end of a process: its return code as in `subprocess`, or the reason why it
        could not be started.

        Returns the message to log, and the seconds until the restart: None if the supervisor stops.
        """

    def stop(self, exit_code: int | None = None) -> bool:
        """Records a request to stop, with the exit code of the signal behind it. Returns True if a
        stop was requested before, so that the processes are to be killed."""

    @property
    def exit_code(self) -> int:
        """The exit code of the supervisor."""

    @property
    def failure(self) -> str | None:
        """The reason why the supervisor gave up, if it did."""

def decode_from_headers(headers: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Returns context data from message headers, as a new dict. Headers without the prefix keep
    their names."""

def probe(amqp_uri: str, timeout: float = 1.0) -> bool:
    """Returns whether the host and port of one of the URIs accepts TCP connections."""

def config_keys() -> list[str]:
    """Returns the configuration keys of the framework, in Python and in Rust."""

def misspelled_key(key: str) -> str | None:
    """Returns the configuration key of the framework that ``key`` misspells."""

def current_frame(ident: int) -> FrameType | None:
    """Returns the innermost frame of the thread `ident`; None if no such thread runs."""

def interrupt(ident: int, exc_type: type[BaseException]) -> bool:
    """Raises `exc_type` in the thread `ident`, unless a lock could stay behind there, or the thread
    is in a finalizer, where exceptions are dropped. Returns whether it will be raised, or the
    thread is handling it."""

def on_log(callback: Callable[[int, str, str], object], level: int = 30) -> None:
    """Registers `callback(level, logger, text)` for the log records of the compiled module from
    `level` on, with the numbers and names of `logging`. It is called on the thread
    `nameko-callbacks` and replaces the previous callback."""

def finalize() -> None:
    """Announces the end of the interpreter to the threads of this module, then calls `shutdown()`.
    For `atexit`."""

def shutdown() -> None:
    """Closes the publishers, and ends the I/O thread and the thread `nameko-callbacks`."""
