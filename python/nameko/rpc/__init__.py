"""RPC: the entrypoint that serves calls, and the dependencies that make them.

Nameko 2 has a single module here. The package keeps its names, see :mod:`nameko.utils.facade`.
"""

from nameko.rpc import (
    client,
    fastpath,
    replies,
    reply_listener,
    responder,
    server,
    stages,
    topology,
)
from nameko.rpc.client import (
    Client,
    ClusterProxy,
    ClusterRpc,
    MethodProxy,
    RpcProxy,
    ServiceProxy,
    ServiceRpc,
)
from nameko.rpc.replies import ReplyEvent, RpcCall, RpcReply
from nameko.rpc.reply_listener import ReplyListener
from nameko.rpc.responder import Responder
from nameko.rpc.server import Rpc, RpcConsumer, rpc
from nameko.rpc.topology import (
    RPC_QUEUE_TEMPLATE,
    RPC_REPLY_QUEUE_TEMPLATE,
    RPC_REPLY_QUEUE_TTL,
    get_rpc_exchange,
)
from nameko.utils.facade import install_facade

__all__ = [
    "RPC_QUEUE_TEMPLATE",
    "RPC_REPLY_QUEUE_TEMPLATE",
    "RPC_REPLY_QUEUE_TTL",
    "Client",
    "ClusterProxy",
    "ClusterRpc",
    "MethodProxy",
    "ReplyEvent",
    "ReplyListener",
    "Responder",
    "Rpc",
    "RpcCall",
    "RpcConsumer",
    "RpcProxy",
    "RpcReply",
    "ServiceProxy",
    "ServiceRpc",
    "get_rpc_exchange",
    "rpc",
]

install_facade(
    __name__, [topology, stages, replies, reply_listener, client, responder, fastpath, server]
)
