"""The models of the contract tests: a small SavedModel for every rule, and the config that serves them.

All in one directory, which a server may see under another path (a container's mount).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CONFIG, BATCHING, MONITORING = "models.config", "batching.config", "monitoring.config"
KINDS = (
    "float32", "float64", "half", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "bool", "complex64", "complex128",
)  # fmt: skip
WORDS = ("red", "green", "blue")

# What the config says of each model beside its path: version policy and labels.
MODELS = {
    "rules": "",
    "plain": "",
    "every": 'model_version_policy { all {} } version_labels { key: "stable" value: 1 } '
             'version_labels { key: "canary" value: 3 } version_labels { key: "later" value: 9 }',
    "two": "model_version_policy { latest { num_versions: 2 } }",
    "some": "model_version_policy { specific { versions: 1 versions: 3 versions: 9 } }",
    "graph": "",
    "legacy": "",
    "warm": "",
}  # fmt: skip


def write(root: Path, mounted_at: Path | None = None) -> None:
    """Write every model and config.

    Args:
        root: an empty directory.
        mounted_at: where the server sees it; the same place if None.
    """
    save_rules({root / "rules" / "1": 2.0})
    for version in (1, 2, 3):
        save_adder(root / "plain" / str(version), float(version))
    for name in ("every", "two", "some"):
        shutil.copytree(root / "plain", root / name)
    save_graph(root / "graph" / "1")
    save_graph(root / "legacy" / "1", legacy=True)
    shutil.copytree(root / "graph" / "1", root / "warm" / "7")
    write_warmup(root / "warm" / "7")
    entries = [
        f'  config {{ name: "{name}" base_path: "{(mounted_at or root) / name}" model_platform: "tensorflow" {rest} }}'
        for name, rest in MODELS.items()
    ]
    (root / CONFIG).write_text("model_config_list {\n" + "\n".join(entries) + "\n}\n")
    (root / BATCHING).write_text("max_batch_size { value: 16 } batch_timeout_micros { value: 1000 }\n")
    (root / MONITORING).write_text("prometheus_config { enable: true }\n")


def flags(mounted_at: Path, batching: bool) -> list[str]:
    """The command line, without ports, of a server for these models."""
    chosen = [
        f"--model_config_file={mounted_at / CONFIG}",
        f"--monitoring_config_file={mounted_at / MONITORING}",
        "--allow_version_labels_for_unavailable_models=true",
        "--file_system_poll_wait_seconds=1",
        "--max_num_load_retries=0",
    ]
    if batching:
        chosen += ["--enable_batching=true", f"--batching_parameters_file={mounted_at / BATCHING}"]
    return chosen


def save_adder(directory: Path, addend: float) -> Path:
    """Write the smallest model: y = x + addend."""
    import tensorflow as tf

    module = tf.Module()
    module.add = tf.function(lambda x: {"y": x + addend}, input_signature=[tf.TensorSpec((None,), tf.float32, "x")])
    tf.saved_model.save(module, str(directory), signatures={"serving_default": module.add})
    return directory


def save_rules(directories: Mapping[Path, float]) -> None:
    """Write the model with a signature for every rule of requests.

    Args:
        directories: where to, each with the value that its `serving_default` adds, by which versions are told apart.
    """
    import tensorflow as tf

    def spec(dtype: Any, name: str, shape: Any = (None,)) -> Any:
        return tf.TensorSpec(shape, dtype, name)

    module = tf.Module()
    module.addend = tf.Variable(0.0, dtype=tf.float32)
    classes = tf.constant([b"cat", b"dog"])

    def parsed(inputs: Any) -> Any:
        return tf.io.parse_example(inputs, {"x": tf.io.FixedLenFeature((), tf.float32, 0.25)})["x"]

    def labels(inputs: Any) -> Any:
        return tf.tile(classes[tf.newaxis], [tf.size(inputs), 1])

    def height(data: Any) -> Any:
        return tf.shape(tf.io.decode_image(data, channels=1, expand_animations=False))[0]

    def slow(steps: Any) -> Any:
        matrix = tf.ones((128, 128)) / 128.0
        end = tf.while_loop(
            lambda i, m: i < steps[0], lambda i, m: (i + 1.0, tf.linalg.matmul(m, matrix)), (0.0, matrix)
        )
        return {"y": steps + 0.0 * tf.reduce_sum(end[1])}

    def scores(inputs: Any) -> Any:
        return tf.stack([parsed(inputs), 1.0 - parsed(inputs)], axis=1)

    examples = [spec(tf.string, "inputs")]
    floats = [spec(tf.float32, "x", None)]
    wanted: dict[str, tuple[Any, list[Any]]] = {
        "serving_default": (lambda x: {"y": x * 0.5 + module.addend}, floats),
        "two": (
            lambda a, b: {"total": a + tf.cast(b, tf.float32), "twice": b * 2},
            [spec(tf.float32, "a"), spec(tf.int32, "b")],
        ),
        "strings": (lambda s: {"text": tf.strings.lower(s), "raw_bytes": tf.identity(s)}, [spec(tf.string, "s", None)]),
        "text": (lambda s: {"text": tf.identity(s)}, [spec(tf.string, "s", None)]),
        "bytes": (lambda s: {"s_bytes": tf.identity(s)}, [spec(tf.string, "s", None)]),
        "read": (lambda path: {"data": tf.map_fn(tf.io.read_file, path)}, [spec(tf.string, "path")]),
        "decode": (
            lambda image_bytes: {"height": tf.map_fn(height, image_bytes, fn_output_signature=tf.int32)},
            [spec(tf.string, "image_bytes")],
        ),
        "slow": (slow, [spec(tf.float32, "steps")]),
        # Shapes
        "pair": (lambda x: {"x": tf.identity(x)}, [spec(tf.float32, "x", (None, 2))]),
        "product": (lambda x: {"y": tf.linalg.matmul(x, [[1.0], [2.0]])}, [spec(tf.float32, "x", (None, 2))]),
        "count": (lambda x: {"n": tf.size(x)}, floats),
        "uneven": (lambda x: {"a": x, "b": x[1:]}, [spec(tf.float32, "x")]),
        "none": (lambda x: {"y": x[:0]}, [spec(tf.float32, "x")]),
        # Classify and Regress, right and wrong
        "classify": (lambda inputs: {"classes": labels(inputs), "scores": scores(inputs)}, examples),
        "classes": (lambda inputs: {"classes": labels(inputs)}, examples),
        "scores": (lambda inputs: {"scores": scores(inputs)}, examples),
        "classify_flat": (lambda inputs: {"scores": parsed(inputs)}, examples),
        "classify_double": (lambda inputs: {"scores": tf.cast(scores(inputs), tf.float64)}, examples),
        "classify_uneven": (lambda inputs: {"classes": labels(inputs), "scores": scores(inputs)[:, :1]}, examples),
        "classify_short": (lambda inputs: {"scores": scores(inputs)[1:]}, examples),
        "regress": (lambda inputs: {"outputs": parsed(inputs) * 10.0}, examples),
        "regress_column": (lambda inputs: {"outputs": parsed(inputs)[:, tf.newaxis] * 10.0}, examples),
        "regress_wide": (lambda inputs: {"outputs": scores(inputs)}, examples),
        "regress_short": (lambda inputs: {"outputs": parsed(inputs)[1:]}, examples),
        "regress_double": (lambda inputs: {"outputs": tf.cast(parsed(inputs), tf.float64)}, examples),
    }
    for kind in KINDS:
        wanted[f"echo_{kind}"] = (lambda v: {"v": tf.identity(v)}, [spec(getattr(tf, kind), "v", None)])
    signatures = {name: tf.function(work, input_signature=inputs) for name, (work, inputs) in wanted.items()}
    for name, function in signatures.items():
        setattr(module, name, function)
    for directory, addend in directories.items():
        module.addend.assign(addend)
        tf.saved_model.save(module, str(directory), signatures=signatures)
        with _edited(directory) as meta_graph:  # gRPC may leave this input out
            defaults = meta_graph.signature_def["two"].defaults
            defaults["b"].CopyFrom(tf.make_tensor_proto([10, 20], tf.int32))


@contextmanager
def _edited(directory: Path) -> Iterator[Any]:
    """Change the graph of a SavedModel."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    file = directory / "saved_model.pb"
    saved = SavedModel.FromString(file.read_bytes())
    yield saved.meta_graphs[0]
    file.write_bytes(saved.SerializeToString())


