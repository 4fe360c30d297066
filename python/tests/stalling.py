"""A broker that stops responding: it reads from a client but no longer answers."""

import socket
import threading
from urllib.parse import urlsplit

# Stages of a client: the protocol header, then methods by their AMQP 0-9-1 (class, method) ids.
STAGES = {
    "protocol header": None,
    "connection.start-ok": (10, 11),
    "connection.open": (10, 40),
    "channel.open": (20, 10),
    "exchange.declare": (40, 10),
    "queue.declare": (50, 10),
    "queue.bind": (50, 20),
    "basic.qos": (60, 10),
    "basic.consume": (60, 20),
    "basic.cancel": (60, 30),
}


class StallingBroker:
    """A proxy of the broker at ``uri``. Once a client sends ``stage``, its connection gets no
    further answers. Other connections keep working."""

    def __init__(self, uri, stage):
        address = urlsplit(uri)
        self._broker = (address.hostname, address.port)
        self._method = STAGES[stage]
        self._sockets = [socket.create_server(("127.0.0.1", 0))]
        port = self._sockets[0].getsockname()[1]
        credentials = address.netloc.rpartition("@")[0] or "guest:guest"
        self.uri = "amqp://{}@127.0.0.1:{}{}".format(credentials, port, address.path)
        # Set once a client has sent it.
        self.stalled = threading.Event()
        self._run(self._accept)

    def close(self):
        for sock in self._sockets:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    def _run(self, fn, *args):
        def run():
            try:
                fn(*args)
            except OSError:
                pass  # closed

        threading.Thread(target=run, daemon=True).start()

    def _accept(self):
        while True:
            client, _ = self._sockets[0].accept()
            broker = socket.create_connection(self._broker)
            self._sockets += [client, broker]
            silent = threading.Event()
            self._run(self._listen, client, broker, silent)
            self._run(self._answer, broker, client, silent)

    def _listen(self, client, broker, silent):
        reader = client.makefile("rb")
        method, sent = None, reader.read(8)
        while sent:
            if method == self._method:
                silent.set()
                self.stalled.set()
            if not silent.is_set():
                broker.sendall(sent)
            sent = reader.read(7)
            if sent:
                # A frame: type, channel, size; the payload; and the frame-end octet.
                sent += reader.read(int.from_bytes(sent[3:7], "big") + 1)
                is_method = sent[0] == 1
                method = (
                    (int.from_bytes(sent[7:9], "big"), int.from_bytes(sent[9:11], "big"))
                    if is_method
                    else ()
                )
        broker.close()

    def _answer(self, broker, client, silent):
        while (answer := broker.recv(65536)) and not silent.is_set():
            client.sendall(answer)
        if not silent.is_set():
            client.close()
