"""Predict over REST: rows and columns, element types, bytes, and what is said of a wrong request."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

IMAGE = (  # a PNG of 1x1; padding may be missing
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg"
)


def ask(target: Any, body: dict[str, Any], path: str = "rules:predict") -> tuple[int, dict[str, Any]]:
    answer = target.post(path, body)
    assert answer.headers["Content-Type"] == "application/json"
    return answer.status_code, json.loads(answer.content.decode("utf-8", "surrogateescape"))


@pytest.mark.parametrize(
    "path", ["rules:predict", "rules/versions/1:predict", "%72ules:predict", "rules/versions/0001:predict"]
)
def test_paths(any_target: Any, path: str) -> None:
    assert ask(any_target, {"instances": [1, 2.5]}, path) == (200, {"predictions": [2.5, 3.25]})


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ({"inputs": [[1.0, 3.0]]}, {"outputs": [[2.5, 3.5]]}),
        ({"inputs": {"x": [1.0]}}, {"outputs": [2.5]}),
        ({"inputs": {"x": [1.0], "unknown": "ignored"}, "unknown": 1}, {"outputs": [2.5]}),
        ({"instances": [{"x": 1}, {"x": 3}]}, {"predictions": [2.5, 3.5]}),
        ({"instances": [[[1, 3]], [[5, 7]]]}, {"predictions": [[[2.5, 3.5]], [[4.5, 5.5]]]}),
        ({"signature_name": "", "instances": [1]}, {"predictions": [2.5]}),
        ({"signature_name": "two", "instances": [{"a": 1, "b": 2}, {"a": 3, "b": 4}]},
         {"predictions": [{"total": 3.0, "twice": 4}, {"total": 7.0, "twice": 8}]}),
        ({"signature_name": "two", "inputs": {"a": [1, 3], "b": [2, 4]}},
         {"outputs": {"total": [3.0, 7.0], "twice": [4, 8]}}),
        ({"signature_name": "pair", "instances": [[1, 2, 3]]}, {"predictions": [[1.0, 2.0, 3.0]]}),
        ({"signature_name": "decode", "instances": [{"b64": IMAGE}]}, {"predictions": [1]}),
        ({"signature_name": "decode", "instances": [{"image_bytes": {"b64": IMAGE}}]}, {"predictions": [1]}),
        ({"signature_name": "text", "instances": [["a", "b"], ["c", "d"]]}, {"predictions": [["a", "b"], ["c", "d"]]}),
    ],
)  # fmt: skip
def test_answers(any_target: Any, body: dict[str, Any], answer: dict[str, Any]) -> None:
    assert ask(any_target, body) == (200, answer)


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ({"signature_name": "none", "instances": [1, 2]}, {"predictions": []}),
        ({"signature_name": "none", "inputs": [1, 2]}, {"outputs": []}),
        ({"signature_name": "uneven", "inputs": [1, 2]}, {"outputs": {"a": [1.0, 2.0], "b": [2.0]}}),
    ],
)
def test_rows_of_the_outputs_need_not_be_those_of_the_inputs(
    target: Any, body: dict[str, Any], answer: dict[str, Any]
) -> None:
    """Without batching only: it has to know whose rows are whose."""
    assert ask(target, body) == (200, answer)


@pytest.mark.parametrize("body", [{"inputs": 3}, {"inputs": {"x": 3}}])
def test_a_scalar_has_rank_0(target: Any, body: dict[str, Any]) -> None:
    assert ask(target, body) == (200, {"outputs": 3.5})
    assert ask(target, {"signature_name": "count", **body}) == (200, {"outputs": 1})
    assert ask(target, {"signature_name": "count", "inputs": []}) == (200, {"outputs": 0})


def test_names_that_end_in_bytes_come_in_base64(any_target: Any) -> None:
    values = ["Ab", {"b64": "/+8="}, {"b64": "QQ"}]
    assert ask(any_target, {"signature_name": "strings", "inputs": values}) == (
        200,
        {
            "outputs": {
                "raw_bytes": [{"b64": "QWI="}, {"b64": "/+8="}, {"b64": "QQ=="}],
                "text": ["ab", "\udcff\udcef", "a"],
            }
        },
    )
    assert ask(any_target, {"signature_name": "bytes", "instances": ["Ab"]}) == (
        200,
        {"predictions": [{"b64": "QWI="}]},
    )


@pytest.mark.parametrize(
    ("kind", "values", "answer"),
    [
        ("float32", [1, 2.5, -3e2, 1e39, -1e39, 16777217], [1.0, 2.5, -300.0, float("inf"), float("-inf"), 16777216.0]),
        ("float64", [0.1, 1e300, 18446744073709551616], [0.1, 1e300, 18446744073709551616.0]),
        ("int8", [-128, 127, 200], [-128, 127, -56]),
        ("int16", [-300, 40000], [-300, -25536]),
        ("int32", [7, -(2**31), 2**31 - 1], [7, -(2**31), 2**31 - 1]),
        ("int64", [-(2**63), 2**63 - 1], [-(2**63), 2**63 - 1]),
        ("uint8", [255, 300, -1], [255, 44, 255]),
        ("uint32", [0, 2**32 - 1], [0, 2**32 - 1]),
        ("uint64", [0, 2**64 - 1], [0, 2**64 - 1]),
        ("bool", [True, False], [True, False]),
    ],
)  # fmt: skip
def test_element_types(target: Any, kind: str, values: list[Any], answer: list[Any]) -> None:
    body = {"signature_name": f"echo_{kind}"}
    assert ask(target, body | {"instances": values}) == (200, {"predictions": answer})
    assert ask(target, body | {"inputs": [values]}) == (200, {"outputs": [answer]})
    assert ask(target, body | {"instances": [{"v": value} for value in values]}) == (200, {"predictions": answer})


@pytest.mark.parametrize("kind", ["half", "bfloat16", "uint16", "complex64", "complex128"])
def test_element_types_without_json(target: Any, kind: str) -> None:
    reason = f"Conversion of JSON Value: 1 to type: {kind}"
    body = {"signature_name": f"echo_{kind}"}
    assert ask(target, body | {"inputs": [1]}) == (501, {"error": reason})
    assert ask(target, body | {"instances": [1]}) == (
        400, {"error": f"Failed to process element: 0 of 'instances' list. Error: UNIMPLEMENTED: {reason}"}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "value", "shown", "type_name"),
    [
        ("float32", True, "true", "True"),
        ("float32", False, "false", "False"),
        ("float32", "1", '"1"', "String"),
        ("float32", None, "null", "Null"),
        ("float32", {"b64": "aa"}, '{\n    "b64": "aa"\n}', "Object"),
        ("int32", 1.0, "1.0", "Number"),
        ("int32", 2**31, "2147483648", "Number"),
        ("uint8", 0.5, "0.5", "Number"),
        ("uint32", -1, "-1", "Number"),
        ("uint64", -1, "-1", "Number"),
        ("int64", 2**63, "9223372036854775808", "Number"),
        ("bool", 1, "1", "Number"),
        ("string", 1, "1", "Number"),
        ("string", None, "null", "Null"),
        ("string", True, "true", "True"),
    ],
)
def test_a_wrong_type_is_named(target: Any, kind: str, value: Any, shown: str, type_name: str) -> None:
    name = {"float32": "float"}.get(kind, kind)
    reason = f"JSON Value: {shown} Type: {type_name} is not of expected type: {name}"
    body = {"signature_name": "text" if kind == "string" else f"echo_{kind}"}
    assert ask(target, body | {"inputs": [value]}) == (400, {"error": reason})
    if not isinstance(value, dict):
        where = "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: "
        assert ask(target, body | {"instances": [value]}) == (400, {"error": where + reason})


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("nope:predict", {"instances": [1]}, 404, "Servable not found for request: Latest(nope)"),
        ("rules/versions/9:predict", {"instances": [1]}, 404, "Servable not found for request: Specific(rules, 9)"),
        ("rules/labels/x:predict", {"instances": [1]}, 400, "Unrecognized servable version label: x"),
        ("nope/labels/x%20y:predict", {"instances": [1]}, 400, "Unrecognized servable version label: x y"),
        ("every/labels/later:predict", {"instances": [1]}, 404, "Servable not found for request: Specific(every, 9)"),
        ("rules:predict", {"signature_name": "no", "instances": [1]}, 400,
         'Serving signature name: "no" not found in signature def'),
        ("graph:predict", {"signature_name": "no"}, 400, 'Serving signature name: "no" not found in signature def'),
        ("rules:predict", {"signature_name": "__saved_model_init_op", "inputs": 1}, 400,
         "Failed to get input map for signature: __saved_model_init_op"),
        ("rules:predict", {}, 400, "Missing 'inputs' or 'instances' key"),
        # The body is read before the model is looked for, the model before the signature.
        ("nope:predict", b"{", 400, "JSON Parse error: Missing a name for object member. at offset: 1"),
        ("nope:predict", {"signature_name": 1}, 400,
         'JSON Value: {\n    "signature_name": 1\n} not formatted correctly. '
         "'signature_name' key must be a string value."),
        ("nope:predict", {"signature_name": "no"}, 404, "Servable not found for request: Latest(nope)"),
        ("rules:predict", [], 400, "JSON Value: [] Is not object"),
        ("rules:predict", b"1", 400, "JSON Value: 1 Is not object"),
    ],
)  # fmt: skip
def test_errors(any_target: Any, path: str, body: Any, status: int, error: str) -> None:
    answer = any_target.post(path, body)
    assert (answer.status_code, answer.json()) == (status, {"error": error})


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"instances": []}, "No values in 'instances' array"),
        ({"instances": 1}, "Expecting 'instances' to be an list/array"),
        ({"instances": {}}, "Expecting 'instances' to be an list/array"),
        ({"instances": [1], "inputs": [1]},
         "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "),
    ],
)  # fmt: skip
def test_errors_that_quote_the_body(target: Any, body: dict[str, Any], error: str) -> None:
    quoted = json.dumps(body, indent=4)
    assert ask(target, body) == (400, {"error": f"JSON Value: {quoted} {error}"})


@pytest.mark.parametrize(
    ("signature", "body", "error"),
    [
        ("", {"inputs": [[1, 2], [3]]}, "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        ("", {"inputs": [1, [2]]}, "Encountered list at unexpected level: 1 expected < 1"),
        ("", {"inputs": [[1], 2]}, "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
        ("", {"inputs": [[]]}, None),
        ("", {"instances": [[1, 2], [3]]},
         "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
         "Expecting tensor size: 2 but got: 1"),
        ("", {"instances": [[[1]], [1]]},
         "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
         "Expecting shape [1,1] but got: [1]"),
        ("", {"instances": [{"x": 1}, 2]}, "Expecting object but got list at item 1 of input list"),
        ("", {"instances": [2, {"x": 1}]}, "Expecting value/list but got object at item 1 of input list"),
        ("", {"instances": [{"y": 1}]},
         "Failed to process element: 0 key: y of 'instances' list. Error: INVALID_ARGUMENT: "
         "JSON object: does not have named input: y"),
        ("", {"instances": [{"x": 1}, {}]},
         "Failed to process element: 1 of 'instances' list. JSON object: {} keys must be equal to: x"),
        ("", {"inputs": {"y": 1}}, "Missing named input: x in 'inputs' object."),
        ("", {"inputs": {}}, "Missing named input: x in 'inputs' object."),
        ("two", {"instances": [{"a": 1}]},
         'Failed to process element: 0 of \'instances\' list. JSON object: {\n    "a": 1\n} '
         "keys must be equal to: a,b"),
        ("two", {"instances": [1]},
         "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
         "tensorinfo_map"),
        ("two", {"inputs": [1]},
         "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
         "tensorinfo_map"),
        ("text", {"inputs": {"b64": "a-_k"}}, "Unable to base64 decode"),
        ("text", {"inputs": {"b64": "aGVsbG8=="}}, "Unable to base64 decode"),
        ("text", {"inputs": {"b64": "aA="}}, "Unable to base64 decode"),
        ("text", {"inputs": {"b64": "aGVs===="}}, "Unable to base64 decode"),
        ("text", {"inputs": [{"b64": 1}]}, 'JSON Value: {\n    "b64": 1\n} not formatted correctly for base64 data'),
        ("text", {"inputs": [{"b64": "aa", "x": 1}]},
         'JSON Value: {\n    "b64": "aa",\n    "x": 1\n} not formatted correctly for base64 data'),
    ],
)  # fmt: skip
def test_malformed_values(target: Any, signature: str, body: dict[str, Any], error: str | None) -> None:
    status, answer = ask(target, {"signature_name": signature, **body})
    assert (status, answer) == ((200, {"outputs": [[]]}) if error is None else (400, {"error": error}))


@pytest.mark.parametrize(
    ("signature", "body", "error"),
    [
        ("count", {"instances": [1]}, "Tensor name: n has no shape information "),
        ("uneven", {"instances": [1, 2, 3]}, "has inconsistent batch size: "),
        ("echo_half", {"instances": []}, "No values in 'instances' array"),
    ],
)
def test_rows_that_cannot_be_told_apart(target: Any, signature: str, body: dict[str, Any], error: str) -> None:
    status, answer = ask(target, {"signature_name": signature, **body})
    assert status == 400
    assert error in answer["error"]


@pytest.mark.parametrize(
    ("signature", "values", "status", "error"),
    [
        ("decode", ["no image"], 400, "Unknown image file format"),
        ("product", [[1, 2, 3]], 400, "Matrix size-incompatible: In[0]: [1,3], In[1]: [2,1]"),
        ("read", ["/no/such/file"], 404, "/no/such/file; No such file or directory"),
        ("read", ["/"], 400, "/; Is a directory"),
    ],
)
def test_a_failing_op_gives_its_own_code_and_message(
    any_target: Any, signature: str, values: list[Any], status: int, error: str
) -> None:
    got, answer = ask(any_target, {"signature_name": signature, "instances": values})
    assert got == status, answer
    assert error in answer["error"]


def test_bad_requests_do_not_harm_good_ones(target: Any) -> None:
    good = {"signature_name": "decode", "instances": [{"b64": IMAGE}]}
    bad = [
        {"signature_name": "decode", "instances": ["not an image"]},
        {"signature_name": "decode", "instances": [{"b64": IMAGE[:40]}]},
        {"signature_name": "decode", "instances": [1]},
        {"instances": [[1, 2], [3]]},
        b"{",
    ]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda body: (body is good, target.post("rules:predict", body)), [good, *bad] * 10))
    for is_good, answer in answers:
        assert answer.status_code == (200 if is_good else 400), answer.text
        assert not is_good or answer.json() == {"predictions": [1]}


def test_with_batching_every_tensor_needs_the_same_rows(targets: Any) -> None:
    batching = targets(True)
    status, answer = ask(batching, {"inputs": 3})
    assert (status, answer["error"]) == (400, "Batching Run() input tensors must have at least one dimension")
    status, answer = ask(batching, {"signature_name": "two", "inputs": {"a": [1], "b": [1, 2]}})
    assert (status, answer["error"]) == (400, "Batching Run() input tensors must have equal 0th-dimension size")
    status, answer = ask(batching, {"instances": [1.0] * 17})
    assert (status, answer["error"]) == (400, "Task size 17 is larger than maximum input batch size 16")
    status, answer = ask(batching, {"signature_name": "none", "inputs": [1, 2]})
    assert (status, answer["error"]) == (
        400,
        "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input tensors",
    )
