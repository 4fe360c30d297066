"""The command `make shop`, with the commands that it suggests."""

import shlex
import socket
import subprocess
import sys
from contextlib import ExitStack

import pytest
from program import INT, ROOT, TIMEOUT, Program

# Processes start slowly on a busy machine.
pytestmark = pytest.mark.timeout(180)

SCRIPT = ROOT / "scripts" / "shop.py"


def free_ports(number):
    """Returns the first of adjacent ports that are free."""
    while True:
        with ExitStack() as sockets:
            first = sockets.enter_context(socket.create_server(("127.0.0.1", 0)))
            port = first.getsockname()[1]
            try:
                for offset in range(1, number):
                    sockets.enter_context(socket.create_server(("127.0.0.1", port + offset)))
            except (OSError, OverflowError):
                continue
            return port


@pytest.mark.parametrize("languages", ["python", "mixed"])
def test_opens_the_shop_until_ctrl_c(rabbit_uri, database_url, languages):
    port = free_ports(2)
    with Program(
        *(languages, str(port)),
        command=[sys.executable, SCRIPT],
        AMQP_URI=rabbit_uri,
        POSTGRESQL_URL=database_url,
    ) as program:
        program.wait_for("Ctrl-C stops the services")
        curl = [line[2:] for line in program.seen if line.startswith("$ curl")]
        order, product = [
            subprocess.check_output(shlex.split(line), text=True, timeout=TIMEOUT) for line in curl
        ]
        assert order.startswith("HTTP/1.1 201")
        assert product.endswith('{"name": "nut", "available": 98}')
        program.wait_for("mail to ada: You ordered 2 of nut.")
        program.signal(INT)
        program.wait_for("The services stop.")
        assert program.wait() == 0
    for offset in (0, 1):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port + offset), timeout=TIMEOUT)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["perl"], "SHOP must be python, rust or mixed, not 'perl'"),
        (["python", "web"], "SHOP_PORT must be a number, not 'web'"),
    ],
)
def test_names_the_mistake_in_its_arguments(arguments, error):
    ended = subprocess.run(
        [sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=TIMEOUT
    )
    assert (ended.returncode, ended.stderr) == (1, error + "\n")
