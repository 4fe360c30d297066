"""Queues to declare, and how long to wait."""

import uuid

# How long anything may take before a test fails.
DEADLINE = 20


def a_queue(name=None, **attributes):
    """A queue that goes with its last consumer."""
    name = name or "test-{}".format(uuid.uuid4())
    return {"name": name, "durable": True, "auto_delete": True, **attributes}


def a_reply_queue():
    """A reply queue and the key that replies are sent to."""
    key = str(uuid.uuid4())
    exchange = {"name": "test-rpc", "type": "topic", "durable": True}
    bindings = [{"exchange": exchange, "routing_key": key}]
    arguments = {"x-expires": 60000}
    name = "test-reply-{}".format(key)
    return {"name": name, "durable": True, "arguments": arguments, "bindings": bindings}, key
