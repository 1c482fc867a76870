"""What Predict, Classify, Regress and MultiInference mean, once for REST and gRPC: checks, run, results as arrays."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeVar

import numpy as np
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef

from serving.embedded import dtypes, metrics
from serving.embedded.errors import Code, ServingError, invalid_argument
from serving.embedded.proto_tensors import from_proto

DEFAULT_SIGNATURE = "serving_default"
PREDICT_METHOD = "tensorflow/serving/predict"
CLASSIFY_METHOD = "tensorflow/serving/classify"
REGRESS_METHOD = "tensorflow/serving/regress"


Answer = TypeVar("Answer")
Finish = Callable[[list[np.ndarray]], Answer]  # makes an answer of the fetched tensors


class Graph(Protocol):
    """What can be run: a servable."""

    def run(
        self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str], timeout_ms: int | None = None
    ) -> list[np.ndarray]:
        """Run the graph once."""


class Runner(Graph, Protocol):
    """Runs a graph for many: in a pool of threads, or by the batcher."""

    async def run_async(
        self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str], timeout_ms: int | None, finish: Finish[Answer]
    ) -> Answer:
        """Run the graph once, and `finish` in the thread that ran it."""


@dataclass(frozen=True)
class Model:
    """What a request runs on: one version of one model."""

    name: str
    version: int
    signatures: Mapping[str, SignatureDef]
    runner: Runner
    check_method_names: bool = False

    @cached_property
    def input_types(self) -> dict[str, dict[str, int]]:
        """DataType of every input by signature and alias, the aliases sorted; "" is the default signature."""
        types = {
            name: {alias: signature.inputs[alias].dtype for alias in sorted(signature.inputs)}
            for name, signature in self.signatures.items()
        }
        return types | {"": types[DEFAULT_SIGNATURE]} if DEFAULT_SIGNATURE in types else types


@dataclass(frozen=True)
class Classification:
    """labels bytes (N, C) or None, scores float32 (N, C) or None; one of them is there."""

    labels: np.ndarray | None
    scores: np.ndarray | None


@dataclass(frozen=True)
class Task:
    """One task of MultiInference, as it was sent."""

    model: str
    signature: str  # "" for the default
    method: str


def predict(
    model: Model,
    signature_name: str,
    inputs: Mapping[str, np.ndarray],
    output_filter: Sequence[str] = (),
    timeout_ms: int | None = None,
) -> dict[str, np.ndarray]:
    """Run a signature.

    Args:
        model: what to run.
        signature_name: "" for the default.
        inputs: tensors by alias.
        output_filter: aliases to return; all where empty.
        timeout_ms: bound of the session run.

    Returns:
        Outputs by alias.
    """
    feeds, fetches = _predict_tensors(model, signature_name, inputs, output_filter)
    results = _timed_run(model, "Predict", feeds, list(fetches.values()), timeout_ms)
    return dict(zip(fetches, results, strict=True))


async def predict_async(
    model: Model,
    signature_name: str,
    inputs: Mapping[str, np.ndarray],
    output_filter: Sequence[str],
    timeout_ms: int | None,
    write: Callable[[dict[str, np.ndarray]], Answer],
) -> Answer:
    """Run a signature as `predict` does, and `write` on its outputs, while the event loop goes on."""
    feeds, fetches = _predict_tensors(model, signature_name, inputs, output_filter)
    start = time.perf_counter()

    def finish(results: list[np.ndarray]) -> Answer:
        metrics.runtime_latency(model.name, "Predict", time.perf_counter() - start)
        return write(dict(zip(fetches, results, strict=True)))

    return await model.runner.run_async(feeds, list(fetches.values()), timeout_ms, finish)


def _predict_tensors(
    model: Model, signature_name: str, inputs: Mapping[str, np.ndarray], output_filter: Sequence[str]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return what to feed, by tensor name, and the names of the tensors to fetch, by alias."""
    signature = find_predict_signature(model, signature_name)
    feeds = _feeds(signature, inputs)
    aliases = _output_aliases(signature, output_filter)
    return feeds, {alias: signature.outputs[alias].name for alias in aliases}


