"""Sends a raw request and prints the reply with its properties as JSON.

Requires only kombu. Arguments: broker URI, service, method, and the body.
"""

import json
import sys
import uuid

import kombu


def main(uri, service, method, body):
    reply_to = str(uuid.uuid4())
    exchange = kombu.Exchange("nameko-rpc", type="topic", durable=True)
    queue = kombu.Queue("raw-" + reply_to, exchange, reply_to, exclusive=True)
    replies = []
    with (
        kombu.Connection(uri) as connection,
        connection.channel() as channel,
        kombu.Consumer(channel, [queue], on_message=replies.append, no_ack=True),
    ):
        kombu.Producer(channel).publish(
            body,
            exchange=exchange,
            routing_key="{}.{}".format(service, method),
            content_type="application/json",
            content_encoding="utf-8",
            reply_to=reply_to,
            correlation_id="the-id",
            headers={},
        )
        while not replies:
            connection.drain_events(timeout=30)
    reply = replies[0]
    body = reply.body
    answer = {
        "body": body if isinstance(body, str) else bytes(body).decode(),
        "properties": reply.properties,
        "content_type": reply.content_type,
        "content_encoding": reply.content_encoding,
        "headers": reply.headers,
    }
    print(json.dumps(answer))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
