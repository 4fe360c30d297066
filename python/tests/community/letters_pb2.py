"""The messages of a gRPC service, as protoc makes them of::

message Letters { string text = 1; }

service letters {
    rpc upper(Letters) returns (Letters);
    rpc split(Letters) returns (stream Letters);
    rpc join(stream Letters) returns (Letters);
}
"""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, symbol_database

_sym_db = symbol_database.Default()

_file = descriptor_pb2.FileDescriptorProto(
    name="letters.proto",
    package="letters",
    syntax="proto3",
    message_type=[
        descriptor_pb2.DescriptorProto(
            name="Letters",
            field=[
                descriptor_pb2.FieldDescriptorProto(
                    name="text",
                    number=1,
                    type=descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
                    label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
                )
            ],
        )
    ],
    service=[
        descriptor_pb2.ServiceDescriptorProto(
            name="letters",
            method=[
                descriptor_pb2.MethodDescriptorProto(
                    name=name,
                    input_type=".letters.Letters",
                    output_type=".letters.Letters",
                    client_streaming=name == "join",
                    server_streaming=name == "split",
                )
                for name in ("upper", "split", "join")
            ],
        )
    ],
)
DESCRIPTOR = descriptor_pool.Default().AddSerializedFile(_file.SerializeToString())
_LETTERS = DESCRIPTOR.services_by_name["letters"]
Letters = message_factory.GetMessageClass(DESCRIPTOR.message_types_by_name["Letters"])
_sym_db.RegisterMessage(Letters)
