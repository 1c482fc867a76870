"""The JSON codec: what RapidJSON and TensorFlow Serving read and write, to the letter."""

from __future__ import annotations

import json
import math
import struct

import numpy as np
import pytest

from serving.embedded import json_reader, json_results, json_tensors
from serving.embedded.dtypes import BY_ENUM
from serving.embedded.errors import Code, ServingError
from serving.embedded.json_writer import format_floats

ENUMS = {element.name: enum for enum, element in BY_ENUM.items()}


def read(body: bytes, **wanted: str) -> json_tensors.PredictBody:
    document = json_tensors.parse_object(body)
    types = {alias: ENUMS[name] for alias, name in wanted.items()}
    return json_tensors.read_inputs(document, types, json_tensors.signature_name(document), body)


def failure(body: bytes, **wanted: str) -> str:
    with pytest.raises(ServingError) as caught:
        read(body, **wanted)
    return f"{caught.value.code.name} {caught.value.message}"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'{"a": 1} trailing', {"a": 1}),
        (b'{"a": 1, "a": 2}', {"a": 1}),
        (b"\xef\xbb\xbf[1]", [1]),
        (b"[Infinity, -Infinity, Inf, -Inf]", [math.inf, -math.inf, math.inf, -math.inf]),
        (b'"\\ud83d\\ude00"', "\N{GRINNING FACE}"),
        (b'"\xff"', "\udcff"),
        (b"[18446744073709551615]", [2**64 - 1]),
        (b"[1e308, 1%s]" % (b"0" * 308), [1e308, 1e308]),
        (b'["%s"]' % (b"9" * 400), ["9" * 400]),
        (b' [ { } , [ ] , null , true , false , "" ] ', [{}, [], None, True, False, ""]),
    ],
)
def test_json_is_read_as_rapidjson_reads_it(text: bytes, value: object) -> None:
    assert json_reader.parse(text) == value
    assert json_reader.parse_exactly(text) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "The document is empty"),
        (b"nan", "Invalid value. at offset: 1"),
        (b"[1,", "Invalid value. at offset: 3"),
        (b'{"a" 1}', "Missing a colon after a name of object member. at offset: 5"),
        (b"{1: 2}", "Missing a name for object member. at offset: 1"),
        (b"[1 2]", "Missing a comma or ] after an array element. at offset: 3"),
        (b'"abc', "Missing a closing quotation mark in string. at offset: 0"),
        (b'["\\ud800x"]', "The surrogate pair in string is invalid. at offset: 2"),
        (b'["\\x"]', "Invalid escape character in string. at offset: 2"),
        (b'{"examples": [{"x": 1e999}]}', "Number too big to be stored in double. at offset: 20"),
        (b'{"unknown": [-1e999], "inputs": 1}', "Number too big to be stored in double. at offset: 13"),
        (b"[0.]", "Miss fraction part in number. at offset: 3"),
        (b"[1e+]", "Miss exponent in number. at offset: 4"),
        (b"[%s]" % (b"9" * 400), "Number too big to be stored in double. at offset: 1"),
    ],
)
def test_broken_json_is_refused_in_rapidjsons_words(text: bytes, message: str) -> None:
    with pytest.raises(ServingError) as caught:
        json_reader.parse(text)
    assert caught.value.code == Code.INVALID_ARGUMENT
    assert caught.value.message.startswith(f"JSON Parse error: {message}")


def test_nesting_without_end_is_read() -> None:
    value = json_reader.parse(b"[" * 500_000 + b"]" * 500_000)
    depth = 0
    while value:
        value, depth = value[0], depth + 1
    assert depth == 499_999