def save_graph(directory: Path, legacy: bool = False) -> None:
    """Write a graph of TensorFlow 1: an asset, a table that the init op fills, a variable that it sets.

    `classify` and `regress` share their input tensor.

    Args:
        directory: where to.
        legacy: name the init op in the collection "legacy_init_op", as before there was "saved_model_main_op".
    """
    import tensorflow as tf

    v1 = tf.compat.v1
    signatures = v1.saved_model.signature_def_utils
    info = v1.saved_model.utils.build_tensor_info
    vocabulary = directory.parent / "words.txt"
    vocabulary.parent.mkdir(parents=True, exist_ok=True)
    vocabulary.write_text("\n".join(WORDS) + "\n")
    with tf.Graph().as_default(), v1.Session() as session:
        initializer = tf.lookup.TextFileInitializer(
            str(vocabulary),
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        )
        table = tf.lookup.StaticHashTable(initializer, -1)
        weight = v1.get_variable("weight", initializer=10.0, use_resource=False)
        state = v1.get_variable("state", initializer=0.0, use_resource=False)
        word = v1.placeholder(tf.string, (None,), "word")
        inputs = v1.placeholder(tf.string, (None,), "inputs")
        x = tf.io.parse_example(inputs, {"x": tf.io.FixedLenFeature((), tf.float32, 0.25)})["x"]
        labels = tf.tile(tf.constant([[b"cat", b"dog"]]), [tf.size(inputs), 1])
        start = tf.group(v1.tables_initializer(), v1.assign(state, 42.0))
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(directory))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            signature_def_map={
                "serving_default": signatures.predict_signature_def(
                    {"word": word}, {"id": table.lookup(word), "state": tf.fill([tf.size(word)], state)}
                ),
                "classify": signatures.build_signature_def(
                    {"inputs": info(inputs)},
                    {"classes": info(labels), "scores": info(tf.stack([x, 1.0 - x], axis=1))},
                    "tensorflow/serving/classify",
                ),
                "regress": signatures.build_signature_def(
                    {"inputs": info(inputs)}, {"outputs": info(x * weight)}, "tensorflow/serving/regress"
                ),
            },
            assets_collection=v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS),
            main_op=start,
        )
        builder.save()
    if legacy:
        with _edited(directory) as meta_graph:
            init = meta_graph.collection_def.pop("saved_model_main_op")
            meta_graph.collection_def["legacy_init_op"].CopyFrom(init)
    vocabulary.unlink()  # what is served comes from the model's own assets


def write_warmup(directory: Path) -> None:
    """Write warm-up records of every kind for a model of `save_graph`."""
    import tensorflow as tf
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

    logs = [PredictionLog() for _ in range(4)]
    predict = logs[0].predict_log.request
    predict.model_spec.name = "warm"
    predict.inputs["word"].CopyFrom(tf.make_tensor_proto([b"red"]))
    logs[1].classify_log.request.model_spec.signature_name = "classify"
    logs[1].classify_log.request.input.example_list.examples.add()
    logs[2].regress_log.request.model_spec.signature_name = "regress"
    logs[2].regress_log.request.input.example_list.examples.add()
    both = logs[3].multi_inference_log.request
    both.input.example_list.examples.add()
    for name in ("classify", "regress"):
        task = both.tasks.add(method_name=f"tensorflow/serving/{name}")
        task.model_spec.name, task.model_spec.signature_name = "warm", name
    file = directory / "assets.extra" / "tf_serving_warmup_requests"
    file.parent.mkdir()
    with tf.io.TFRecordWriter(str(file)) as writer:
        for log in logs:
            writer.write(log.SerializeToString())
