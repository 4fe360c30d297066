"""Starts the services of examples/shop, each in a process of its own. Run by `make shop`.

Usage: scripts/with_postgresql scripts/shop.py python|rust|mixed [PORT]

The gateway listens on PORT, the feed on the next one. Ctrl-C stops the services.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from functools import partial

import psycopg
from background import DIM, PLAIN, ROOT, Service, comment, show, use_environment

# In the order of their start. The first one runs the broker if none is running.
SERVICES = ("stock", "orders", "notifications", "reports", "feed", "gateway")
IN_RUST = {"python": (), "rust": SERVICES, "mixed": ("stock", "orders", "reports")}

CONFIG = "examples/shop/config.yaml"
SCHEMA = "examples/shop/schema.sql"
DEFAULT_PORT = 8000

stopping = threading.Event()


def main() -> None:
    in_rust, port = arguments()
    use_environment()
    gateway, feed = ("127.0.0.1:{}".format(port + offset) for offset in (0, 1))
    # The variables of config.yaml.
    database = os.environ["POSTGRESQL_URL"]
    os.environ.update(DATABASE_URL=database, GATEWAY_ADDRESS=gateway, FEED_ADDRESS=feed)

    comment("The environment, for commands in other terminals")
    show('export PATH=.venv/bin:$PATH DATABASE_URL="{}"'.format(database))

    comment("The tables, in PostgreSQL: {}".format(SCHEMA))
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute((ROOT / SCHEMA).read_bytes())

    with contextlib.ExitStack() as services:
        for name in SERVICES:
            command = start_command(name, name in in_rust)
            if name == "feed":
                command += ["-d", "WEB_SERVER_ADDRESS=" + feed]
            services.enter_context(Service(*command, on_line=partial(print_line, name)))
        services.callback(announce_stop)
        introduce(gateway, feed)
        signal.pause()


def arguments() -> tuple[tuple[str, ...], int]:
    """Returns the services in Rust, and the port of the gateway."""
    languages, port = [*sys.argv[1:], "mixed", DEFAULT_PORT][:2]
    if languages not in IN_RUST:
        sys.exit("SHOP must be python, rust or mixed, not {!r}".format(languages))
    try:
        number = int(port)
    except ValueError:
        sys.exit("SHOP_PORT must be a number, not {!r}".format(port))
    return IN_RUST[languages], number


def start_command(name: str, in_rust: bool) -> list[str]:
    comment("{}, in {}".format(name, "Rust" if in_rust else "Python"))
    if in_rust:
        return ["target/debug/shop", "run", name, "--config", CONFIG]
    return ["nameko", "run", "examples.shop." + name, "--config", CONFIG]


def introduce(gateway: str, feed: str) -> None:
    curl = 'curl -i http://{}{{}} -H "Authorization: Bearer ada-secret"'.format(gateway)
    order = ' -H "Content-Type: application/json" -d \'{"product": "nut", "count": 2}\''
    comment("The shop is open. Order in a browser, where the feed pushes your orders to the page:")
    show("http://{}/".format(feed), prompt="  ")
    comment("Or in another terminal, as ada, bob, or void, whose mail bounces:")
    show(curl.format("/orders") + order)
    show(curl.format("/products/nut"))
    comment("Or call the services:")
    show("nameko shell")
    show("n.rpc.stock.available('nut')", prompt=">>> ")
    comment("Ctrl-C stops the services. Their log follows.")


def announce_stop() -> None:
    stopping.set()
    comment("The services stop.")


def print_line(service: str, line: str | None) -> None:
    """Prints a line of a service's log, with its name."""
    if stopping.is_set():
        return
    text = "ended, see above; Ctrl-C stops the others\n" if line is None else line
    sys.stdout.write("{}{:<13} |{} {}".format(DIM, service, PLAIN, text))
    sys.stdout.flush()


if __name__ == "__main__":
    # Unwinds the services.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with contextlib.suppress(KeyboardInterrupt):
        main()