def find_predict_signature(model: Model, name: str) -> SignatureDef:
    """Find a signature for Predict, with the error of the gRPC API."""
    name = name or DEFAULT_SIGNATURE
    signature = model.signatures.get(name)
    if signature is None:
        raise ServingError(Code.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
    known = (PREDICT_METHOD, CLASSIFY_METHOD, REGRESS_METHOD)
    if model.check_method_names and signature.method_name not in known:
        raise ServingError(
            Code.INTERNAL,
            f"Expected prediction signature method_name to be one of {{{', '.join(known)}}}. "
            f"Was: {signature.method_name}",
        )
    return signature


def classify(
    model: Model, signature_name: str, examples: Sequence[bytes], timeout_ms: int | None = None
) -> Classification:
    """Run a classification signature on serialized tf.Examples."""
    signature = _find_example_signature(model, signature_name, CLASSIFY_METHOD)
    feed, fetches = _classify_tensors(model, signature)
    results = _timed_run(model, "Classify", {feed: _examples_tensor(examples)}, fetches, timeout_ms)
    return _classification(signature, len(examples), dict(zip(fetches, results, strict=True)))


def regress(model: Model, signature_name: str, examples: Sequence[bytes], timeout_ms: int | None = None) -> np.ndarray:
    """Run a regression signature on serialized tf.Examples; returns float32 (N,)."""
    signature = _find_example_signature(model, signature_name, REGRESS_METHOD)
    feed, fetches = _regress_tensors(model, signature)
    results = _timed_run(model, "Regress", {feed: _examples_tensor(examples)}, fetches, timeout_ms)
    return _regression(len(examples), results[0])


def multi_infer(
    model: Model, tasks: Sequence[Task], examples: Sequence[bytes], timeout_ms: int | None = None
) -> list[Classification | np.ndarray]:
    """Run several signatures on the same examples in one run of the graph."""
    seen: set[str] = set()
    feeds, fetches = set(), set()
    for task in tasks:
        name = task.signature or DEFAULT_SIGNATURE
        if not task.model:
            raise invalid_argument("Found ModelSpec with an empty model name.")
        if task.model != tasks[0].model:
            raise invalid_argument("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        if name in seen:
            raise invalid_argument(f"Duplicate evaluation of signature: {name}")
        seen.add(name)
        if name not in model.signatures:
            raise invalid_argument(f"Requested signature not found in model graph: {name}")
        if task.method == CLASSIFY_METHOD:
            task_feed, task_fetches = _classify_tensors(model, model.signatures[name])
        elif task.method == REGRESS_METHOD:
            task_feed, task_fetches = _regress_tensors(model, model.signatures[name])
        else:
            raise ServingError(Code.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method}")
        feeds.add(task_feed)
        fetches.update(task_fetches)
    names = sorted(fetches)
    tensor = _examples_tensor(examples)
    results = dict(zip(names, model.runner.run(dict.fromkeys(feeds, tensor), names, timeout_ms), strict=True))
    metrics.count_examples(model.name, len(examples))
    answers: list[Classification | np.ndarray] = []
    for task in tasks:
        signature = model.signatures[task.signature or DEFAULT_SIGNATURE]
        if task.method == CLASSIFY_METHOD:
            answers.append(_classification(signature, len(examples), results))
        else:
            answers.append(_regression(len(examples), results[signature.outputs["outputs"].name]))
    return answers


def _timed_run(
    model: Model, api: str, feeds: Mapping[str, np.ndarray], fetches: Sequence[str], timeout_ms: int | None
) -> list[np.ndarray]:
    start = time.perf_counter()
    results = model.runner.run(feeds, fetches, timeout_ms)
    metrics.runtime_latency(model.name, api, time.perf_counter() - start)
    return results


def check_number_of_inputs(signature: SignatureDef, sent: set[str]) -> None:
    """Refuse too many inputs, or too few; for gRPC before any tensor is decoded."""
    required = set(signature.inputs)
    if len(sent) > len(required) or (len(sent) < len(required) and not signature.defaults):
        raise invalid_argument(
            f"input size does not match signature: {len(sent)}!={len(required)} "
            f"len({{{_join(sent)}}}) != len({{{_join(required)}}}). "
            f"Sent extra: {{{_join(sent - required)}}}. Missing but required: {{{_join(required - sent)}}}."
        )


def _feeds(signature: SignatureDef, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    sent, required = set(inputs), set(signature.inputs)
    check_number_of_inputs(signature, sent)
    feeds = {}
    for alias in sorted(required):
        name = signature.inputs[alias].name
        if alias in inputs:
            feeds[name] = inputs[alias]
        elif alias in signature.defaults:
            feeds[name] = from_proto(signature.defaults[alias])
        else:
            raise invalid_argument(
                f"Signature input alias: {alias}(feed name: {name}) not found in request and no default value "
                f"provided. Inputs expected to be in the request {{{_join(sent)}}}, "
                f"or default input alias set: {_join(set(signature.defaults))}"
            )
    if not sent <= required:
        raise invalid_argument(
            f"Inputs contains invalid name. Used request inputs: {_join(sent & required)}, request input: {_join(sent)}"
        )
    return feeds


def _join(names: set[str]) -> str:
    return ",".join(sorted(names))


def _output_aliases(signature: SignatureDef, output_filter: Sequence[str]) -> list[str]:
    seen: set[str] = set()
    for alias in output_filter:
        if alias not in signature.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set "
                f"{{{_join(set(signature.outputs))}}}."
            )
        if alias in seen:
            raise invalid_argument(f"duplicate output tensor alias: {alias}")
        seen.add(alias)
    return list(output_filter) or sorted(signature.outputs)


def _examples_tensor(examples: Sequence[bytes]) -> np.ndarray:
    if not examples:
        raise invalid_argument("Input is empty.")
    tensor = np.empty(len(examples), dtype=object)
    tensor[:] = examples
    return tensor


def _find_example_signature(model: Model, name: str, method: str) -> SignatureDef:
    name = name or DEFAULT_SIGNATURE
    signature = model.signatures.get(name)
    if signature is None:
        raise invalid_argument(f"No signature was found with the name: {name}")
    _check_method(model, signature, method)
    return signature


def _check_method(model: Model, signature: SignatureDef, method: str) -> None:
    kind = "classification" if method == CLASSIFY_METHOD else "regression"
    if model.check_method_names and signature.method_name != method:
        raise invalid_argument(f"Expected {kind} signature method_name to be {method}. Was: {signature.method_name}")


def _classify_tensors(model: Model, signature: SignatureDef) -> tuple[str, list[str]]:
    _check_method(model, signature, CLASSIFY_METHOD)
    if len(signature.inputs) != 1:
        raise invalid_argument("Expected one input Tensor.")
    if len(signature.outputs) not in (1, 2):
        raise invalid_argument(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    if "inputs" not in signature.inputs:
        raise invalid_argument(f"No classification inputs found in SignatureDef: {signature}")
    fetches = [signature.outputs[alias].name for alias in ("classes", "scores") if alias in signature.outputs]
    if not fetches:
        raise invalid_argument(
            'Expected classification signature outputs to contain at least one of "classes" or "scores". '
            f"Signature was: {signature}"
        )
    return signature.inputs["inputs"].name, fetches


def _regress_tensors(model: Model, signature: SignatureDef) -> tuple[str, list[str]]:
    _check_method(model, signature, REGRESS_METHOD)
    if len(signature.inputs) != 1:
        raise invalid_argument("Expected one input Tensor.")
    if len(signature.outputs) != 1:
        raise invalid_argument("Expected one output Tensor.")
    if "inputs" not in signature.inputs:
        raise invalid_argument(f"No regression inputs found in SignatureDef: {signature}")
    if "outputs" not in signature.outputs:
        raise invalid_argument(f"No regression outputs found in SignatureDef: {signature}")
    return signature.inputs["inputs"].name, [signature.outputs["outputs"].name]


def _classification(signature: SignatureDef, count: int, results: Mapping[str, np.ndarray]) -> Classification:
    parts: dict[str, np.ndarray | None] = {}
    for alias, enum in (("classes", dtypes.STRING), ("scores", dtypes.FLOAT)):
        tensor = results[signature.outputs[alias].name] if alias in signature.outputs else None
        parts[alias] = tensor
        if tensor is None:
            continue
        if tensor.ndim != 2:
            raise invalid_argument(f"Expected Tensor shape: [batch_size num_classes] but got {_shape(tensor)}")
        element = dtypes.BY_NUMPY[tensor.dtype]
        if element.enum != enum:
            expected = "STRING" if enum == dtypes.STRING else "FLOAT"
            raise invalid_argument(f"Expected {alias} Tensor of DT_{expected}. Got: DT_{element.name.upper()}")
        if tensor.shape[0] != count:
            raise invalid_argument(f"Expected {alias} output batch size of {count}. Got: {tensor.shape[0]}")
    labels, scores = parts["classes"], parts["scores"]
    if labels is not None and scores is not None and labels.shape[1] != scores.shape[1]:
        raise invalid_argument(
            f"Tensors class and score should match in dim_size(1). Got {labels.shape[1]} vs. {scores.shape[1]}"
        )
    return Classification(labels, scores)


def _regression(count: int, output: np.ndarray) -> np.ndarray:
    if not (output.ndim == 1 or (output.ndim == 2 and output.shape[1] == 1)):
        raise invalid_argument(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {_shape(output)}"
        )
    if output.shape[0] != count:
        raise invalid_argument(f"Input batch size did not match output batch size: {count} vs. {output.shape[0]}")
    if dtypes.BY_NUMPY[output.dtype].enum != dtypes.FLOAT:
        raise invalid_argument(
            f"Expected output Tensor of DT_FLOAT.  Got: DT_{dtypes.BY_NUMPY[output.dtype].name.upper()}"
        )
    return output.reshape(-1)


def _shape(tensor: np.ndarray) -> str:
    return "[" + ",".join(map(str, tensor.shape)) + "]"
