"""Reads the text-proto config files, and defines the two messages that tensorflow-serving-api does not ship."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from google.protobuf.message import Message

from serving.embedded.errors import invalid_argument

MessageT = TypeVar("MessageT", bound=Message)
_Field = descriptor_pb2.FieldDescriptorProto
_WRAPPERS = wrappers_pb2.DESCRIPTOR.name


def _define() -> descriptor_pool.DescriptorPool:
    """Build the messages of session_bundle_config.proto and monitoring_config.proto that a config file may hold."""
    file = descriptor_pb2.FileDescriptorProto(name="vitrine/server_config.proto", package="vitrine", syntax="proto3")
    file.dependency.append(_WRAPPERS)

    batching = file.message_type.add(name="BatchingParameters")
    wrapped = {
        "max_batch_size": (1, "Int64Value"),
        "batch_timeout_micros": (2, "Int64Value"),
        "max_enqueued_batches": (3, "Int64Value"),
        "num_batch_threads": (4, "Int64Value"),
        "thread_pool_name": (5, "StringValue"),
        "enable_large_batch_splitting": (8, "BoolValue"),
        "max_execution_batch_size": (9, "Int64Value"),
    }
    for name, (number, wrapper) in wrapped.items():
        batching.field.add(
            name=name,
            number=number,
            label=_Field.LABEL_OPTIONAL,
            type=_Field.TYPE_MESSAGE,
            type_name=f".google.protobuf.{wrapper}",
        )
    batching.field.add(name="allowed_batch_sizes", number=6, label=_Field.LABEL_REPEATED, type=_Field.TYPE_INT64)
    batching.field.add(name="pad_variable_length_inputs", number=7, label=_Field.LABEL_OPTIONAL, type=_Field.TYPE_BOOL)

    prometheus = file.message_type.add(name="PrometheusConfig")
    prometheus.field.add(name="enable", number=1, label=_Field.LABEL_OPTIONAL, type=_Field.TYPE_BOOL)
    prometheus.field.add(name="path", number=2, label=_Field.LABEL_OPTIONAL, type=_Field.TYPE_STRING)
    monitoring = file.message_type.add(name="MonitoringConfig")
    monitoring.field.add(
        name="prometheus_config",
        number=1,
        label=_Field.LABEL_OPTIONAL,
        type=_Field.TYPE_MESSAGE,
        type_name=".vitrine.PrometheusConfig",
    )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return pool


_POOL = _define()
BatchingParameters = message_factory.GetMessageClass(_POOL.FindMessageTypeByName("vitrine.BatchingParameters"))
MonitoringConfig = message_factory.GetMessageClass(_POOL.FindMessageTypeByName("vitrine.MonitoringConfig"))


def read(path: Path, message: MessageT) -> MessageT:
    """Parse a text-proto file into a message.

    Raises:
        ServingError: INVALID_ARGUMENT that names the file, and the line of what is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise invalid_argument(f"Cannot read config file '{path}': {error}") from None
    try:
        return text_format.Parse(text, message)
    except text_format.ParseError as error:
        raise invalid_argument(f"Invalid protobuf file: '{path}': {error}") from None
