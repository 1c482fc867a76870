"""Classify, Regress and MultiInference, over REST and gRPC."""

from __future__ import annotations

from typing import Any

import pytest
from tensorflow.core.example.example_pb2 import Example
from tensorflow_serving.apis.classification_pb2 import ClassificationRequest
from tensorflow_serving.apis.inference_pb2 import MultiInferenceRequest
from tensorflow_serving.apis.regression_pb2 import RegressionRequest


def example(x: float | None = None) -> Example:
    made = Example()
    if x is not None:
        made.features.feature["x"].float_list.value.append(x)
    return made


def request(kind: Any, signature: str, *values: float | None, model: str = "rules") -> Any:
    message = kind()
    message.model_spec.name, message.model_spec.signature_name = model, signature
    message.input.example_list.examples.extend([example(value) for value in values])
    return message


def multi(
    *tasks: tuple[str, str], model: str = "graph", methods: dict[str, str] | None = None
) -> MultiInferenceRequest:
    message = MultiInferenceRequest()
    message.input.example_list.examples.extend([example(0.5), example()])
    for name, signature in tasks:
        method = (methods or {}).get(signature, f"tensorflow/serving/{signature}")
        task = message.tasks.add(method_name=method)
        task.model_spec.name, task.model_spec.signature_name = name or model, signature
    return message


@pytest.mark.parametrize(
    ("path", "body", "answer"),
    [
        ("rules:classify", {"signature_name": "classify", "examples": [{"x": 0.5}, {}]},
         '{\n    "results": [[["cat", 0.5], ["dog", 0.5]], [["cat", 0.25], ["dog", 0.75]]\n    ]\n}'),
        ("rules:classify", {"signature_name": "classes", "examples": [{}]},
         '{\n    "results": [[["cat", 0.0], ["dog", 0.0]]\n    ]\n}'),
        ("rules:classify", {"signature_name": "scores", "examples": [{}]},
         '{\n    "results": [[["", 0.25], ["", 0.75]]\n    ]\n}'),
        ("graph/versions/1:classify", {"signature_name": "classify", "examples": [{}]},
         '{\n    "results": [[["cat", 0.25], ["dog", 0.75]]\n    ]\n}'),
        ("rules:regress", {"signature_name": "regress", "examples": [{"x": [2.0]}, {}]},
         '{\n    "results": [20.0, 2.5]\n}'),
        ("rules:regress", {"signature_name": "regress_column", "examples": [{}]}, '{\n    "results": [2.5]\n}'),
        ("rules:regress", {"signature_name": "regress", "context": {"x": 0.5}, "examples": [{}, {"x": 2.0}]},
         '{\n    "results": [5.0, 20.0]\n}'),
        ("rules:regress", {"signature_name": "regress", "examples": [{"y": [1, True], "z": ["a", {"b64": "YQ"}]}]},
         '{\n    "results": [2.5]\n}'),
    ],
)  # fmt: skip
def test_rest(any_target: Any, path: str, body: dict[str, Any], answer: str) -> None:
    got = any_target.post(path, body)
    assert (got.status_code, got.text) == (200, answer)


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("rules:classify", {"signature_name": "no", "examples": [{}]}, 400, "No signature was found with the name: no"),
        ("rules:regress", {"signature_name": "no", "examples": [{}]}, 400, "No signature was found with the name: no"),
        ("rules:classify", {"signature_name": "two", "examples": [{}]}, 400, "Expected one input Tensor."),
        ("nope:regress", {"examples": [{}]}, 404, "Servable not found for request: Latest(nope)"),
        ("every/labels/no:classify", {"examples": [{}]}, 400, "Unrecognized servable version label: no"),
        ("rules:classify", {"examples": [{"x": [1.0, "a"]}]}, 400,
         "Unexpected element type in feature: x expecting type: float"),
        ("rules:classify", {"examples": [{"x": [1, 1.0]}]}, 400,
         "Unexpected element type in feature: x expecting type: int64"),
        ("rules:classify", {"examples": [{"x": ["a", False]}]}, 400,
         "Unexpected element type in feature: x expecting type: bytes"),
        ("rules:classify", {"examples": [{"x": None}]}, 400,
         "Feature: x has element with unexpected JSON type: Null"),
        ("rules:classify", {"examples": [{"x": [[1.0]]}]}, 400,
         "Feature: x has element with unexpected JSON type: Array"),
        ("rules:classify", {"examples": [{"x": {"y": 1}}]}, 400,
         "Feature: x has element with unexpected JSON type: Object"),
        ("rules:classify", {"examples": [{"x": 2**63}]}, 400,
         "Feature: x has uint64_t element. Only int64_t is supported."),
        ("rules:classify", {"examples": [{"x": {"b64": "-"}}]}, 400, "Unable to base64 decode"),
        ("rules:classify", {"examples": [1]}, 400, "Example must be JSON object but got JSON Number"),
        ("rules:classify", {"context": [], "examples": [{}]}, 400, "Example must be JSON object but got JSON Array"),
        ("rules:regress", {}, 400,
         "JSON Value: {} When method is classify, key 'examples' is expected and was not found"),
        ("rules:regress", {"examples": 1}, 400,
         "JSON Value: {\n    \"examples\": 1\n} Expecting 'examples' value to be an list/array"),
        ("rules:classify", {"examples": []}, 400,
         "JSON Value: {\n    \"examples\": []\n} 'examples' value is an empty array"),
        ("nope:classify", {"signature_name": 1, "examples": [{}]}, 400, None),
    ],
)  # fmt: skip
def test_rest_errors(any_target: Any, path: str, body: dict[str, Any], status: int, error: str | None) -> None:
    answer = any_target.post(path, body)
    assert answer.status_code == status
    if error is None:
        assert answer.json()["error"].endswith("'signature_name' key must be a string value.")
    else:
        assert answer.json() == {"error": error}


