"""Large bodies give the same tensors and errors in a process of their own as here."""

from __future__ import annotations

import asyncio
import sys

import numpy as np
import pytest

from serving.embedded import json_tensors, parse_apart
from serving.embedded.errors import Code, ServingError

WANTED = {"": {"x": 1}, "texts": {"s": 7}, "two": {"a": 9, "b": 10}}  # float; string; int64 and bool


def read_apart(body: bytes) -> json_tensors.PredictBody:
    return asyncio.run(parse_apart.read_predict_body(body, WANTED))


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": [[1, 2.5], [3, 4e38]]}',
        b'{"inputs": {"a": [1, 2], "b": [true, false]}, "signature_name": "two"}',
        b'{"inputs": ["a", {"b64": "/wA="}, "\xff"], "signature_name": "texts"}',
        b'{"inputs": [1], "signature_name": "unknown"}',
    ],
)
def test_tensors(body: bytes) -> None:
    here, apart = json_tensors.read_predict_body(body, WANTED), read_apart(body)
    assert (apart.signature, apart.row_format) == (here.signature, here.row_format)
    assert (apart.inputs is None) == (here.inputs is None)
    for alias, tensor in (here.inputs or {}).items():
        assert apart.inputs[alias].dtype == tensor.dtype
        np.testing.assert_array_equal(apart.inputs[alias], tensor)


@pytest.mark.parametrize("body", [b"", b"[1]", b'{"instances": "\xff"}', b'{"instances": [[1], [2, 3]]}'])
def test_errors(body: bytes) -> None:
    with pytest.raises(ServingError) as here:
        json_tensors.read_predict_body(body, WANTED)
    with pytest.raises(ServingError) as apart:
        read_apart(body)
    assert (apart.value.code, apart.value.message) == (here.value.code, here.value.message)


def test_a_process_that_ends_before_it_has_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(ServingError, match="could not be parsed: its process ended with 1; send fewer") as caught:
        read_apart(b'{"instances": [1]}')
    assert caught.value.code == Code.RESOURCE_EXHAUSTED
