"""The JSON codec where it has two ways to one result; what it reads and writes is in the contract tests."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest

from serving.embedded import json_reader
from serving.embedded.errors import Code, ServingError, let_go
from serving.embedded.json_results import write_predictions
from serving.embedded.json_tensors import decode_base64
from serving.embedded.json_writer import format_floats


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
def test_the_fast_and_the_exact_reader_agree(text: bytes, value: object) -> None:
    assert json_reader.parse(text) == value
    assert json_reader.parse_exactly(text) == value


@pytest.mark.parametrize(("first", "second"), [(0, 2), (2, 0)])
def test_outputs_of_which_one_has_no_rows(first: int, second: int) -> None:
    outputs = {"a": np.zeros(first, np.float32), "b": np.zeros(second, np.float32)}
    with pytest.raises(ServingError, match=f"b has inconsistent batch size: {second} expecting: {first}"):
        write_predictions(outputs, row_format=True)
    assert write_predictions({"a": outputs["a"][:0], "b": outputs["b"][:0]}, row_format=True) == (
        b'{\n    "predictions": []\n}'
    )


@pytest.mark.parametrize("text", ["aGVsbG8=", "aGVsbG8", "aGVsbG8.", " aGVs\nbG8= ", "aGVs bG8"])
def test_base64_with_its_padding_or_without_any(text: str) -> None:
    assert decode_base64(text) == b"hello"


def test_an_error_that_is_its_own_cause_can_be_let_go() -> None:
    error = ServingError(Code.INTERNAL, "x")
    error.__cause__ = error
    let_go(error)


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