def test_a_whole_number_is_no_float_feature(any_target: Any) -> None:
    answer = any_target.post("rules:regress", {"signature_name": "regress", "examples": [{"x": 2}]})
    assert answer.status_code == 400
    assert "Data type: int64 but expected type: float" in answer.json()["error"]


def test_grpc(any_target: Any) -> None:
    calls = any_target.prediction
    answer = calls.Classify(request(ClassificationRequest, "classify", 0.5, None), timeout=60)
    assert [[(c.label, c.score) for c in row.classes] for row in answer.result.classifications] == [
        [("cat", 0.5), ("dog", 0.5)],
        [("cat", 0.25), ("dog", 0.75)],
    ]
    spec = answer.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("rules", 1, "classify")
    with_context = request(RegressionRequest, "regress")
    with_context.input.example_list_with_context.context.CopyFrom(example(0.5))
    with_context.input.example_list_with_context.examples.append(example())
    answer = calls.Regress(with_context, timeout=60)
    assert [row.value for row in answer.result.regressions] == [5.0]


@pytest.mark.parametrize(
    ("call", "signature", "error"),
    [
        ("Classify", "no", "No signature was found with the name: no"),
        ("Classify", "", "No classification inputs found in SignatureDef: "),
        ("Classify", "regress",
         'Expected classification signature outputs to contain at least one of "classes" or "scores". Signature was: '),
        ("Classify", "classify_flat", "Expected Tensor shape: [batch_size num_classes] but got [1]"),
        ("Classify", "classify_double", "Expected scores Tensor of DT_FLOAT. Got: DT_DOUBLE"),
        ("Classify", "classify_uneven", "Tensors class and score should match in dim_size(1). Got 2 vs. 1"),
        ("Classify", "classify_short", "Expected scores output batch size of 1. Got: 0"),
        ("Regress", "no", "No signature was found with the name: no"),
        ("Regress", "", "No regression inputs found in SignatureDef: "),
        ("Regress", "classify", "Expected one output Tensor."),
        ("Regress", "scores", "No regression outputs found in SignatureDef: "),
        ("Regress", "regress_wide",
         "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [1,2]"),
        ("Regress", "regress_short", "Input batch size did not match output batch size: 1 vs. 0"),
        ("Regress", "regress_double", "Expected output Tensor of DT_FLOAT.  Got: DT_DOUBLE"),
    ],
)  # fmt: skip
def test_signatures_that_do_not_fit(target: Any, call: str, signature: str, error: str) -> None:
    kind = ClassificationRequest if call == "Classify" else RegressionRequest
    code, text = target.failure(getattr(target.prediction, call), request(kind, signature, None))
    assert code == "INVALID_ARGUMENT"
    assert text.startswith(error)


