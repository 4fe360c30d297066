"""Fails, with what to do, unless RabbitMQ answers at the URI given.

An AMQP server introduces itself in its first frame; RabbitMQ does so by name.
"""

import socket
import sys
from urllib.parse import urlsplit

PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"


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
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
