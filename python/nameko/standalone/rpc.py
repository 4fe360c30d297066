"""RPC clients for programs that are not services. They are thread-safe and support asyncio."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from types import TracebackType
from typing import Any

from amqp.exceptions import ConnectionError as ConnectionError
from kombu import Connection as Connection
from kombu.common import maybe_declare as maybe_declare
from kombu.messaging import Consumer as Consumer

import nameko
from nameko import _nameko, serialization
from nameko.amqp import connection
from nameko.amqp.errors import BrokerUnreachable, translate
from nameko.amqp.publish import Producer
from nameko.constants import AMQP_SSL_CONFIG_KEY, AMQP_URI_CONFIG_KEY, LOGIN_METHOD_CONFIG_KEY
from nameko.containers import WorkerContext
from nameko.exceptions import RpcTimeout as RpcTimeout
from nameko.extensions import Entrypoint
from nameko.rpc import ClusterProxy, ReplyEvent, ReplyListener, ServiceProxy
from nameko.utils import green

_logger = logging.getLogger(__name__)

# Seconds that start() waits for the broker, and a call for a lost connection.
CONNECT_TIMEOUT = 3.0

# Kinds of errors for which a retry is pointless.
_PERMANENT_ERRORS = frozenset(
    {"access_refused", "not_allowed", "not_amqp", "handshake", "tls", "uri"}
)


# Options of a client that override settings.
_BROKER_OPTIONS = (
    ("uri", AMQP_URI_CONFIG_KEY),
    ("ssl", AMQP_SSL_CONFIG_KEY),
    ("login_method", LOGIN_METHOD_CONFIG_KEY),
)


class Disconnected(RuntimeError, OSError):
    """The client has lost its broker, so replies cannot be received for now. It connects again in
    the background."""


class ReplyConsumer:
    """The connection on which a client receives its replies."""

    def __init__(self, timeout: float | None = None) -> None:
        # Timeout of each reply in seconds; None disables it.
        self.timeout = timeout
        # The compiled half, from start to stop.
        self._consumers: _nameko.Consumers | None = None
        # Set whenever a connection has been established.
        self._connected = threading.Event()
        # Error of the latest attempt to connect.
        self._error: _nameko.AmqpError | None = None

    @property
    def stopped(self) -> bool:
        return self._consumers is None

    @property
    def connected(self) -> bool:
        return self._consumers is not None and self._consumers.connected

    @property
    def connection(self) -> ReplyConsumer:
        """An object with the attribute ``connected``."""
        return self

    def register_provider(self, provider: Any) -> None:
        """Connects, and starts to consume replies for a reply listener."""
        config = provider.container.config
        options = connection.configured_options(config, name=provider.container.service_name)
        self._error = None
        consumers = _nameko.Consumers(
            options, on_error=self._on_error, on_connected=self._connected.set
        )
        self._consumers = consumers
        provider.attach(consumers, None)
        try:
            if green.run(consumers.start, CONNECT_TIMEOUT):
                return
            error = self._error
            if error is not None:
                raise translate(error)
            raise BrokerUnreachable(
                "no answer from the broker at {} within {} s; is that an AMQP broker, and does the "
                "network let it through?".format(options.uri, CONNECT_TIMEOUT)
            )
        except BaseException:
            self._consumers = None
            consumers.kill()
            raise

    def unregister_provider(self, provider: Any) -> None:
        consumers, self._consumers = self._consumers, None
        if consumers is not None:
            green.run(consumers.stop)

    def ack_message(self, message: Any) -> None:
        """A no-op: replies are acknowledged on receipt."""

    def check(self) -> None:
        """Raises RuntimeError if replies cannot be received.

        Waits ``CONNECT_TIMEOUT`` for a lost connection before it raises :class:`Disconnected`.
        """
        consumers = self._consumers
        if consumers is None:
            raise RuntimeError("This consumer has been stopped, and can no longer be used")
        if consumers.connected:
            return
        self._connected.clear()
        if not consumers.connected and not self._connected.wait(CONNECT_TIMEOUT):
            raise Disconnected(
                "This consumer has been disconnected{}. It connects again in the background, and "
                "can be used once the broker is back".format(
                    "" if self._error is None else " ({})".format(translate(self._error))
                )
            )

    def _on_error(self, exc: Exception, interval: float) -> None:
        if not isinstance(exc, _nameko.AmqpError):
            return
        self._error = exc
        consumers = self._consumers
        if not self._connected.is_set() and exc.kind in _PERMANENT_ERRORS and consumers is not None:
            consumers.kill()
        else:
            _logger.debug("cannot reach the broker, trying again in %.1f s: %s", interval, exc)


class StandaloneReplyListener(ReplyListener):
    """Receives the replies of one client on a connection of its own."""

    queue_consumer: ReplyConsumer  # type: ignore[assignment]

    def __init__(self, timeout: float | None = None) -> None:
        super().__init__()
        self.queue_consumer = ReplyConsumer(timeout)

    @property
    def timeout(self) -> float | None:  # type: ignore[override]
        return self.queue_consumer.timeout

    def get_reply_event(self, correlation_id: str) -> Any:
        self.queue_consumer.check()
        return super().get_reply_event(correlation_id)

    def on_unknown_reply(self, correlation_id: str | None) -> None:
        _logger.debug("Unknown correlation id: %s", correlation_id)


# Upstream's names.
SingleThreadedReplyListener = StandaloneReplyListener
ConsumeEvent = ReplyEvent
PollingQueueConsumer = ReplyConsumer


class StandaloneProxyBase:
    """A client, used with ``with``, ``async with``, or ``start()`` and ``stop()``.

    Calls block, also on an asyncio loop; with ``async with`` they are awaited there.
    """

    class ServiceContainer:
        """The part of a container that proxies and reply listeners use."""

        service_name = "standalone_rpc_proxy"

        def __init__(self, config: Any) -> None:
            self.config = config
            self.serializer, self.accept = serialization.setup(config)
            self.shared_extensions: dict[Any, Any] = {}

    class Dummy(Entrypoint):
        method_name = "call"

    _proxy: Any = None

    def __init__(
        self,
        config: Any = None,
        context_data: dict[str, Any] | None = None,
        timeout: float | None = None,
        reply_listener_cls: Any = StandaloneReplyListener,
        **options: Any,
    ) -> None:
        config = nameko.config if config is None else config
        # Options for the broker apply to requests and replies.
        broker = {key: options.pop(name) for name, key in _BROKER_OPTIONS if name in options}
        container = self.ServiceContainer({**config, **broker} if broker else config)
        self._worker_ctx = WorkerContext(
            container, service=None, entrypoint=self.Dummy, data=context_data
        )
        self._reply_listener = reply_listener_cls(timeout=timeout).bind(container)
        # Publisher options of every call.
        self._options = options
        # Id of the process that started the client, guarded by the lock.
        self._started_in: int | None = None
        self._start_lock = threading.Lock()

    def start(self) -> Any:
        """Connects and returns the proxy. Idempotent, so that threads can call it independently.

        The client may be started again after stop(), and after a fork. Raises the exceptions of
        kombu and py-amqp if the broker is unreachable or refuses the connection.
        """
        with self._start_lock:
            if self._started_in != os.getpid():
                self._reply_listener.setup()
                self._started_in = os.getpid()
        return self._proxy

    def stop(self) -> None:
        """Closes the connections and deletes the reply queue. Calls in flight fail."""
        started_in, self._started_in = self._started_in, None
        self._reply_listener.stop()
        if started_in == os.getpid():
            config = self._worker_ctx.container.config
            Producer(connection.configured_options(config)).publisher.close_if_idle()

    def __enter__(self) -> Any:
        self._reply_listener.asynchronous = False
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Any:
        self._reply_listener.asynchronous = True
        return await asyncio.to_thread(self.start)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.stop)


class ServiceRpcProxy(StandaloneProxyBase):
    """A client of one service.

    ::

        with ServiceRpcProxy("service_x", config) as service_x:
            service_x.remote_method("hello")

    ``context_data`` is sent with every call. A call without a reply raises RpcTimeout after
    ``timeout`` seconds. Further options are those of :class:`nameko.amqp.publish.Publisher`, and
    ``uri``, ``ssl`` and ``login_method``, which override the configured broker.
    """

    def __init__(self, service_name: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._proxy = ServiceProxy(
            self._worker_ctx, service_name, self._reply_listener, **self._options
        )


class ClusterRpcProxy(StandaloneProxyBase):
    """A client of all services of a cluster, with a shared connection for replies.

    ::

        with ClusterRpcProxy(config) as cluster:
            cluster.service_x.remote_method("hello")
            cluster["service-y"].append_id("hello")

    See :class:`ServiceRpcProxy` for the arguments.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._proxy = ClusterProxy(self._worker_ctx, self._reply_listener, **self._options)


