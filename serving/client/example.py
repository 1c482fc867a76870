"""A tf.Example with one bytes feature, written in protobuf's wire format: the input of the `classify` signature.

    message Example  { Features features = 1; }
    message Features { map<string, Feature> feature = 1; }   // an entry: key = 1, value = 2
    message Feature  { BytesList bytes_list = 1; }
    message BytesList { repeated bytes value = 1; }

Source: tensorflow/core/example/example.proto and feature.proto.
"""

from __future__ import annotations


def bytes_example(feature: str, value: bytes) -> bytes:
    """Serialized tf.Example whose only feature holds one bytes value.

    Args:
        feature: the feature's name, for instance `image_bytes`.
        value: its value.
    """
    bytes_list = _field(1, value)
    entry = _field(1, feature.encode()) + _field(2, _field(1, bytes_list))
    return _field(1, _field(1, entry))


def _field(number: int, payload: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
