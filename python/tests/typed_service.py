"""A service with type hints, checked by mypy: decorators keep the signatures of methods.

Otherwise mypy would report the `type: ignore` comments below as unused.
"""

from typing import Any

from kombu import Queue

from nameko.events import event_handler
from nameko.messaging import consume
from nameko.rpc import rpc
from nameko.testing.services import once
from nameko.timer import timer
from nameko.web.handlers import http


class Shop:
    name = "shop"

    @rpc
    def price(self, item: str) -> int:
        return len(item)

    @rpc(expected_exceptions=KeyError)
    async def stock(self, item: str) -> int:
        return len(item)

    @event_handler("orders", "placed")
    @consume(Queue("parcels"))
    def pack(self, order: dict[str, int]) -> None: ...

    @timer(60)
    @once
    def count(self) -> None: ...

    @http("GET", "/items/<item>")
    def show(self, request: Any, item: str) -> str:
        return item


async def use(shop: Shop) -> None:
    shop.price(1)  # type: ignore[arg-type]
    await shop.stock(1)  # type: ignore[arg-type]
    shop.pack("parcel")  # type: ignore[arg-type]
    shop.count(1)  # type: ignore[call-arg]
    shop.show(None, 1)  # type: ignore[arg-type]
