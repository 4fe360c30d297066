"""A client for the management API of RabbitMQ and the embedded broker, for tests."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any
from urllib.error import HTTPError as _ErrorResponse
from urllib.error import URLError
from urllib.parse import quote, unquote, urlsplit
from urllib.request import Request, urlopen

try:
    from requests import HTTPError
except ImportError:

    class HTTPError(OSError):  # type: ignore[no-redef]
        """An error response. Replaced by ``requests.HTTPError`` if requests is installed.

        ``response`` has ``status_code``, ``content``, ``text`` and ``json()``.
        """

        def __init__(self, *args: Any, response: Response) -> None:
            super().__init__(*args)
            self.response = response


__all__ = ["Client", "HTTPError"]

# Timeout of a request, in seconds.
_TIMEOUT = 60


class Response:
    """An error response of the API."""

    def __init__(self, url: str, status_code: int, reason: str, content: bytes) -> None:
        self.url = url
        self.status_code = status_code
        self.reason = reason
        self.content = content

    @property
    def text(self) -> str:
        return self.content.decode(errors="replace")

    def json(self) -> Any:
        return json.loads(self.content)


def default_api_uri(amqp_uri: str) -> str:
    """Returns the URI of a RabbitMQ's management API, with the credentials of the AMQP URI.

    Its port is 10000 above the AMQP port, as 15672 is above 5672.
    """
    parts = urlsplit(amqp_uri)
    login = parts.netloc.rpartition("@")[0] or "guest:guest"
    return "http://{}@{}:{}".format(login, parts.hostname, 10_000 + (parts.port or 5672))


class Client:
    """A client for the API at ``uri``, such as ``http://guest:guest@localhost:15672``.

    Error responses raise :class:`HTTPError`. The constructor raises an exception if the API is
    unreachable. Thread-safe.
    """

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        login, at, address = parts.netloc.rpartition("@")
        user, _, password = login.partition(":")
        self._base_url = parts._replace(netloc=address).geturl().rstrip("/") + "/api"
        self._headers = {"Content-Type": "application/json"}
        if at:
            plain = "{}:{}".format(unquote(user), unquote(password))
            self._headers["Authorization"] = "Basic " + b64encode(plain.encode()).decode()
        self._verify_api_connection()

    def get_connections(self) -> list[dict[str, Any]]:
        return self._request("GET", "connections")

    def delete_connection(self, name: str) -> None:
        """Makes the broker close a connection."""
        return self._request("DELETE", "connections", name)

    def get_exchanges(self, vhost: str) -> list[dict[str, Any]]:
        return self._request("GET", "exchanges", vhost)

    def get_all_vhosts(self) -> list[dict[str, Any]]:
        return self._request("GET", "vhosts")

    def create_vhost(self, vhost: str) -> None:
        return self._request("PUT", "vhosts", vhost)

    def delete_vhost(self, vhost: str) -> None:
        return self._request("DELETE", "vhosts", vhost)

    def set_vhost_permissions(
        self, vhost: str, username: str, configure: str, read: str, write: str
    ) -> None:
        """Sets permissions, as regular expressions. The embedded broker only accepts ``.*``."""
        permissions = {"configure": configure, "read": read, "write": write}
        return self._request("PUT", "permissions", vhost, username, body=permissions)

    def get_queue(self, vhost: str, name: str) -> dict[str, Any]:
        return self._request("GET", "queues", vhost, name)

    def create_queue(self, vhost: str, name: str, **properties: Any) -> None:
        """Creates a queue. Properties are ``durable``, ``auto_delete`` and ``arguments``."""
        return self._request("PUT", "queues", vhost, name, body=properties)

    def get_queues(self, vhost: str) -> list[dict[str, Any]]:
        return self._request("GET", "queues", vhost)

    def get_queue_bindings(self, vhost: str, name: str) -> list[dict[str, Any]]:
        return self._request("GET", "queues", vhost, name, "bindings")

    def create_queue_binding(self, vhost: str, exchange: str, queue: str, routing_key: str) -> None:
        body = {"routing_key": routing_key}
        return self._request("POST", "bindings", vhost, "e", exchange, "q", queue, body=body)

    def publish(
        self,
        vhost: str,
        name: str,
        routing_key: str,
        payload: str,
        properties: dict[str, Any] | None = None,
    ) -> dict[str, bool]:
        """Publishes to the exchange ``name``, or ``amq.default`` for the default exchange.

        Returns ``{"routed": bool}``.
        """
        body = {
            "routing_key": routing_key,
            "payload": payload,
            "properties": properties or {},
            "payload_encoding": "string",
        }
        return self._request("POST", "exchanges", vhost, name, "publish", body=body)

    def get_messages(
        self, vhost: str, name: str, count: int = 1, requeue: bool = False
    ) -> list[dict[str, Any]]:
        """Takes up to ``count`` messages from a queue; with ``requeue`` they stay in it."""
        body = {
            "count": count,
            "encoding": "auto",
            # ackmode is for RabbitMQ 3.7 and later, requeue for older versions.
            "ackmode": "ack_requeue_true" if requeue else "ack_requeue_false",
            "requeue": requeue,
        }
        return self._request("POST", "queues", vhost, name, "get", body=body)

    # Nameko 2 has no other way to call the rest of the API. ``json`` is the body of the request.

    def _get(self, *path: str) -> Any:
        return self._request("GET", *path)

    def _put(self, *path: str, json: Any = None) -> Any:
        return self._request("PUT", *path, body=json)

    def _post(self, *path: str, json: Any = None) -> Any:
        return self._request("POST", *path, body=json)

    def _delete(self, *path: str) -> Any:
        return self._request("DELETE", *path)

    def _verify_api_connection(self) -> None:
        self._request("GET", "overview")

    def _request(self, method: str, *path: str, body: Any = None) -> Any:
        url = "/".join([self._base_url, *(quote(part, "") for part in path)])
        data = None if body is None else json.dumps(body).encode()
        request = Request(url, data, self._headers, method=method)
        try:
            with urlopen(request, timeout=_TIMEOUT) as response:
                content = response.read()
        except _ErrorResponse as exc:
            with exc:
                error = Response(url, exc.code, exc.reason, exc.read())
            text = "{} {} for {} {}: {}".format(
                error.status_code, error.reason, method, url, error.text
            )
            raise HTTPError(text, response=error) from None
        except URLError as exc:
            raise Exception(
                "Connection error for the RabbitMQ management HTTP"
                " API at {}, is it enabled?".format(url)
            ) from exc
        return json.loads(content) if content else None
