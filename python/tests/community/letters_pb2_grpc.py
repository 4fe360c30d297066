"""The client and the server of :mod:`letters_pb2`, as grpc_tools makes them."""

import grpc
from letters_pb2 import Letters

_FORMS = {"upper": "unary_unary", "split": "unary_stream", "join": "stream_unary"}


class lettersStub:
    def __init__(self, channel):
        for name, form in _FORMS.items():
            method = getattr(channel, form)(
                "/letters.letters/" + name,
                request_serializer=Letters.SerializeToString,
                response_deserializer=Letters.FromString,
            )
            setattr(self, name, method)


def add_lettersServicer_to_server(servicer, server):
    handlers = {
        name: getattr(grpc, form + "_rpc_method_handler")(
            getattr(servicer, name),
            request_deserializer=Letters.FromString,
            response_serializer=Letters.SerializeToString,
        )
        for name, form in _FORMS.items()
    }
    handler = grpc.method_handlers_generic_handler("letters.letters", handlers)
    server.add_generic_rpc_handlers((handler,))
