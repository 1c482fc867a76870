"""Makes requests for the fuzz run: valid ones, bent ones and noise. The same seed and number give the same request."""

from __future__ import annotations

import base64
import copy
import gzip
import json
import random
import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    input_pb2,
    predict_pb2,
    regression_pb2,
)

PREDICTION, MODEL = "/tensorflow.serving.PredictionService/", "/tensorflow.serving.ModelService/"
REQUEST_TYPES: dict[str, type[Message]] = {
    PREDICTION + "Predict": predict_pb2.PredictRequest,
    PREDICTION + "Classify": classification_pb2.ClassificationRequest,
    PREDICTION + "Regress": regression_pb2.RegressionRequest,
    PREDICTION + "MultiInference": inference_pb2.MultiInferenceRequest,
    PREDICTION + "GetModelMetadata": get_model_metadata_pb2.GetModelMetadataRequest,
    MODEL + "GetModelStatus": get_model_status_pb2.GetModelStatusRequest,
}
ECHOES = {
    "float64": "double", "int8": "int8", "int16": "int16", "int32": "int32", "int64": "int64", "uint8": "uint8",
    "uint32": "uint32", "uint64": "uint64", "bool": "bool", "half": "half", "complex64": "complex64",
}  # fmt: skip

_REST_BODIES: list[tuple[str, Any]] = [
    ("m:predict", {"instances": [1, 2.5, -3]}),
    ("m:predict", {"inputs": [[1.0, 2.0], [3.0, 4.0]]}),
    ("m/versions/1:predict", {"signature_name": "serving_default", "instances": [[0.5], [1.5]]}),
    ("m:predict", {"signature_name": "two", "instances": [{"a": 1, "b": 2}, {"a": 3, "b": 4}]}),
    ("m:predict", {"signature_name": "two", "inputs": {"a": [1, 2], "b": [3, 4]}}),
    ("m:predict", {"signature_name": "strings", "inputs": ["Ab", {"b64": "/+8="}]}),
    ("m:predict", {"signature_name": "strings", "instances": [{"b64": "aGk="}, {"b64": "aGk"}]}),
    ("m:predict", {"signature_name": "decode", "instances": [{"b64": "R0lGODlhAQABAAAAACw="}]}),
    ("m:classify", {"signature_name": "classify", "examples": [{"x": 0.5}, {}]}),
    ("m:classify", {"signature_name": "classify", "context": {"x": 0.25}, "examples": [{}]}),
    ("m:regress", {"signature_name": "regress", "examples": [{"x": [0.5]}, {"y": ["a", {"b64": "AA=="}]}]}),
    *(
        ("m:predict", {"signature_name": f"echo_{kind}", form: [True, False] if kind == "bool" else [1, 2]})
        for kind in ECHOES
        for form in ("instances", "inputs")
    ),
]
_GETS = [
    "/v1/models/m", "/v1/models/m/versions/1", "/v1/models/m/metadata", "/v1/models/m/versions/1/metadata",
    "/v1/models/m/labels/x", "/v1/models", "/v1/models/", "/monitoring/prometheus/metrics", "/", "/v1", "/v1/",
]  # fmt: skip
_JSON_VALUES: list[Any] = [
    None, True, False, 0, -1, 1.5, -0.0, 1e39, 1e308, 2**31, -(2**31) - 1, 2**53 + 1, 2**63, -(2**63), 2**64, 10**40,
    float("nan"), float("inf"), float("-inf"), "", "a", "\u0000", "\ud83d\ude00", "\udcff", "x" * 3000, [], {}, [[]],
    [[1], [2, 3]], [[[[1]]]], {"b64": ""}, {"b64": "A"}, {"b64": "-_=="}, {"b64": 1}, {"b64": "AA==", "c": 1},
    [1] * 500, {"x": 1}, {"a": 1, "b": 2}, [{"x": [1, 1.5]}], ["a", 1], [None], [True, 1],
]  # fmt: skip
_TOKENS = [
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u", b"\\ud800", b"\\udc00", b"null", b"true", b"NaN", b"nan",
    b"Inf", b"-Infinity", b"1e999", b"-", b".", b"0", b"00", b"1.", b"1e", b"9" * 400, b"\x00", b"\xff", b"\xc3\x28",
    b"\xef\xbb\xbf", b" ", b"\n", b"//", b"[" * 3000, b'{"a":' * 2000, b'{"b64":"', b"'instances'",
]  # fmt: skip
_PATH_PARTS = [
    "v1", "models", "m", "nope", "versions", "labels", "1", "01", "9", "0", "-1", "9223372036854775807",
    "9223372036854775808", "1" * 40, "stable", "metadata", "", ".", "..", "%6d", "%", "%zz", "%00", "%ff", "%2F", "M",
    "m:predict", "m:classify", "m:regress", "m:", ":predict", "m:PREDICT", "m:predict/x", "m?x=1", "m#f", "\u00e9",
    "x" * 2000, "*", "m:predict?", ";", "m\t",
]  # fmt: skip
_HEADERS = [
    b"Content-Type: text/xml", b"Content-Type: \xff\xfe", b"Content-Encoding: gzip", b"Content-Encoding: br",
    b"Accept: text/html", b"Accept-Encoding: gzip", b"Expect: 100-continue", b"Origin: http://a", b"Origin: null",
    b"Connection: close", b"Connection: keep-alive", b"Connection: Upgrade", b"X: " + b"y" * 5000, b"Cookie: a=b",
    b"X-Forwarded-For: 1.2.3.4", b"Upgrade: websocket", b"Upgrade: h2c", b"Range: bytes=0-1", b"X-Empty:",
    b"Authorization: Basic Og==", b"TE: trailers", b"Content-Encoding: x-gzip, identity",
]  # fmt: skip
_BAD_HEADERS = [
    b"Content-Length: -1", b"Content-Length: 99999999999999999999", b"Content-Length: abc", b"Content-Length: 3",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: nonsense", b"no colon",
    b": no name", b"X\x00Y: 1", b"X: \x00", b" folded: 1", b"Host: a\r\nHost: b", b"\x80\x81: 1",
]  # fmt: skip
_METHODS = [b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"]
_SIZES = [0, 1, 1, 2, 2, 3, 5, 300, -1, -(2**63), 2**31, 2**33, 2**62, 2**63 - 1]
_INTEGERS = [0, 1, -1, 2, 127, 128, 255, 256, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63), 2**64 - 1]
_WORDS = [
    "", "m", "nope", "serving_default", "two", "strings", "decode", "classify", "regress", "x", "a", "b", "s", "v", "y",
    "inputs", "outputs", "image_bytes", "signature_def", "tensorflow/serving/classify", "tensorflow/serving/regress",
    "\u0000", "\u00e9", "z" * 2000, "__saved_model_init_op", *(f"echo_{kind}" for kind in ECHOES),
]  # fmt: skip


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes:
        face: "rest" or "grpc".
        method: the HTTP verb or the full name of the gRPC method.
        data: for REST all bytes of the request, for gRPC the message.
        whole: whether it is one well-formed HTTP request, so that exactly one answer has to come.
        pieces: for REST the lengths to send at a time.
        timeout_s: for gRPC the deadline, where it is short on purpose.
    """

    face: str
    method: str
    data: bytes
    whole: bool = True
    pieces: tuple[int, ...] = ()
    timeout_s: float | None = None
    path: str = field(default="", compare=False)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "data": base64.b64encode(self.data).decode()}

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Request:
        data = base64.b64decode(saved["data"])
        return cls(**{**saved, "data": data, "pieces": tuple(saved["pieces"])})

    def is_parsable(self) -> bool:
        """Whether a gRPC message can be decoded at all."""
        try:
            REQUEST_TYPES[self.method].FromString(self.data)
        except DecodeError:
            return False
        return True


def make(seed: int, number: int) -> Request:
    """Make request `number` of a run."""
    rng = random.Random(f"{seed}/{number}")  # noqa: S311  # repeatable on purpose
    return _rest(rng) if rng.random() < 0.6 else _grpc(rng)


# REST


def _rest(rng: random.Random) -> Request:
    if rng.random() < 0.04:
        return Request("rest", "GET", _noise(rng), whole=False)
    verb, body, path = b"POST", b"", ""
    if rng.random() < 0.12:
        verb, path = b"GET", rng.choice(_GETS)
    else:
        target, document = rng.choice(_REST_BODIES)
        path, body = f"/v1/models/{target}", _body(rng, document)
    if rng.random() < 0.12:
        path = _bent_path(rng, path)
    if rng.random() < 0.04:
        verb = rng.choice(_METHODS)
    headers = [b"Host: x", *rng.sample(_HEADERS, rng.choice([0, 0, 0, 1, 2]))]
    if any(b"gzip" in header for header in headers if header.startswith(b"Content-Encoding")) or rng.random() < 0.05:
        body, packed = _packed(rng, body)
        headers.append(packed)
    version = b"HTTP/1.0" if rng.random() < 0.03 else b"HTTP/1.1"
    # What a client may put into a request line; anything else makes the request malformed.
    target_bytes = path.encode("utf-8")
    whole = version == b"HTTP/1.1" and all(33 <= byte < 127 for byte in target_bytes) and b"#" not in target_bytes
    kind = rng.random()
    if kind < 0.15:
        headers.append(b"Transfer-Encoding: chunked")
        body = _chunked(rng, body)
        if rng.random() < 0.2:
            body, whole = _bent(rng, body), False
    elif kind < 0.2:
        headers.append(b"Content-Length: %d" % max(0, len(body) + rng.choice([-3, -1, 1, 10, 10**6])))
        whole = False
    elif kind < 0.24:
        headers += [b"Content-Length: %d" % len(body), rng.choice(_BAD_HEADERS)]
        whole = False
    else:
        headers.append(b"Content-Length: %d" % len(body))
    if any(header.startswith(b"Upgrade") for header in headers):
        whole = False  # a server may talk another protocol then
    head = verb + b" " + target_bytes + b" " + version + b"\r\n" + b"\r\n".join(headers) + b"\r\n\r\n"
    data = head + body
    if rng.random() < 0.03:
        data, whole = data[: rng.randrange(len(data))], False
    pieces = tuple(rng.randrange(1, 400) for _ in range(3)) if rng.random() < 0.1 else ()
    return Request("rest", verb.decode(), data, whole, pieces, path=path)


def _noise(rng: random.Random) -> bytes:
    return rng.choice(
        [
            rng.randbytes(rng.randrange(1, 300)),
            b"\r\n" * rng.randrange(1, 50),
            b"GET /v1/models/m\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"GET " + b"/x" * 40_000 + b" HTTP/1.1\r\n\r\n",
            b"GET /v1/models/m HTTP/1.1\r\n" + b"".join(b"H%d: v\r\n" % n for n in range(3000)) + b"\r\n",
            b"POST /v1/models/m:predict HTTP/1.1\r\nContent-Length: 10\r\n\r\n",
            b"GET http://x/v1/models/m HTTP/1.1\r\nHost: x\r\n\r\n",
            b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /v1/models/m HTTP/1.1\r\nHost: x\r\n\r\n" * 20,
        ]
    )


def _body(rng: random.Random, document: Any) -> bytes:
    kind = rng.random()
    if kind < 0.55:
        document = copy.deepcopy(document)
        for _ in range(rng.choice([1, 1, 2, 4])):
            document = _bent_value(rng, document)
    text = json.dumps(document, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    if kind > 0.75:
        for _ in range(rng.choice([1, 1, 2, 5])):
            text = _bent(rng, text)
    return text


def _json_value(rng: random.Random) -> Any:
    return copy.deepcopy(rng.choice(_JSON_VALUES))


def _bent_value(rng: random.Random, value: Any) -> Any:
    """Replace, drop, double or add something somewhere in a JSON value."""
    if rng.random() < 0.25 or not isinstance(value, dict | list) or not value:
        return _json_value(rng)
    if isinstance(value, dict):
        key = rng.choice(list(value))
        kind = rng.random()
        if kind < 0.1:
            del value[key]
        elif kind < 0.2:
            value[rng.choice([*_WORDS, "b64", "instances", "inputs", "context", "examples"])] = value.pop(key)
        elif kind < 0.3:
            value[rng.choice(["extra", "inputs", "b64", "context", ""])] = _json_value(rng)
        else:
            value[key] = rng.choice(_WORDS) if key == "signature_name" else _bent_value(rng, value[key])
        return value
    index = rng.randrange(len(value))
    kind = rng.random()
    if kind < 0.15:
        value.append(_json_value(rng))
    elif kind < 0.25:
        del value[index]
    elif kind < 0.3:
        value *= rng.choice([2, 3, 50])
    else:
        value[index] = _bent_value(rng, value[index])
    return value


def _bent(rng: random.Random, data: bytes) -> bytes:
    """Change some bytes."""
    at = rng.randrange(len(data) + 1)
    kind = rng.random()
    if kind < 0.4:
        return data[:at] + rng.choice(_TOKENS) + data[at:]
    if kind < 0.6:
        return data[:at]
    if kind < 0.8:
        return data[:at] + data[at + rng.randrange(1, 6) :]
    return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]


def _bent_path(rng: random.Random, path: str) -> str:
    kind = rng.random()
    parts = path.split("/")
    if kind < 0.4:
        parts[rng.randrange(1, len(parts))] = rng.choice(_PATH_PARTS)
        return "/".join(parts)
    if kind < 0.6:
        parts.insert(rng.randrange(1, len(parts) + 1), rng.choice(_PATH_PARTS))
        return "/".join(parts)
    if kind < 0.7:
        return path.swapcase()
    return "/" + "/".join(rng.choice(_PATH_PARTS) for _ in range(rng.randrange(1, 7)))


def _packed(rng: random.Random, body: bytes) -> tuple[bytes, bytes]:
    data = gzip.compress(body, 1, mtime=0)
    kind = rng.random()
    if kind < 0.2:
        data = _bent(rng, data)
    elif kind < 0.3:
        data = body
    elif kind < 0.4:
        data += data
    return data, b"Content-Encoding: gzip"


def _chunked(rng: random.Random, body: bytes) -> bytes:
    parts = []
    while body:
        size = rng.randrange(1, 200)
        part, body = body[:size], body[size:]
        extension = rng.choice([b"", b"", b";x=1"])
        parts.append(b"%x%s\r\n%s\r\n" % (len(part), extension, part))
    return b"".join(parts) + b"0\r\n" + rng.choice([b"", b"", b"Trailer: 1\r\n"]) + b"\r\n"


# gRPC


def _grpc(rng: random.Random) -> Request:
    method, message = rng.choice(_MESSAGES)(rng)
    kind = rng.random()
    if kind < 0.6:
        for _ in range(rng.choice([1, 1, 2, 4])):
            _bend_message(rng, message)
    data = message.SerializeToString(deterministic=True)
    if kind > 0.85:
        data = rng.randbytes(rng.randrange(40)) if rng.random() < 0.2 else _bent(rng, data)
    timeout_s = rng.choice([0.0001, 0.001, 0.005]) if rng.random() < 0.03 else None
    return Request("grpc", method, data, timeout_s=timeout_s)


def _predict(rng: random.Random) -> tuple[str, Message]:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "m"
    signature = rng.choice(["", "two", "strings", "decode", *(f"echo_{kind}" for kind in ECHOES)])
    request.model_spec.signature_name = signature
    types = {"": {"x": "float"}, "two": {"a": "float", "b": "int32"}, "strings": {"s": "string"}}
    types["decode"] = {"image_bytes": "string"}
    for alias, name in types.get(signature, {"v": ECHOES.get(signature.removeprefix("echo_"), "float")}).items():
        _fill_tensor(rng, request.inputs[alias], name)
    if rng.random() < 0.1:
        request.output_filter.append(rng.choice(_WORDS))
    return PREDICTION + "Predict", request


def _fill_tensor(rng: random.Random, tensor: Any, name: str) -> None:
    """Two values, in the typed field or as bytes."""
    tensor.dtype = types_pb2.DataType.Value(f"DT_{name.upper()}")
    tensor.tensor_shape.dim.add(size=2)
    sizes = {"double": 8, "int64": 8, "uint64": 8, "complex64": 8, "int8": 1, "uint8": 1, "bool": 1, "int16": 2}
    if name == "string":
        tensor.string_val.extend([b"Ab", b"\xff\xd8\xff\xe0"])
    elif rng.random() < 0.4:
        tensor.tensor_content = bytes(2 * (2 if name == "half" else sizes.get(name, 4)))
    elif name == "half":
        tensor.half_val.extend([0x3C00, 0x7C01])
    elif name == "complex64":
        tensor.scomplex_val.extend([1, 2, 3, 4])
    else:
        field_name = {"int8": "int", "int16": "int", "int32": "int", "uint8": "int"}.get(name, name)
        getattr(tensor, f"{field_name}_val").extend([1, 0])


def _examples(rng: random.Random) -> input_pb2.Input:
    made = input_pb2.Input()
    listed = made.example_list
    if rng.random() < 0.3:
        listed = made.example_list_with_context
        listed.context.features.feature["x"].float_list.value.append(0.5)
    for _ in range(rng.choice([1, 2, 3])):
        listed.examples.add().features.feature["x"].float_list.value.append(0.25)
    return made


def _classify(rng: random.Random) -> tuple[str, Message]:
    spec = {"name": "m", "signature_name": "classify"}
    return PREDICTION + "Classify", classification_pb2.ClassificationRequest(model_spec=spec, input=_examples(rng))


def _regress(rng: random.Random) -> tuple[str, Message]:
    spec = {"name": "m", "signature_name": "regress"}
    return PREDICTION + "Regress", regression_pb2.RegressionRequest(model_spec=spec, input=_examples(rng))


def _multi(rng: random.Random) -> tuple[str, Message]:
    request = inference_pb2.MultiInferenceRequest(input=_examples(rng))
    for name in ("classify", "regress"):
        spec = {"name": "m", "signature_name": name}
        request.tasks.add(model_spec=spec, method_name=f"tensorflow/serving/{name}")
    return PREDICTION + "MultiInference", request


def _metadata(rng: random.Random) -> tuple[str, Message]:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "m"
    return PREDICTION + "GetModelMetadata", request


def _status(rng: random.Random) -> tuple[str, Message]:
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "m"
    return MODEL + "GetModelStatus", request


_MESSAGES: list[Callable[[random.Random], tuple[str, Message]]] = [
    _predict, _predict, _predict, _predict, _classify, _regress, _multi, _metadata, _status,
]  # fmt: skip


def _bend_message(rng: random.Random, message: Any) -> None:
    """Set, clear or bend one field, here or further inside."""
    present = [f for f, _ in message.ListFields()]
    inner = [f for f in present if f.type == FieldDescriptor.TYPE_MESSAGE]
    if inner and rng.random() < 0.75:
        chosen = rng.choice(inner)
        value = getattr(message, chosen.name)
        if not chosen.is_repeated:
            _bend_message(rng, value)
        elif _is_map(chosen):
            _bend_map(rng, chosen, value)
        elif rng.random() < 0.2:
            value.add()
        elif len(value):
            _bend_message(rng, rng.choice(value))
        return
    if present and rng.random() < 0.2:
        message.ClearField(rng.choice(present).name)
        return
    chosen = rng.choice(message.DESCRIPTOR.fields)
    if chosen.type == FieldDescriptor.TYPE_MESSAGE:
        value = getattr(message, chosen.name)
        if not chosen.is_repeated:
            value.SetInParent()
        elif not _is_map(chosen):
            value.add()
    elif chosen.is_repeated:
        getattr(message, chosen.name).extend(_scalar(rng, chosen) for _ in range(rng.choice([1, 2, 5])))
    else:
        setattr(message, chosen.name, _scalar(rng, chosen))


def _is_map(chosen: FieldDescriptor) -> bool:
    return chosen.message_type is not None and chosen.message_type.GetOptions().map_entry


def _bend_map(rng: random.Random, chosen: FieldDescriptor, value: Any) -> None:
    key = rng.choice(sorted(value))
    if chosen.message_type.fields_by_name["value"].type != FieldDescriptor.TYPE_MESSAGE:
        return
    if rng.random() < 0.2:
        value[rng.choice(_WORDS)].CopyFrom(value[key])
        if rng.random() < 0.5:
            del value[key]
    else:
        _bend_message(rng, value[key])


def _scalar(rng: random.Random, chosen: FieldDescriptor) -> Any:
    kinds = FieldDescriptor
    if chosen.type == kinds.TYPE_ENUM:
        return rng.choice([0, *(entry.number for entry in chosen.enum_type.values), 9999])
    if chosen.type == kinds.TYPE_BOOL:
        return rng.random() < 0.5
    if chosen.type in (kinds.TYPE_FLOAT, kinds.TYPE_DOUBLE):
        return rng.choice([0.0, -1.5, float("nan"), float("inf"), 1e30])
    if chosen.type == kinds.TYPE_STRING:
        return rng.choice(_WORDS)
    if chosen.type == kinds.TYPE_BYTES:
        return rng.choice([b"", b"\x00", rng.randbytes(7), struct.pack("<2f", 1, 2), bytes(3000), b"\x89PNG\r\n\x1a\n"])
    if chosen.name == "size":
        return rng.choice(_SIZES)
    bits, signed = {
        kinds.TYPE_INT32: (32, True), kinds.TYPE_INT64: (64, True), kinds.TYPE_UINT32: (32, False),
    }.get(chosen.type, (64, False))  # fmt: skip
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return rng.choice([number for number in _INTEGERS if low <= number <= high])
