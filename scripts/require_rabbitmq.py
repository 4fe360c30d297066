"""Checks that RabbitMQ with its management API is reachable at the given URI.

The server properties in the first frame, connection.start, name the product. The tests create
virtual hosts through the management API.
"""

import socket
import sys
import time
from urllib.parse import urlsplit

from nameko.testing.rabbit import default_api_uri

PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
# A starting node serves AMQP shortly before the API.
API_TIMEOUT_SECONDS = 20


def main(uri: str) -> str | None:
    parts = urlsplit(uri)
    host, port = parts.hostname or "localhost", parts.port or 5672
    management_port = urlsplit(default_api_uri(uri)).port
    hint = "install and start it (apt-get install rabbitmq-server), or set RABBITMQ_URI"
    try:
        with socket.create_connection((host, port), timeout=5) as peer:
            peer.sendall(PROTOCOL_HEADER)
            start_frame = peer.recv(4096)
    except OSError as error:
        return f"no RabbitMQ at {host}:{port} ({error}): {hint}"
    if b"RabbitMQ" not in start_frame:
        return f"the server at {host}:{port} is not RabbitMQ: {hint}"
    if not api_answers(host, management_port):
        hint = "rabbitmq-plugins enable rabbitmq_management"
        return f"no management API at {host}:{management_port}: {hint}"
    return None


def api_answers(host: str, port: int) -> bool:
    deadline = time.monotonic() + API_TIMEOUT_SECONDS
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return True
        except OSError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
