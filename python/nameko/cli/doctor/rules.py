"""What is known of names that a project may use: a table, and how it is looked up."""

from __future__ import annotations

from typing import NamedTuple

from nameko.cli.doctor.findings import Severity

BREAKS, DIFFERS, FINE = Severity


class Rule(NamedTuple):
    """What there is to say of a name."""

    severity: Severity
    why: str
    fix: str


# Why eventlet's primitives do not do what they did, now that each worker has a thread.
_ACROSS_THREADS = "it wakes greenlets of one thread only; workers are threads now, and would hang"
_NEVER_RUNS = "a greenlet runs only while its own thread waits in eventlet, which none does now"
_IN_TURN = "its functions run while somebody waits for them, and then one after the other"
_NO_TIMEOUT = "it interrupts only waits inside eventlet; nothing waits there any more"
_PATCHES = "it replaces the threads that nameko runs on: nothing starts in a process that did so"
_NOT_NEEDED = "calls that block are fine in a worker's thread"

# A dotted name -> what is said where it, or something below it, is used. The longest one counts.
USES: dict[str, Rule] = {
    "eventlet.monkey_patch": Rule(BREAKS, _PATCHES, "remove the call; nothing has to be patched"),
    "eventlet.patcher.monkey_patch": Rule(BREAKS, _PATCHES, "remove the call"),
    "eventlet.patcher": Rule(DIFFERS, "nothing is patched any more", "use the plain module"),
    "eventlet.import_patched": Rule(DIFFERS, _NOT_NEEDED, "import the plain module"),
    "eventlet.green": Rule(DIFFERS, _NOT_NEEDED, "import the plain module"),
    "eventlet.sleep": Rule(DIFFERS, _NOT_NEEDED, "time.sleep"),
    "eventlet.greenthread.sleep": Rule(DIFFERS, _NOT_NEEDED, "time.sleep"),
    "eventlet.tpool": Rule(DIFFERS, _NOT_NEEDED, "call the function itself"),
    "eventlet.spawn": Rule(
        BREAKS,
        _NEVER_RUNS,
        "in an extension self.container.spawn_managed_thread(fn), elsewhere threading.Thread",
    ),
    "eventlet.greenthread": Rule(
        BREAKS, _NEVER_RUNS, "in an extension self.container.spawn_managed_thread(fn)"
    ),
    "eventlet.Timeout": Rule(
        BREAKS, _NO_TIMEOUT, "the timeout that the call itself takes: of requests, of RpcProxy, .."
    ),
    "eventlet.with_timeout": Rule(BREAKS, _NO_TIMEOUT, "the timeout that the call itself takes"),
    "eventlet.timeout": Rule(BREAKS, _NO_TIMEOUT, "the timeout that the call itself takes"),
    "eventlet.GreenPool": Rule(BREAKS, _IN_TURN, "concurrent.futures.ThreadPoolExecutor"),
    "eventlet.GreenPile": Rule(BREAKS, _IN_TURN, "concurrent.futures.ThreadPoolExecutor.map"),
    "eventlet.greenpool": Rule(BREAKS, _IN_TURN, "concurrent.futures.ThreadPoolExecutor"),
    "eventlet.greenio": Rule(DIFFERS, _NOT_NEEDED, "socket"),
    "eventlet.event": Rule(
        BREAKS, _ACROSS_THREADS, "nameko.utils.threads.Event, which has send, wait and ready"
    ),
    "eventlet.Event": Rule(BREAKS, _ACROSS_THREADS, "nameko.utils.threads.Event"),
    "eventlet.queue": Rule(BREAKS, _ACROSS_THREADS, "queue.Queue; LightQueue is queue.SimpleQueue"),
    "eventlet.Queue": Rule(BREAKS, _ACROSS_THREADS, "queue.Queue"),
    "eventlet.semaphore": Rule(BREAKS, _ACROSS_THREADS, "threading.Semaphore"),
    "eventlet.Semaphore": Rule(BREAKS, _ACROSS_THREADS, "threading.Semaphore"),
    "eventlet.pools": Rule(BREAKS, _ACROSS_THREADS, "the pool of your driver, or queue.Queue"),
    "eventlet.db_pool": Rule(BREAKS, _ACROSS_THREADS, "the pool of your driver"),
    "eventlet.corolocal": Rule(DIFFERS, "a worker has a thread of its own", "threading.local"),
    "eventlet.getcurrent": Rule(
        DIFFERS, "a worker has a thread of its own", "threading.current_thread"
    ),
    "eventlet.greenthread.getcurrent": Rule(
        DIFFERS, "a worker has a thread of its own", "threading.current_thread"
    ),
    "eventlet.wsgi": Rule(
        DIFFERS,
        "nameko's own server serves HTTP; of what get_wsgi_server() returns it takes app and debug",
        "override WebServer.get_wsgi_app() to wrap the application",
    ),
    "eventlet.websocket": Rule(BREAKS, _NEVER_RUNS, "nameko.web.websocket"),
    "eventlet.listen": Rule(DIFFERS, _NOT_NEEDED, "socket.create_server"),
    "eventlet.connect": Rule(DIFFERS, _NOT_NEEDED, "socket.create_connection"),
    "eventlet.backdoor": Rule(BREAKS, _NEVER_RUNS, "nameko run --backdoor-port PORT"),
    "eventlet.hubs": Rule(BREAKS, "there is no hub that runs the service", "remove it"),
    "eventlet.debug": Rule(DIFFERS, "there is no hub that runs the service", "remove it"),
    "eventlet": Rule(DIFFERS, "nameko does not use eventlet any more", "threads, queue, socket"),
    "greenlet": Rule(
        BREAKS,
        "workers are no greenlets; one that is killed meets nameko.utils.threads.ThreadKilled",
        "clean up in `finally`",
    ),
    "gevent.monkey": Rule(BREAKS, _PATCHES, "remove the call; nothing has to be patched"),
    "gevent.spawn": Rule(BREAKS, _NEVER_RUNS, "threading.Thread"),
    "gevent": Rule(BREAKS, "the services do not run on gevent's loop", "threads"),
    "psycogreen": Rule(
        BREAKS, "psycopg2 would wait in a loop that nobody runs", "remove it: psycopg2 may block"
    ),
    "kombu.pools.set_limit": Rule(
        DIFFERS,
        "nameko opens no kombu connection: its publishers share one of their own",
        "remove it, unless your code uses kombu's pools by itself",
    ),
    "kombu.pools.reset": Rule(
        DIFFERS, "nameko opens no kombu connection", "remove it, unless you use kombu's pools"
    ),
    "nameko.standalone.rpc.ConsumeEvent": Rule(
        BREAKS, "replies are matched without a queue consumer of Python's", "the client's timeout"
    ),
}

# Methods of upstream's QueueConsumer that came from kombu's ConsumerMixin, or that drove it.
CONSUMER_MIXIN = frozenset(
    {
        *("get_consumers", "consumer_context", "establish_connection", "create_connection"),
        *("on_connection_revived", "on_consume_ready", "on_consume_end", "on_iteration"),
        *("on_decode_error", "run", "consume", "maybe_conn_error", "extra_context", "Consumer"),
        *("_on_message", "handle_message", "_cancel_consumers_if_requested"),
    }
)


# Imported names that came along with Nameko 2, and what to install for them now.
CAME_ALONG = {
    "six": "six",
    "mock": "mock",
    "requests": "requests",
    "path": "path",
    "wrapt": "wrapt",
    "pkg_resources": "'setuptools<81'",
    "packaging": "packaging",
    "eventlet": "eventlet",
    "greenlet": "greenlet",
    "dns": "dnspython",
}


def rule_for(name: str) -> tuple[str, Rule] | None:
    """The rule that holds for a dotted name, and whose it is."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        prefix = ".".join(parts[:length])
        if prefix in USES:
            return prefix, USES[prefix]
    return None
