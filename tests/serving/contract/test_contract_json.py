"""JSON as RapidJSON and TensorFlow Serving read and write it, to the letter."""

from __future__ import annotations

from typing import Any

import pytest


def post(target: Any, body: bytes) -> Any:
    return target.post("rules:predict", body)


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (b'{"inputs": [1]} trailing', b"[\n        2.5\n    ]"),
        (b'{"inputs": [1], "inputs": [2]}', b"[\n        2.5\n    ]"),
        (b'\xef\xbb\xbf{"inputs": [1]}', b"[\n        2.5\n    ]"),
        (b' \n\t\r{ "inputs" : [ 1 ] }', b"[\n        2.5\n    ]"),
        (b'{"inputs": [NaN, Infinity, -Infinity, Inf, -Inf]}',
         b"[\n        NaN,\n        Infinity,\n        -Infinity,\n        Infinity,\n        -Infinity\n    ]"),
        (b'{"inputs": 1, "deep": ' + b"[" * 500_000 + b"]" * 500_000 + b"}", b"2.5"),
        (b'{"signature_name": "echo_float64", "inputs": 1%s}' % (b"0" * 308), b"1e+308"),
        (b'{"signature_name": "text", "inputs": "\\ud83d\\ude00 \xff \xc3\xa9 /\\/"}',
         b'"\xf0\x9f\x98\x80 \xff \xc3\xa9 //"'),
        (b'{"signature_name": "text", "inputs": "\\u0001\\u001b\\b\\f\\n\\r\\t\\"\\\\\x7f\\u2028"}',
         b'"\\u0001\\u001B\\b\\f\\n\\r\\t\\"\\\\\x7f\xe2\x80\xa8"'),
    ],
)  # fmt: skip
def test_what_is_read(target: Any, body: bytes, answer: bytes) -> None:
    got = post(target, body)
    assert (got.status_code, got.content) == (200, b'{\n    "outputs": ' + answer + b"\n}")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "The document is empty"),
        (b"   ", "The document is empty. at offset: 3"),
        (b"nan", "Invalid value. at offset: 1"),
        (b"[1,", "Invalid value. at offset: 3"),
        (b'{"a" 1}', "Missing a colon after a name of object member. at offset: 5"),
        (b"{1: 2}", "Missing a name for object member. at offset: 1"),
        (b'{"a": 1', "Missing a comma or } after an object member. at offset: 7"),
        (b"[1 2]", "Missing a comma or ] after an array element. at offset: 3"),
        (b'"abc', "Missing a closing quotation mark in string. at offset: 4"),
        (b'{"instances": ["abc', "Missing a closing quotation mark in string. at offset: 19"),
        (b"nul", "Invalid value. at offset: 3"),
        (b"[falsy]", "Invalid value. at offset: 5"),
        (b"[-x]", "Invalid value. at offset: 2"),
        (b"[None]", "Invalid value. at offset: 2"),
        (b"[-Infinite]", "Invalid value. at offset: 9"),
        (b" ]", "The document is empty. at offset: 1"),
        (b":", "The document is empty. at offset: 0"),
        (b"[,1]", "Invalid value. at offset: 1"),
        (b'["\\ud800x"]', "The surrogate pair in string is invalid. at offset: 2"),
        (b'["\\x"]', "Invalid escape character in string. at offset: 2"),
        (b'["\\u12g4"]', "Incorrect hex digit after \\u escape in string. at offset: 2"),
        (b"[1.]", "Miss fraction part in number. at offset: 3"),
        (b"[1e]", "Miss exponent in number. at offset: 3"),
        (b"[0.]", "Miss fraction part in number. at offset: 3"),
        (b"[1e+]", "Miss exponent in number. at offset: 4"),
        (b"[%s]" % (b"9" * 400), "Number too big to be stored in double. at offset: 1"),
        (b'{"unknown": [-1e999], "inputs": 1}', "Number too big to be stored in double. at offset: 13"),
        (b'{"inputs": 1e999}', "Number too big to be stored in double. at offset: 11"),
    ],
)
def test_what_is_refused(target: Any, body: bytes, error: str) -> None:
    answer = post(target, body)
    assert (answer.status_code, answer.json()) == (400, {"error": f"JSON Parse error: {error}"})


