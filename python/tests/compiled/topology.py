"""Queue declarations and the timeout of waits."""

import uuid

# Timeout of each wait, in seconds.
DEADLINE = 20


def a_queue(name=None, **attributes):
    """Returns an auto-delete queue."""
    name = name or "test-{}".format(uuid.uuid4())
    return {"name": name, "durable": True, "auto_delete": True, **attributes}


def a_reply_queue():
    """Returns a reply queue and its routing key."""
    key = str(uuid.uuid4())
    exchange = {"name": "test-rpc", "type": "topic", "durable": True}
    bindings = [{"exchange": exchange, "routing_key": key}]
    arguments = {"x-expires": 60000}
    name = "test-reply-{}".format(key)
    return {"name": name, "durable": True, "arguments": arguments, "bindings": bindings}, key
