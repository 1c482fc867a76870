"""Property-based and fuzz tests against a real server process: nothing that is sent may crash, hang or leak."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import fuzz
import numpy as np
import pytest
import tensorflow as tf
from fuzz_requests import ECHOES
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from repeatable import repeatable
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis import predict_pb2

from serving.embedded.proto_tensors import from_proto, to_proto

JSON_ECHOES = [kind for kind in ECHOES if kind not in ("half", "complex64")]


def numpy_tensors(kind: str) -> st.SearchStrategy[np.ndarray]:
    if kind == "string":
        return st.lists(st.binary(max_size=300), max_size=4).map(lambda items: np.array([*items, None], object)[:-1])
    numpy_kind = np.dtype(getattr(tf, kind).as_numpy_dtype)
    if kind == "bfloat16":
        numbers = st.floats(width=16, allow_nan=False)  # numpy cannot tell that its NaN equals itself
        return arrays.arrays(np.float32, arrays.array_shapes(max_dims=3, max_side=3), elements=numbers).map(
            lambda values: values.astype(numpy_kind)
        )
    return arrays.arrays(numpy_kind, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))


@pytest.mark.parametrize("kind", [*ECHOES, "float32", "uint16", "complex128", "bfloat16", "string"])
@repeatable(40)
@given(data=st.data())
def test_tensors_survive_protos_as_tensorflow_itself_writes_and_reads_them(kind: str, data: st.DataObject) -> None:
    tensor = data.draw(numpy_tensors(kind))
    np.testing.assert_array_equal(from_proto(tf.make_tensor_proto(tensor, getattr(tf, kind))), tensor, strict=True)
    for as_content in (False, True):
        written = TensorProto()
        to_proto(tensor, as_content, written)
        np.testing.assert_array_equal(from_proto(written), tensor, strict=True)
        by_tensorflow = tf.io.parse_tensor(written.SerializeToString(), getattr(tf, kind)).numpy()
        np.testing.assert_array_equal(by_tensorflow, tensor, strict=True)


@repeatable(120)
@given(data=st.data(), kind=st.sampled_from(JSON_ECHOES))
def test_tensors_survive_rest_in_both_forms(server: Any, data: st.DataObject, kind: str) -> None:
    shape = data.draw(arrays.array_shapes(max_dims=3, max_side=3))
    tensor = data.draw(arrays.arrays(np.dtype(getattr(tf, kind).as_numpy_dtype), shape))
    for form, key in (("instances", "predictions"), ("inputs", "outputs")):
        answer = server.post("m:predict", json.dumps({"signature_name": f"echo_{kind}", form: tensor.tolist()}))
        assert answer.status_code == 200, answer.text
        np.testing.assert_array_equal(np.array(answer.json()[key], tensor.dtype), tensor, strict=True)


@repeatable(120)
@given(data=st.data(), kind=st.sampled_from(list(ECHOES)))
def test_tensors_survive_grpc_in_typed_fields_and_as_bytes(
    prediction_stub: Any, data: st.DataObject, kind: str
) -> None:
    tensor = data.draw(numpy_tensors(kind))
    typed, packed = TensorProto(), TensorProto()
    to_proto(tensor, False, typed)
    to_proto(tensor, True, packed)
    for sent in (typed, packed):
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = "m", f"echo_{kind}"
        request.inputs["v"].CopyFrom(sent)
        answer = prediction_stub.Predict(request, timeout=60).outputs["v"]
        assert not answer.tensor_content
        np.testing.assert_array_equal(tf.make_ndarray(answer), tensor)


@pytest.fixture(scope="module")
def base(toolbox: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    path = tmp_path_factory.mktemp("fuzzed") / "m"
    toolbox.publish(path, 1)
    return path


@pytest.mark.parametrize(("flags", "count"), [((), 1500), (("--enable_batching",), 500)], ids=["plain", "batching"])
def test_bent_requests_get_proper_answers_and_harm_nobody(start: Any, base: Any, flags: Any, count: int) -> None:
    """More of the same: `python tests/serving/embedded/fuzz.py --help`."""
    server = start("--model_name=m", f"--model_base_path={base}", *flags)
    report = fuzz.run(server, count, seed=20251)
    summary = "\n".join(report.lines())
    assert not report.failures, summary
    assert not report.good_failures, summary
    assert report.good_requests > 20
    assert sum(report.codes.values()) == count
    assert server.process.poll() is None
    assert not fuzz.tracebacks(server.log.read_text(errors="replace"))
    assert report.before is not None
    assert report.after is not None
    assert report.after.threads <= report.before.threads + 4, summary
    assert report.after.files <= report.before.files + 20, summary  # connections that are just being closed
    assert report.after.rss_mb <= report.before.rss_mb * 1.05, summary
