"""The JSON codec against independent models: RapidJSON's grammar, numpy's values, Python's own `json`."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from repeatable import repeatable

from serving.embedded import json_reader, json_results, json_tensors
from serving.embedded.dtypes import BY_ENUM
from serving.embedded.errors import ServingError
from serving.embedded.json_writer import format_floats

ENUMS = {element.name: enum for enum, element in BY_ENUM.items()}
NUMERIC = ("float", "double", "int8", "int16", "int32", "int64", "uint8", "uint32", "uint64", "bool")


class Refused(Exception):  # noqa: N818
    """The model says no."""


class Model:
    """RapidJSON 1.1.0 with NaN and Infinity, stopping when done, written for shortness and not for speed."""

    _NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*)(?P<fraction>\.[0-9]*)?(?P<exponent>[eE][+-]?[0-9]*)?")
    _SPECIAL = re.compile(rb"-?(?:Infinity|Inf(?!i)|NaN)")
    _WORDS = {b"null": None, b"true": True, b"false": False}

    def __init__(self, data: bytes) -> None:
        self._data = data.removeprefix(b"\xef\xbb\xbf")
        self._at = 0

    def value(self) -> Any:
        first = self._next()
        if first == b"{":
            return self._container(b"}", {})
        if first == b"[":
            return self._container(b"]", [])
        if first == b'"':
            return self._string()
        for word, meaning in self._WORDS.items():
            if self._data.startswith(word, self._at):
                self._at += len(word)
                return meaning
        return self._number()

    def _next(self) -> bytes:
        while self._data[self._at : self._at + 1] in (b" ", b"\t", b"\r", b"\n"):
            self._at += 1
        return self._data[self._at : self._at + 1]

    def _take(self, byte: bytes) -> None:
        if self._next() != byte:
            raise Refused
        self._at += 1

    def _container(self, end: bytes, made: Any) -> Any:
        self._at += 1
        if self._next() == end:
            self._at += 1
            return made
        while True:
            if end == b"}":
                if self._next() != b'"':
                    raise Refused
                key = self._string()
                self._take(b":")
                made.setdefault(key, self.value())  # the first of two equal keys is found first
            else:
                made.append(self.value())
            if self._next() == end:
                self._at += 1
                return made
            self._take(b",")

    def _string(self) -> str:
        self._at += 1
        made = bytearray()
        while True:
            byte = self._data[self._at : self._at + 1]
            self._at += 1
            if byte == b'"':
                return made.decode("utf-8", "surrogateescape")
            if byte < b" ":  # the end, too
                raise Refused
            if byte != b"\\":
                made += byte
                continue
            escaped = self._data[self._at : self._at + 1]
            self._at += 1
            if escaped == b"u":
                made += self._unicode().encode()
            elif escaped in dict(_SIMPLE_ESCAPES):
                made += dict(_SIMPLE_ESCAPES)[escaped]
            else:
                raise Refused

    def _unicode(self) -> str:
        high = self._hex()
        if not 0xD800 <= high < 0xE000:
            return chr(high)
        if high >= 0xDC00 or self._data[self._at : self._at + 2] != b"\\u":
            raise Refused
        self._at += 2
        low = self._hex()
        if not 0xDC00 <= low < 0xE000:
            raise Refused
        return chr(0x10000 + (high - 0xD800) * 0x400 + low - 0xDC00)

    def _hex(self) -> int:
        digits = self._data[self._at : self._at + 4]
        if not re.fullmatch(rb"[0-9a-fA-F]{4}", digits):
            raise Refused
        self._at += 4
        return int(digits, 16)

    def _number(self) -> int | float:
        special = self._SPECIAL.match(self._data, self._at)
        if special:
            self._at = special.end()
            return float(special[0].replace(b"Infinity", b"Inf"))
        number = self._NUMBER.match(self._data, self._at)
        if not number or number["fraction"] == b"." or re.fullmatch(rb"[eE][+-]?", number["exponent"] or b""):
            raise Refused
        self._at = number.end()
        if number["fraction"] is None and number["exponent"] is None and -(2**63) <= int(number[0]) < 2**64:
            return int(number[0])
        if math.isinf(float(number[0])):
            raise Refused
        return float(number[0])


_SIMPLE_ESCAPES = [
    (b'"', b'"'), (b"\\", b"\\"), (b"/", b"/"), (b"b", b"\b"), (b"f", b"\f"), (b"n", b"\n"), (b"r", b"\r"),
    (b"t", b"\t"),
]  # fmt: skip


def comparable(value: Any) -> Any:
    """Make types and signs of zero count, NaN equal itself, and a number beyond 64 bits the double it stands for."""
    if isinstance(value, dict):
        return {key: comparable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [comparable(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**64:
        value = float(value)
    return repr(value)


def outcome(read: Any, body: bytes) -> tuple[str, Any]:
    """What a reader makes of a body: the value, or the error's text. Any other exception than ServingError fails."""
    try:
        return "value", comparable(read(body))
    except ServingError as error:
        return "error", f"{error.code.name} {error.message}"


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text()
    | st.sampled_from([-0.0, 2**63, 2**64, -(2**63), "\ud83d\ude00", "b64"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)
fragments = st.sampled_from(
    [
        b"[", b"]", b"{", b"}", b",", b":", b'"', b"\\", b"null", b"true", b"false", b"nul", b"NaN", b"-NaN", b"nan",
        b"Infinity", b"-Infinity", b"Inf", b"-Inf", b"Infin", b"0", b"-0", b"-0.0", b"00", b"1", b"-", b"1.", b".5",
        b"1e", b"1e5", b"1E+", b"1e999", b"-1e999", b"1e-999", b"9" * 309, b"18446744073709551615", b"0.1",
        b"18446744073709551616", b"-9223372036854775809", b'"a"', b'"a":', b'""', b'"\\u0041"', b'"\\ud83d\\ude00"',
        b'"\\ud83d"', b'"\\udc00"', b'"\\u12"', b'"\\x"', b'"\xff"', b"\xff", b"\x00", b'"\x01"', b" ", b"\n",
        b"\xc2\xa0",
        b"\xef\xbb\xbf", b'{"a":1,"a":2}', b"/**/",
    ]
)  # fmt: skip
bodies = (
    st.binary(max_size=40)
    | st.lists(fragments, max_size=12).map(b"".join)
    | json_values.map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    | st.tuples(json_values, st.integers(0, 60), fragments).map(
        lambda parts: (text := json.dumps(parts[0]).encode())[: parts[1]] + parts[2] + text[parts[1] :]
    )
)


@repeatable(2000)
@example(b"-0")
@example(b"\x00")
@example(b'{"a": 1}\x00')
@example(b"[1\x00]")
@example(b"[1,2]")
@given(bodies)
def test_any_text_is_read_as_the_model_reads_it_and_the_fast_reader_agrees_with_the_exact(body: bytes) -> None:
    try:
        expected = ("value", comparable(Model(body).value()))
    except Refused:
        expected = ("error", None)
    fast, exact = outcome(json_reader.parse, body), outcome(json_reader.parse_exactly, body)
    if body:  # an empty one has a text of its own
        assert fast == exact
    assert exact[0] == expected[0]
    if exact[0] == "value":
        assert exact == expected
    else:
        assert exact[1].startswith("INVALID_ARGUMENT JSON Parse error: ")


def read(body: bytes, **wanted: str) -> json_tensors.PredictBody:
    return json_tensors.read_predict_body(body, {"": {alias: ENUMS[name] for alias, name in wanted.items()}})


@repeatable(400)
@given(document=json_values, columnar=st.booleans(), name=st.sampled_from([*NUMERIC, "string", "half", "complex64"]))
def test_whatever_stands_where_a_tensor_is_expected_is_a_tensor_or_a_clean_error(
    document: Any, columnar: bool, name: str
) -> None:
    body = json.dumps({"inputs" if columnar else "instances": document}).encode()
    kind, found = outcome(lambda text: read(text, x=name).inputs["x"].dtype, body)
    if kind == "value":
        assert found == repr(BY_ENUM[ENUMS[name]].numpy)
    else:
        assert found.split()[0] in ("INVALID_ARGUMENT", "UNIMPLEMENTED")


def tensors(name: str, **shape: int) -> st.SearchStrategy[np.ndarray]:
    return arrays.arrays(BY_ENUM[ENUMS[name]].numpy, arrays.array_shapes(**{"max_dims": 4, "max_side": 3, **shape}))


def as_json(tensor: np.ndarray) -> Any:
    return tensor.tolist()  # float32 becomes the double of the same value, which JSON can tell exactly


@repeatable(100)
@pytest.mark.parametrize("name", NUMERIC)
@given(data=st.data())
def test_tensors_survive_both_forms_of_a_request_and_of_an_answer(name: str, data: st.DataObject) -> None:
    tensor = data.draw(tensors(name))
    for key, row_format in (("instances", True), ("inputs", False)):
        body = json.dumps({key: as_json(tensor)}).encode()
        parsed = read(body, x=name)
        assert parsed.row_format == row_format
        np.testing.assert_array_equal(parsed.inputs["x"], tensor, strict=True)
        answer = json.loads(json_results.write_predictions({"x": tensor}, row_format))
        back = np.array(answer["predictions" if row_format else "outputs"], tensor.dtype)
        np.testing.assert_array_equal(back, tensor, strict=True)


@repeatable(100)
@given(data=st.data())
def test_rows_of_objects_survive(data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 4))
    a = data.draw(arrays.arrays(np.float32, (rows, 2)))
    b = data.draw(arrays.arrays(np.int64, (rows,)))
    body = json.dumps({"instances": [{"a": x, "b": y} for x, y in zip(a.tolist(), b.tolist(), strict=True)]}).encode()
    inputs = read(body, a="float", b="int64").inputs
    np.testing.assert_array_equal(inputs["a"], a, strict=True)
    np.testing.assert_array_equal(inputs["b"], b, strict=True)
    answer = json.loads(json_results.write_predictions({"a": a, "b": b}, row_format=True))["predictions"]
    np.testing.assert_array_equal(np.array([row["a"] for row in answer], np.float32), a)
    assert [row["b"] for row in answer] == b.tolist()


