"""Progress of message handlers, reported to the load generator as in src/reports.rs."""

import itertools
import os
import socket

RESET_BYTES = 10
INTERVAL = 100

_socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
_socket.connect(("127.0.0.1", int(os.environ["REPORTS_PORT"])))
_counter = itertools.count(1)


def handled(text):
    """Counts a message, or resets the count if it is short."""
    global _counter
    if not isinstance(text, str) or len(text) < RESET_BYTES:
        _counter = itertools.count(1)
        _socket.send(b"0")
        return
    count = next(_counter)
    if count % INTERVAL == 0:
        _socket.send(b"%d" % count)
