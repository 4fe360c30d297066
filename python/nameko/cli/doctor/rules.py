"""Rules for names used by a project, and their lookup."""

from __future__ import annotations

from typing import NamedTuple

from nameko.cli.doctor.findings import Severity

BREAKS, DIFFERS, FINE = Severity


class Rule(NamedTuple):
    """Severity, reason and fix for the use of a name."""

    severity: Severity
    why: str
    fix: str


# Reasons why eventlet primitives no longer work: each worker has a thread of its own.
_ACROSS_THREADS = "it wakes greenlets of one thread only; workers are threads now and would hang"
_NEVER_RUNS = "a greenlet runs only while its thread waits in eventlet, which no thread does now"
_IN_TURN = "its functions run only during a wait for their result, one after the other"
_NO_TIMEOUT = "it interrupts only waits inside eventlet, and there are none any more"
_PATCHES = "it replaces the threads that nameko runs on: services refuse to start"
_NOT_NEEDED = "workers have threads and may block"

# Dotted name -> the rule for uses of it and of names below it. The longest match applies.
USES: dict[str, Rule] = {
    "eventlet.monkey_patch": Rule(BREAKS, _PATCHES, "remove the call; patching is not needed"),
    "eventlet.patcher.monkey_patch": Rule(BREAKS, _PATCHES, "remove the call"),
    "eventlet.patcher": Rule(DIFFERS, "modules are no longer patched", "use the plain module"),
    "eventlet.import_patched": Rule(DIFFERS, _NOT_NEEDED, "import the plain module"),
    "eventlet.green": Rule(DIFFERS, _NOT_NEEDED, "import the plain module"),
    "eventlet.sleep": Rule(DIFFERS, _NOT_NEEDED, "time.sleep"),
    "eventlet.greenthread.sleep": Rule(DIFFERS, _NOT_NEEDED, "time.sleep"),
    "eventlet.tpool": Rule(DIFFERS, _NOT_NEEDED, "call the function directly"),
    "eventlet.spawn": Rule(
        BREAKS,
        _NEVER_RUNS,
        "in an extension self.container.spawn_managed_thread(fn), elsewhere threading.Thread",
    ),
    "eventlet.greenthread": Rule(
        BREAKS, _NEVER_RUNS, "in an extension self.container.spawn_managed_thread(fn)"
    ),
    "eventlet.Timeout": Rule(
        BREAKS, _NO_TIMEOUT, "the timeout option of the call, such as that of requests or RpcProxy"
    ),
    "eventlet.with_timeout": Rule(BREAKS, _NO_TIMEOUT, "the timeout option of the call"),
    "eventlet.timeout": Rule(BREAKS, _NO_TIMEOUT, "the timeout option of the call"),
    "eventlet.GreenPool": Rule(BREAKS, _IN_TURN, "concurrent.futures.ThreadPoolExecutor"),
    "eventlet.GreenPile": Rule(BREAKS, _IN_TURN, "concurrent.futures.ThreadPoolExecutor.map"),
    "eventlet.greenpool": Rule(BREAKS, _IN_TURN, "concurrent.futures.ThreadPoolExecutor"),
    "eventlet.greenio": Rule(DIFFERS, _NOT_NEEDED, "socket"),
    "eventlet.event": Rule(
        BREAKS, _ACROSS_THREADS, "nameko.utils.threads.Event, with send, wait and ready"
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
        "nameko serves HTTP itself; it uses only app and debug of the result of get_wsgi_server()",
        "override WebServer.get_wsgi_app() to wrap the application",
    ),
    "eventlet.websocket": Rule(BREAKS, _NEVER_RUNS, "nameko.web.websocket"),
    "eventlet.listen": Rule(DIFFERS, _NOT_NEEDED, "socket.create_server"),
    "eventlet.connect": Rule(DIFFERS, _NOT_NEEDED, "socket.create_connection"),
    "eventlet.backdoor": Rule(BREAKS, _NEVER_RUNS, "nameko run --backdoor-port PORT"),
    "eventlet.hubs": Rule(BREAKS, "services do not run on a hub", "remove it"),
    "eventlet.debug": Rule(DIFFERS, "services do not run on a hub", "remove it"),
    "eventlet": Rule(DIFFERS, "nameko no longer uses eventlet", "threads, queue, socket"),
    "greenlet": Rule(
        BREAKS,
        "workers are threads; killing one raises nameko.utils.threads.ThreadKilled in it",
        "clean up in `finally`",
    ),
    "gevent.monkey": Rule(BREAKS, _PATCHES, "remove the call; patching is not needed"),
    "gevent.spawn": Rule(BREAKS, _NEVER_RUNS, "threading.Thread"),
    "gevent": Rule(BREAKS, "services do not run on gevent's loop", "threads"),
    "psycogreen": Rule(
        BREAKS, "psycopg2 would wait on a loop that does not run", "remove it: psycopg2 may block"
    ),
    "kombu.pools.set_limit": Rule(
        DIFFERS,
        "nameko opens no kombu connections: its publishers share one of their own",
        "remove it, unless your code uses kombu's pools",
    ),
    "kombu.pools.reset": Rule(
        DIFFERS,
        "nameko opens no kombu connections",
        "remove it, unless your code uses kombu's pools",
    ),
    "nameko.standalone.rpc.ConsumeEvent": Rule(
        BREAKS, "replies are matched by the compiled client", "the client's timeout"
    ),
}

# Methods of upstream's QueueConsumer that are inherited from kombu's ConsumerMixin or drive it.
CONSUMER_MIXIN = frozenset(
    {
        *("get_consumers", "consumer_context", "establish_connection", "create_connection"),
        *("on_connection_revived", "on_consume_ready", "on_consume_end", "on_iteration"),
        *("on_decode_error", "run", "consume", "maybe_conn_error", "extra_context", "Consumer"),
        *("_on_message", "handle_message", "_cancel_consumers_if_requested"),
    }
)


# Modules of direct and indirect dependencies of Nameko 2, and their pip requirements.
FORMER_DEPENDENCIES = {
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
    """Returns the rule for a dotted name, with the name that the rule is for."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        prefix = ".".join(parts[:length])
        if prefix in USES:
            return prefix, USES[prefix]
    return None