def test_half_a_surrogate_pair_is_refused(target: Any) -> None:
    assert post(target, b'{"inputs": "\\ude00"}').status_code == 400


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("float32", "1", "1.0"),
        ("float32", "100000", "100000.0"),
        ("float32", "1e6", "1e+06"),
        ("float32", "9e6", "9e+06"),
        ("float32", "3e-5", "3e-05"),
        ("float32", "0.1", "0.1"),
        ("float32", "0.3333333333", "0.333333343"),
        ("float32", "1234567", "1234567.0"),
        ("float32", "-0.0", "-0.0"),
        ("float32", "-0", "0.0"),
        ("float32", "1e-45", "1.4013e-45"),
        ("float64", "0.3333333333333333", "0.33333333333333331"),
        ("float64", "0.1", "0.1"),
        ("float64", "123456789", "123456789.0"),
        ("float64", "1e300", "1e+300"),
    ],
)
def test_numbers_are_written(target: Any, kind: str, value: str, text: str) -> None:
    answer = post(target, b'{"signature_name": "echo_%s", "inputs": %s}' % (kind.encode(), value.encode()))
    assert answer.content == b'{\n    "outputs": %s\n}' % text.encode()


@pytest.mark.parametrize(
    ("body", "layout"),
    [
        (b'{"instances": [1, 2]}', '{\n    "predictions": [2.5, 3.0\n    ]\n}'),
        (b'{"instances": [[1, 2], [3, 4]]}', '{\n    "predictions": [[2.5, 3.0], [3.5, 4.0]\n    ]\n}'),
        (b'{"signature_name": "none", "instances": [1]}', '{\n    "predictions": []\n}'),
        (b'{"inputs": [[1], [2]]}',
         '{\n    "outputs": [\n        [\n            2.5\n        ],\n        [\n            3.0\n        ]\n'
         "    ]\n}"),
        (b'{"signature_name": "bytes", "inputs": ["a"]}',
         '{\n    "outputs": [\n        {\n            "b64": "YQ=="\n        }\n    ]\n}'),
        (b'{"signature_name": "bytes", "instances": ["a", "b"]}',
         '{\n    "predictions": [{\n            "b64": "YQ=="\n        }, {\n            "b64": "Yg=="\n        }\n'
         "    ]\n}"),
        (b'{"signature_name": "bytes", "instances": [["a"]]}',
         '{\n    "predictions": [[{\n                "b64": "YQ=="\n            }]\n    ]\n}'),
        (b'{"inputs": [[]]}', '{\n    "outputs": [\n        []\n    ]\n}'),
    ],
)  # fmt: skip
def test_layout(target: Any, body: bytes, layout: str) -> None:
    assert post(target, body).text == layout


def test_layout_of_several_outputs(target: Any) -> None:
    """The order of the members is that of a hash map in the real server."""
    body = b'{"signature_name": "two", "%s": %s}'
    total, twice = '"total": 3.0', '"twice": 4'
    rows = '{{\n    "predictions": [\n        {{\n            {},\n            {}\n        }}\n    ]\n}}'
    answer = post(target, body % (b"instances", b'[{"a": 1, "b": 2}]')).text
    assert answer in (rows.format(total, twice), rows.format(twice, total))
    columns = '{{\n    "outputs": {{\n        {},\n        {}\n    }}\n}}'
    answer = post(target, body % (b"inputs", b'{"a": 1, "b": 2}')).text
    assert answer in (columns.format(total, twice), columns.format(twice, total))


def test_a_quoted_value_is_cut(target: Any) -> None:
    error = post(target, b'{"inputs": ["%s"]}' % (b"x" * 5000)).json()["error"]
    assert error.startswith('JSON Value: "xxx')
    assert error.endswith("Type: String is not of expected type: float")
    assert len(error) < 400


def test_a_layout_of_errors(target: Any) -> None:
    assert post(target, b"{}").text == "{\n    \"error\": \"Missing 'inputs' or 'instances' key\"\n}"