@repeatable(100)
@given(st.lists(st.binary(max_size=20), min_size=1, max_size=6))
def test_bytes_survive_as_base64_and_text_as_it_is(values: list[bytes]) -> None:
    tensor = np.array([*values, None], dtype=object)[:-1]  # the None keeps numpy from guessing
    written = json_results.write_predictions({"x_bytes": tensor}, row_format=True)
    rows = json.loads(written)["predictions"]
    np.testing.assert_array_equal(read(json.dumps({"instances": rows}).encode(), x="string").inputs["x"], tensor)
    # Without "_bytes" they stand there raw, be they UTF-8 or not; a string of bytes reads back the same.
    written = json_results.write_predictions({"x": tensor}, row_format=False)
    np.testing.assert_array_equal(read(written.replace(b'"outputs"', b'"inputs"', 1), x="string").inputs["x"], tensor)


@repeatable(400)
@given(st.data(), st.sampled_from([np.float32, np.float64]))
def test_written_numbers_are_tensorflow_servings(data: st.DataObject, kind: type) -> None:
    values = data.draw(arrays.arrays(kind, st.integers(1, 8)))
    for value, text in zip(values, format_floats(values), strict=True):
        back = kind(float(text))
        assert back == value or (np.isnan(back) and np.isnan(value))
        if np.isfinite(value):
            short, full = f"{value:g}", f"{value:.{9 if kind is np.float32 else 17}g}"
            digits = short if kind(short) == value else full
            assert text == digits + ("" if "." in digits or "e" in digits else ".0")
        else:
            assert text in ("NaN", "Infinity", "-Infinity")


def test_many_numbers_keep_their_order() -> None:
    values = np.arange(200_000, dtype=np.float32) / 8
    np.testing.assert_array_equal(np.array(format_floats(values), np.float32), values)
