"""Fails, with what to do, unless RabbitMQ with its management API answers at the URI given.

An AMQP server introduces itself in its first frame; RabbitMQ does so by name. Through the API,
tests make virtual hosts of their own.
"""

import socket
import sys
import time
from urllib.parse import urlsplit

PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
MANAGEMENT_PORT = 15672
# The API of a node that has just started comes up a moment after AMQP (seconds).
PATIENCE = 20


def main(uri: str) -> str | None:
    parts = urlsplit(uri)
    host, port = parts.hostname or "localhost", parts.port or 5672
    hint = "install and start it (apt-get install rabbitmq-server), or set RABBITMQ_URI"
    try:
        with socket.create_connection((host, port), timeout=5) as peer:
            peer.sendall(PROTOCOL_HEADER)
            introduction = peer.recv(4096)
    except OSError as error:
        return f"no RabbitMQ at {host}:{port} ({error}): {hint}"
    if b"RabbitMQ" not in introduction:
        return f"what answers at {host}:{port} is not RabbitMQ: {hint}"
    if not api_answers(host):
        hint = "rabbitmq-plugins enable rabbitmq_management"
        return f"no management API at {host}:{MANAGEMENT_PORT}: {hint}"
    return None


def api_answers(host: str) -> bool:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection((host, MANAGEMENT_PORT), timeout=5).close()
            return True
        except OSError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