@pytest.mark.parametrize("call", ["Classify", "Regress"])
def test_grpc_errors(any_target: Any, call: str) -> None:
    kind = ClassificationRequest if call == "Classify" else RegressionRequest
    work = getattr(any_target.prediction, call)
    assert any_target.failure(work, kind()) == ("INVALID_ARGUMENT", "Missing ModelSpec")
    assert any_target.failure(work, request(kind, "", None, model="")) == (
        "INVALID_ARGUMENT", "ModelSpec has no name specified.")  # fmt: skip
    assert any_target.failure(work, request(kind, "", None, model="nope")) == (
        "NOT_FOUND", "Servable not found for request: Latest(nope)")  # fmt: skip
    assert any_target.failure(work, request(kind, call.lower())) == ("INVALID_ARGUMENT", "Input is empty.")


def test_multi_inference(any_target: Any) -> None:
    total = any_target.metric("request_example_count_total", model="graph")
    answer = any_target.prediction.MultiInference(multi(("", "classify"), ("", "regress")), timeout=60)
    first, second = answer.results
    assert [[(c.label, c.score) for c in row.classes] for row in first.classification_result.classifications] == [
        [("cat", 0.5), ("dog", 0.5)],
        [("cat", 0.25), ("dog", 0.75)],
    ]
    assert [row.value for row in second.regression_result.regressions] == [5.0, 2.5]
    specs = [
        (one.model_spec.name, one.model_spec.version.value, one.model_spec.signature_name) for one in answer.results
    ]
    assert specs == [("graph", 1, "classify"), ("graph", 1, "regress")]
    assert any_target.metric("request_example_count_total", model="graph") == total + 2


def test_multi_inference_feeds_the_examples_to_every_input(any_target: Any) -> None:
    """The two signatures have a graph of their own each."""
    together = any_target.prediction.MultiInference(multi(("rules", "classify"), ("rules", "regress")), timeout=60)
    for result, name in zip(together.results, ("classify", "regress"), strict=True):
        alone = any_target.prediction.MultiInference(multi(("rules", name)), timeout=60)
        assert result == alone.results[0]


@pytest.mark.parametrize(
    ("message", "code", "error"),
    [
        (MultiInferenceRequest(), "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        (multi(("nope", "classify")), "NOT_FOUND", "Servable not found for request: Latest(nope)"),
        (multi(("", "classify"), ("rules", "regress")), "INVALID_ARGUMENT",
         "All ModelSpecs in a MultiInferenceRequest must access the same model name."),
        (multi(("", "regress"), ("", "regress")), "INVALID_ARGUMENT", "Duplicate evaluation of signature: regress"),
        (multi(("", "no")), "INVALID_ARGUMENT", "Requested signature not found in model graph: no"),
        (multi(("", "regress"), methods={"regress": "x"}), "UNIMPLEMENTED", "Unsupported signature method_name: x"),
        (multi(("", "regress"), methods={"regress": "tensorflow/serving/predict"}), "UNIMPLEMENTED",
         "Unsupported signature method_name: tensorflow/serving/predict"),
    ],
)  # fmt: skip
def test_multi_inference_errors(any_target: Any, message: Any, code: str, error: str) -> None:
    assert any_target.failure(any_target.prediction.MultiInference, message) == (code, error)


def test_multi_inference_without_a_name_or_an_example(target: Any) -> None:
    unnamed = multi(("", "classify"), ("", "regress"))
    unnamed.tasks[1].model_spec.name = ""
    assert target.failure(target.prediction.MultiInference, unnamed) == (
        "INVALID_ARGUMENT", "Found ModelSpec with an empty model name.")  # fmt: skip
    empty = multi(("", "regress"))
    empty.input.Clear()
    assert target.failure(target.prediction.MultiInference, empty) == ("INVALID_ARGUMENT", "Input is empty.")