class ServiceRpcClient(ServiceRpcProxy):
    """:class:`ServiceRpcProxy` with the signature of version 3, configured by ``nameko.config``."""

    def __init__(
        self,
        service_name: str,
        context_data: dict[str, Any] | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            service_name, options.pop("config", None), context_data, timeout, **options
        )


class ClusterRpcClient(ClusterRpcProxy):
    """:class:`ClusterRpcProxy` with the signature of version 3, configured by ``nameko.config``."""

    def __init__(
        self,
        context_data: dict[str, Any] | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(options.pop("config", None), context_data, timeout, **options)


class _Async(StandaloneProxyBase):
    """A client with awaitable calls, used with ``async with`` only."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reply_listener.asynchronous = True

    def __enter__(self) -> Any:
        raise TypeError("{} requires `async with`".format(type(self).__name__))


class AsyncServiceRpcClient(_Async, ServiceRpcClient):
    """A client of one service for asyncio programs. Connecting does not block the loop.

    ::

        async with AsyncServiceRpcClient("service_x", timeout=5) as service_x:
            await service_x.remote_method("hello")
            await asyncio.gather(*[service_x.remote_method(n) for n in range(100)])

    The reply of a call that was cancelled or timed out is dropped. The arguments are those of
    :class:`ServiceRpcClient`.
    """


class AsyncClusterRpcClient(_Async, ClusterRpcClient):
    """:class:`AsyncServiceRpcClient` for all services: ``await cluster.service_x.method()``."""
