"""The error table, the class names, the hand-written protobuf, and what importing the client loads."""

import re
import subprocess
import sys
from http import HTTPStatus

import grpc
import numpy as np
import pytest

import serving.client
from serving.client import BadResponse, InternalError, ServingError, errors
from serving.client.classes import join, probes
from serving.client.example import bytes_example


def subclasses(kind: type) -> set[type]:
    return {kind}.union(*(subclasses(child) for child in kind.__subclasses__()))


def test_tree_in_the_docstring_is_the_tree():
    drawn = re.findall(r"[├└]── (\w+)", serving.client.__doc__)
    tree = {kind.__name__ for kind in subclasses(ServingError) if kind.__module__ == errors.__name__}
    assert set(drawn) == tree - {"ServingError"}
    assert tree <= set(serving.client.__all__)


def test_rows_in_the_docstring_are_the_table():
    for line in serving.client.__doc__.splitlines():
        name = re.search(r"── (\w+)", line)
        if name is None:
            continue
        for status in re.findall(r"\b[45]\d\d\b", line):
            assert errors.BY_HTTP_STATUS[int(status)].__name__ == name[1]
        for code in re.findall(r"\b[A-Z_]{4,}\b", line):
            assert errors.BY_GRPC_CODE[code].__name__ == name[1]


def test_every_grpc_code_but_ok_is_in_the_table():
    assert set(errors.BY_GRPC_CODE) == {code.name for code in grpc.StatusCode} - {"OK"}


@pytest.mark.parametrize("status", [s.value for s in HTTPStatus if s >= 400])
def test_every_http_error_becomes_one_of_ours(status):
    error = errors.from_http_status(status, "why")
    assert isinstance(error, ServingError)
    assert error.status == status
    if status >= 500 and status not in errors.BY_HTTP_STATUS:
        assert type(error) is InternalError


def test_long_messages_become_one_bounded_line():
    assert len(errors.clip("a\nb " * 5000)) < 1010
    assert "\n" not in errors.clip("a\nb")


def test_node_names_of_the_graph_are_left_out():
    message = "Invalid JPEG data, size 8\n\t [[{{function_node f_10075}}{{node map/while/ExtractJpegShape}}]] [Op:x]"
    assert errors.clip(message) == "Invalid JPEG data, size 8 [Op:x]"
    assert errors.clip("expected [[1, 2]], got [[3]]") == "expected [[1, 2]], got [[3]]"


def test_names_join_by_rank():
    probabilities = np.array([0.1, 0.6, 0.3], np.float32)
    assert join(probabilities, ["b", "c", "a"], np.array([0.6, 0.3, 0.1], np.float32)) == ("a", "b", "c")


def test_probabilities_too_close_to_tell_apart_are_not_joined():
    probabilities = np.array([0.4, 0.4 - 1e-5, 0.2], np.float32)
    scores = np.sort(probabilities)[::-1] + np.float32(1e-7)
    assert join(probabilities, ["a", "b", "c"], scores) is None


def test_exact_ties_follow_the_lower_id():
    probabilities = np.array([0.25, 0.5, 0.25], np.float32)
    assert join(probabilities, ["b", "a", "c"], np.array([0.5, 0.25, 0.25], np.float32)) == ("a", "b", "c")


def test_signatures_that_disagree_are_a_bad_response():
    with pytest.raises(BadResponse, match="do not agree"):
        join(np.array([0.9, 0.1], np.float32), ["a", "b"], np.array([0.6, 0.4], np.float32))
    with pytest.raises(BadResponse, match="3 names"):
        join(np.array([0.9, 0.1], np.float32), ["a", "b", "c"], np.array([0.9, 0.1], np.float32))


def test_probes_are_small_different_and_always_the_same():
    first, second = list(probes()), list(probes())
    assert first == second
    assert len(set(first)) == len(first)
    assert max(map(len, first)) < 1000


@pytest.mark.parametrize("size", [0, 1, 100, 127, 128, 300, 20_000, 70_000])
def test_example_reads_back_as_tf_example(size):
    from tensorflow.core.example.example_pb2 import Example

    value = bytes(range(256)) * (size // 256 + 1)
    example = Example.FromString(bytes_example("image_bytes", value[:size]))
    assert set(example.features.feature) == {"image_bytes"}
    assert list(example.features.feature["image_bytes"].bytes_list.value) == [value[:size]]


@pytest.mark.parametrize("module", ["serving.client", "serving.client.grpc", "serving.client.overlay", "serving.cli"])
def test_importing_loads_no_tensorflow_no_keras_no_matplotlib(module):
    program = f"import sys, {module}; print(sorted({{m.split('.')[0] for m in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "'serving'" in loaded
    for heavy in ("tensorflow", "tensorflow_serving", "keras", "jax", "matplotlib", "scipy"):
        assert f"'{heavy}'" not in loaded


def test_rest_client_needs_no_grpc():
    program = "import sys; sys.modules['grpc'] = None; import serving.client, serving.cli"
    subprocess.run([sys.executable, "-c", program], check=True)
    program = "import sys; sys.modules['grpc'] = None; import serving.client.grpc"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "pip install grpcio protobuf" in done.stderr


def test_our_messages_are_the_official_ones():
    """Same numbers and types as tensorflow-serving-api's, and neither pool disturbs the other."""
    from google.protobuf.descriptor import FieldDescriptor
    from tensorflow.core.framework.tensor_pb2 import TensorProto
    from tensorflow.core.framework.tensor_shape_pb2 import TensorShapeProto
    from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef, TensorInfo
    from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2, predict_pb2
    from tensorflow_serving.apis.status_pb2 import StatusProto

    from serving.client.protos import MESSAGES

    official = {"TensorProto": TensorProto, "TensorShapeProto": TensorShapeProto, "StatusProto": StatusProto}
    official |= {"SignatureDef": SignatureDef, "TensorInfo": TensorInfo}
    for module in (get_model_metadata_pb2, get_model_status_pb2, model_pb2, predict_pb2):
        official |= {name: getattr(module, name) for name in MESSAGES if hasattr(module, name)}
    assert set(MESSAGES) - set(official) == {"Any", "Int64Value", "Dim"}
    for name, ours in MESSAGES.items():
        for field in ours.DESCRIPTOR.fields if name in official else ():
            theirs = official[name].DESCRIPTOR.fields_by_name[field.name]
            enum_as_int = theirs.type == FieldDescriptor.TYPE_ENUM and field.type == FieldDescriptor.TYPE_INT32
            assert (theirs.number, theirs.is_repeated) == (field.number, field.is_repeated), (name, field.name)
            assert theirs.type == field.type or enum_as_int, (name, field.name)


def test_dtype_and_state_names_are_the_official_ones():
    from tensorflow.core.framework.types_pb2 import DataType
    from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus

    from serving.client.protos import DTYPE_NAMES, VERSION_STATES

    assert all(DataType.Name(number) == name for number, name in DTYPE_NAMES.items())
    assert {number: name for name, number in ModelVersionStatus.State.items()} == VERSION_STATES