@pytest.mark.parametrize(
    ("dtype", "text", "expected"),
    [
        ("float", b"[1, 2.5, -3e2]", [1.0, 2.5, -300.0]),
        ("float", b"[1e39]", [math.inf]),
        ("double", b"[18446744073709551616]", [18446744073709551616.0]),
        ("int32", b"[1, -2]", [1, -2]),
        ("uint8", b"[300, -1]", [44, 255]),
        ("int8", b"[200]", [-56]),
        ("int64", b"[9223372036854775807]", [2**63 - 1]),
        ("uint64", b"[18446744073709551615]", [2**64 - 1]),
        ("bool", b"[true, false]", [True, False]),
        ("string", b'["a", {"b64": "aGk"}, {"b64": "aGk="}]', [b"a", b"hi", b"hi"]),
    ],
)
def test_values_become_tensors(dtype: str, text: bytes, expected: list[object]) -> None:
    for body in (b'{"instances": %s}' % text, b'{"inputs": %s}' % text, b'{"inputs": {"x": %s, "extra": 1}}' % text):
        tensor = read(body, x=dtype).inputs["x"]
        assert tensor.dtype == BY_ENUM[ENUMS[dtype]].numpy
        assert tensor.tolist() == expected


@pytest.mark.parametrize(
    ("dtype", "value", "kind"),
    [
        ("float", b"true", "True"),
        ("float", b'"1"', "String"),
        ("float", b"null", "Null"),
        ("int32", b"1.0", "Number"),
        ("int32", b"2147483648", "Number"),
        ("uint32", b"-1", "Number"),
        ("int64", b"9223372036854775808", "Number"),
        ("bool", b"1", "Number"),
        ("string", b"1", "Number"),
    ],
)
def test_a_wrong_type_is_named(dtype: str, value: bytes, kind: str) -> None:
    message = failure(b'{"inputs": [%s]}' % value, x=dtype)
    assert message.startswith("INVALID_ARGUMENT JSON Value: ")
    assert message.endswith(f"Type: {kind} is not of expected type: {dtype}")


def test_shapes_of_values() -> None:
    assert read(b'{"inputs": 3}', x="float").inputs["x"].shape == ()
    assert read(b'{"inputs": []}', x="float").inputs["x"].shape == (0,)
    assert read(b'{"inputs": [[1], [2]]}', x="float").inputs["x"].shape == (2, 1)
    assert read(b'{"instances": [[[1, 2]], [[3, 4]]]}', x="float").inputs["x"].shape == (2, 1, 2)
    assert read(b'{"inputs": [["a"], ["b"]]}', x="string").inputs["x"].tolist() == [[b"a"], [b"b"]]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{}", "Missing 'inputs' or 'instances' key"),
        (b"[]", "JSON Value: [] Is not object"),
        (b'{"instances": []}', "No values in 'instances' array"),
        (b'{"instances": 1}', "Excepting 'instances' to be an list/array"),
        (b'{"instances": [1], "inputs": [1]}', "expecting only one of 'inputs' or 'instances' keys to exist"),
        (b'{"inputs": [[1, 2], [3]]}', "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        (b'{"inputs": [1, [2]]}', "Encountered list at unexpected level: 1 expected < 1"),
        (b'{"instances": [[1, 2], [3]]}', "Failed to process element: 1 of 'instances' list."),
        (b'{"instances": [[[1]], [1]]}', "Expecting shape [1,1] but got: [1]"),
        (b'{"instances": [{"x": 1}, 2]}', "Expecting object but got list at item 1 of input list"),
        (b'{"instances": [2, {"x": 1}]}', "Expecting value/list but got object at item 1 of input list"),
        (b'{"instances": [{"y": 1}]}', "JSON object: does not have named input: y"),
        (b'{"instances": [{}]}', "must only have keys: x"),
        (b'{"inputs": {"y": 1}}', "Missing named input: x in 'inputs' object."),
        (b'{"signature_name": 1, "inputs": 1}', "'signature_name' key must be a string value."),
        (b'{"inputs": 1e999}', "Number too big to be stored in double."),
    ],
)
def test_a_malformed_body_is_refused(body: bytes, message: str) -> None:
    assert message in failure(body, x="float")


