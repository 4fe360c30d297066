"""The exchange and the queues of RPC: their names and arguments."""

from __future__ import annotations

from typing import Any

from kombu import Exchange

import nameko
from nameko.constants import RPC_EXCHANGE_CONFIG_KEY

RPC_QUEUE_TEMPLATE = "rpc-{}"
RPC_REPLY_QUEUE_TEMPLATE = "rpc.reply-{}-{}"
# How long a reply queue outlives its last consumer (ms). Read whenever one is declared.
RPC_REPLY_QUEUE_TTL = 300000

_DEFAULT_RPC_EXCHANGE = "nameko-rpc"
# Name -> Exchange; kombu copies an exchange when it binds it, so one serves all.
_exchanges: dict[str, Exchange] = {}


def get_rpc_exchange(config: Any = None) -> Exchange:
    """The exchange of all requests and replies. Without ``config`` it takes ``nameko.config``."""
    config = nameko.config if config is None else config
    name = config.get(RPC_EXCHANGE_CONFIG_KEY, _DEFAULT_RPC_EXCHANGE)
    exchange = _exchanges.get(name)
    if exchange is None:
        exchange = _exchanges[name] = Exchange(name, durable=True, type="topic")
    return exchange
