"""The JSON codec where it has two ways to one result; what it reads and writes is in the contract tests."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest

from serving.embedded import json_reader
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
