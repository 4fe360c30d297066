"""Names and arguments of the exchange and the queues of RPC."""

from __future__ import annotations

from typing import Any

from kombu import Exchange

import nameko
from nameko.constants import AMQP_URI_CONFIG_KEY as AMQP_URI_CONFIG_KEY
from nameko.constants import RPC_EXCHANGE_CONFIG_KEY

RPC_QUEUE_TEMPLATE = "rpc-{}"
RPC_REPLY_QUEUE_TEMPLATE = "rpc.reply-{}-{}"
# Milliseconds that a reply queue outlives its last consumer. Read when a queue is declared.
RPC_REPLY_QUEUE_TTL = 300000

_DEFAULT_RPC_EXCHANGE = "nameko-rpc"
# Exchanges by name. Shared, because kombu copies an exchange when it binds it.
_exchanges: dict[str, Exchange] = {}


def get_rpc_exchange(config: Any = None) -> Exchange:
    """Returns the exchange of requests and replies. ``config`` is ``nameko.config`` by default."""
    config = nameko.config if config is None else config
    name = config.get(RPC_EXCHANGE_CONFIG_KEY, _DEFAULT_RPC_EXCHANGE)
    exchange = _exchanges.get(name)
    if exchange is None:
        exchange = _exchanges[name] = Exchange(name, durable=True, type="topic")
    return exchange
