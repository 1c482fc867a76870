"""tf.Examples of Classify and Regress: from the JSON of REST and the Input message of gRPC to serialized bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from tensorflow.core.example.example_pb2 import Example
from tensorflow.core.example.feature_pb2 import Feature
from tensorflow_serving.apis.input_pb2 import Input

from serving.embedded.errors import ServingError, invalid_argument
from serving.embedded.json_tensors import decode_base64, is_base64_object, json_type
from serving.embedded.json_writer import quoted_value

_KINDS = {"bytes_list": "bytes", "float_list": "float", "int64_list": "int64"}


def from_input(message: Input) -> list[bytes]:
    """Serialize each example; the context's bytes come before each, which merges their features."""
    kind = message.WhichOneof("kind")
    if kind == "example_list":
        return [example.SerializeToString() for example in message.example_list.examples]
    if kind == "example_list_with_context":
        listed = message.example_list_with_context
        context = listed.context.SerializeToString()
        return [context + example.SerializeToString() for example in listed.examples]
    return []


def from_json(document: Mapping[str, Any]) -> list[bytes]:
    """Build the examples of a :classify or :regress body; of one error the real server says "classify" for both.

    Raises:
        ServingError: INVALID_ARGUMENT.
    """
    context = b""
    if "context" in document:
        context = _example(document["context"]).SerializeToString()
    if "examples" not in document:
        raise _malformed(document, "When method is classify, key 'examples' is expected and was not found")
    listed = document["examples"]
    if not isinstance(listed, list):
        raise _malformed(document, "Expecting 'examples' value to be an list/array")
    if not listed:
        raise _malformed(document, "'examples' value is an empty array")
    return [context + _example(value).SerializeToString() for value in listed]


def _malformed(document: Mapping[str, Any], reason: str) -> ServingError:
    return invalid_argument(f"JSON Value: {quoted_value(dict(document))} {reason}")


def _example(value: Any) -> Example:
    if not isinstance(value, dict):
        raise invalid_argument(f"Example must be JSON object but got JSON {json_type(value)}")
    example = Example()
    for name, content in value.items():
        feature = Feature()
        for item in content if isinstance(content, list) else [content]:
            _add(item, name, feature)
        try:
            example.features.feature[name].CopyFrom(feature)
        except (UnicodeEncodeError, ValueError):
            raise invalid_argument(f"Feature name is not UTF-8: {name!a}") from None
    return example


def _add(item: Any, name: str, feature: Feature) -> None:
    """Add one JSON value to a feature; the first value decides what kind the feature is."""
    if isinstance(item, str):
        _list(feature, "bytes_list", name).append(item.encode("utf-8", "surrogateescape"))
    elif is_base64_object(item):
        _list(feature, "bytes_list", name).append(decode_base64(item["b64"]))
    elif isinstance(item, bool):
        _list(feature, "int64_list", name).append(int(item))
    elif isinstance(item, int) and -(2**63) <= item < 2**64:
        if item >= 2**63:
            raise invalid_argument(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
        _list(feature, "int64_list", name).append(item)
    elif isinstance(item, int | float):
        with np.errstate(over="ignore"):
            _list(feature, "float_list", name).append(float(np.float32(item)))
    else:
        raise invalid_argument(f"Feature: {name} has element with unexpected JSON type: {json_type(item)}")


def _list(feature: Feature, kind: str, name: str) -> Any:
    present = feature.WhichOneof("kind")
    if present not in (None, kind):
        raise invalid_argument(f"Unexpected element type in feature: {name} expecting type: {_KINDS[present]}")
    return getattr(feature, kind).value