def test_several_inputs() -> None:
    rows = read(b'{"instances": [{"a": 1, "b": [1, 2]}, {"a": 2, "b": [3, 4]}]}', a="float", b="int32").inputs
    assert rows["a"].tolist() == [1.0, 2.0]
    assert rows["b"].tolist() == [[1, 2], [3, 4]]
    assert "instances is a plain list" in failure(b'{"instances": [1]}', a="float", b="int32")
    assert "inputs is a plain value/list" in failure(b'{"inputs": [1]}', a="float", b="int32")


def test_base64_and_types_without_json() -> None:
    assert "Unable to base64 decode" in failure(b'{"inputs": {"b64": "a-_k"}}', x="string")
    assert "not formatted correctly for base64 data" in failure(b'{"inputs": [{"b64": 1}]}', x="string")
    assert failure(b'{"inputs": [1]}', x="half").startswith("UNIMPLEMENTED Conversion of JSON Value: 1 to type: half")
    assert failure(b'{"instances": [1]}', x="half").startswith("INVALID_ARGUMENT Failed to process element: 0")


def test_a_quoted_value_is_cut() -> None:
    message = failure(b'{"inputs": ["%s"]}' % (b"x" * 5000), x="float")
    assert len(message) < 400


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1.0"), (100000.0, "100000.0"), (1e6, "1e+06"), (9e6, "9e+06"), (3e-5, "3e-05"), (1 / 3, "0.333333343"),
        (-0.0, "-0.0"), (1234567.0, "1234567.0"), (math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity"),
    ],
)  # fmt: skip
def test_floats_are_written_as_the_real_server_does(value: float, text: str) -> None:
    assert format_floats(np.array([value], np.float32)) == [text]


def test_floats_follow_the_rule_for_any_value() -> None:
    generator = np.random.default_rng(7)
    bits = generator.integers(0, 2**32, 20_000, dtype=np.uint32)
    values = bits.view(np.float32)
    values = values[np.isfinite(values)]
    for value, text in zip(values.tolist(), format_floats(values), strict=True):
        short = f"{value:g}"
        same = struct.unpack("f", struct.pack("f", float(short)))[0] == value if abs(float(short)) < 3.4e38 else False
        expected = short if same else f"{value:.9g}"
        assert text == (expected if "." in expected or "e" in expected else expected + ".0")


def test_row_layout() -> None:
    outputs = {"a": np.array([[1, 2.5], [3, 4]], np.float32), "b_bytes": np.array([b"x", b"\xff"], object)}
    assert json_results.write_predictions({"y": outputs["a"]}, True) == (
        b'{\n    "predictions": [[1.0, 2.5], [3.0, 4.0]\n    ]\n}'
    )
    assert json.loads(json_results.write_predictions(outputs, True)) == {
        "predictions": [{"a": [1.0, 2.5], "b_bytes": {"b64": "eA=="}}, {"a": [3.0, 4.0], "b_bytes": {"b64": "/w=="}}]
    }
    assert json_results.write_predictions({"y": np.zeros((0, 3), np.float32)}, True) == b'{\n    "predictions": []\n}'


def test_column_layout() -> None:
    assert json_results.write_predictions({"y": np.array([1, 2], np.int64)}, False) == (
        b'{\n    "outputs": [\n        1,\n        2\n    ]\n}'
    )
    assert json.loads(json_results.write_predictions({"a": np.float32(1), "b": np.array([True])}, False)) == {
        "outputs": {"a": 1.0, "b": [True]}
    }
    raw = json_results.write_predictions({"text": np.array([b'\xff\n"'], object)}, False)
    assert b'"\xff\\n\\""' in raw


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"y": np.float32(1)}, "Tensor name: y has no shape information "),
        ({"a": np.zeros(2), "b": np.zeros(3)}, "Tensor name: b has inconsistent batch size: 3 expecting: 2"),
        ({"y": np.zeros(1, np.float16)}, "Failed to write JSON value for tensor type: half"),
    ],
)
def test_rows_that_cannot_be_written(outputs: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ServingError) as caught:
        json_results.write_predictions(outputs, True)
    assert caught.value.message == message
