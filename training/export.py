"""Exports a trained run as a version directory, complete but without a number: SavedModel, assets, warm-up, manifest.

python -m training.export --run-dir runs/best --output runs/best/export
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version as library_version
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow_serving.apis.classification_pb2 import ClassificationRequest
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import ClassifyLog, PredictionLog, PredictLog

from training import checkpoint, manifest
from training.backbones import backbone
from training.calibration import calibrate
from training.datasets import TrainingData, load_training, png
from training.preprocessing import View
from training.runs import check_same_data, read_settings
from training.serving_graph import ServedModel, fine_outputs
from training.settings import Settings
from training.versions import MODEL_FILE

_PREPROCESSING = {
    "fashion_mnist": "{size}x{size} grey, light object on black",
    "colour": "{size}x{size} RGB, resized without keeping the aspect",
}
LIBRARIES = ("tensorflow", "keras", "numpy", "tensorflow-serving-api")


def export(run_dir: Path, output: Path) -> Path:
    """Writes the version directory of a finished run to `output` (replaced if it exists).

    Raises:
        FileNotFoundError: the run is not finished.
        FileExistsError: `output` is something else than an earlier export.
        DataError: the data have changed since the run began.
    """
    model_file = run_dir / "model.keras"
    for path in (model_file, run_dir / "settings.json"):
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is missing: expected a finished run; train it with python -m training.train"
            )
    if output.exists() and not (output / manifest.FILE).is_file():
        raise FileExistsError(f"{output} exists and is no export; it is left as it is, choose another --output")
    settings = read_settings(run_dir)
    data = load_training(settings.source, settings.train_limit)
    check_same_data(data, run_dir)
    image = data.validation.images[0]
    chosen = backbone(settings.backbone)
    view = View(data.preprocessing, image.shape[0], chosen.scaling)
    model = keras.models.load_model(model_file)
    calibration = calibrate(model, data.validation, chosen.scaling)
    unfinished, replaced = (output.with_name(f".{output.name}-{what}") for what in ("unfinished", "replaced"))
    for left in (unfinished, replaced):
        shutil.rmtree(left, ignore_errors=True)
    write_saved_model(model, data.classes, unfinished, chosen.cam_layer, view, chosen.fine_layers)
    extra = unfinished / "assets.extra"
    extra.mkdir(exist_ok=True)
    model.save(unfinished / MODEL_FILE)
    write_warmup(extra / "tf_serving_warmup_requests", settings.model_name, image, view, fine=bool(chosen.fine_layers))
    manifest.write(unfinished, describe(run_dir, settings, model, data, view) | {"calibration": calibration})
    if output.exists():
        output.rename(replaced)
    unfinished.rename(output)
    shutil.rmtree(replaced, ignore_errors=True)
    return output


def write_saved_model(
    model: keras.Model,
    classes: tuple[str, ...],
    output: Path,
    cam_layer: str,
    view: View,
    fine_layers: Sequence[str] = (),
) -> None:
    """Writes `model` with all signatures as a SavedModel."""
    with tempfile.TemporaryDirectory() as scratch:
        classes_file = Path(scratch) / "classes.txt"
        classes_file.write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
        served = ServedModel(model, classes, str(classes_file), cam_layer, view, fine_layers)
        # nobody differentiates what is served; the gradients inside it are ops like others
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(served, str(output), signatures=served.signatures(), options=options)
    _finish(output)


def _finish(directory: Path) -> None:
    path = directory / "saved_model.pb"
    saved_model = SavedModel.FromString(path.read_bytes())
    meta_graph = saved_model.meta_graphs[0]
    # tf.saved_model.save names every method "tensorflow/serving/predict"
    meta_graph.signature_def["classify"].method_name = "tensorflow/serving/classify"
    for function in meta_graph.graph_def.library.function:
        for node in function.node_def:  # who loads it would be warned of gradients that nobody needs
            node.attr.pop("_gradient_op_type", None)
    path.write_bytes(saved_model.SerializeToString(deterministic=True))


def write_warmup(path: Path, name: str, image: np.ndarray, view: View, *, fine: bool = False) -> None:
    """Writes one warm-up request a signature, replayed by the server before the version is AVAILABLE.

    Args:
        path: the file to write.
        name: of the model, as it will be served.
        image: uint8 (H, W, 1 or 3), 0..255, any H and W.
        view: the model's.
        fine: whether there is a signature `explain_fine`.
    """
    encoded = png(image)
    picture = tf.constant(np.broadcast_to(image, (*image.shape[:2], 3)), tf.float32)
    pixels, _ = view.of_picture(picture)
    inputs = {
        "serving_default": {"image_bytes": tf.constant([encoded])},
        "explain": {"image_bytes": tf.constant([encoded])},
        "preprocess": {"image_bytes": tf.constant([encoded])},
        "images": {"images": picture[None]},
        "pixels": {"pixels": tf.reshape(pixels, (1, -1))},
    }
    if fine:
        inputs["explain_fine"] = inputs["explain"] | {"class_id": tf.constant([-1], tf.int64)}
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, tensors in inputs.items():
            request = PredictRequest()
            request.model_spec.name, request.model_spec.signature_name = name, signature
            for input_name, tensor in tensors.items():
                request.inputs[input_name].CopyFrom(tf.make_tensor_proto(tensor))
            writer.write(PredictionLog(predict_log=PredictLog(request=request)).SerializeToString())
        classification = ClassificationRequest()
        classification.model_spec.name, classification.model_spec.signature_name = name, "classify"
        feature = classification.input.example_list.examples.add().features.feature["image_bytes"]
        feature.bytes_list.value.append(encoded)
        writer.write(PredictionLog(classify_log=ClassifyLog(request=classification)).SerializeToString())


def describe(run_dir: Path, settings: Settings, model: keras.Model, data: TrainingData, view: View) -> dict[str, Any]:
    """What the manifest says beside the hashes, which come last, and the test metrics, which evaluation adds."""
    progress, _, _ = checkpoint.load(run_dir / "best.npz")
    chosen = backbone(settings.backbone)
    history = (run_dir / "history.jsonl").read_text(encoding="utf-8").splitlines()
    training = settings.to_dict()
    if settings.backbone_weights not in ("imagenet", "none"):
        training["backbone_weights"] = Path(settings.backbone_weights).name  # the path says nothing elsewhere
    if settings.init_from is not None:
        training["init_from"] = Path(settings.init_from).name
        before = json.loads((run_dir / "initial_version.json").read_text(encoding="utf-8"))
        training["before"] = {key: value for key, value in before.items() if key != "files"}
    training["teachers"] = progress.teachers
    training.pop("data_dir")
    training |= {
        "best_epoch": progress.best_epoch,
        "keras_backend": progress.keras_backend,
        "history": [json.loads(line) for line in history],
    }
    return {
        "name": settings.model_name,
        "version": None,  # given when published
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_commit": _git_commit(),
        "classes": list(data.classes),
        "input_size": settings.image_size,
        "preprocessing": f"{view.preprocessing}: {_PREPROCESSING[view.preprocessing].format(size=view.size)}",
        "view": {"size": view.size, "channels": view.shape[-1], "scaling": view.scaling},
        "cam_layers": [chosen.cam_layer],
        "fine_layers": fine_outputs(model, chosen.fine_layers),
        "backbone": settings.backbone,
        "initial_weights": progress.initial_weights,
        "parameters": model.count_params(),
        "data": dict(data.facts),
        "training": training,
        "metrics": {"validation": {"accuracy": progress.best_accuracy}},
        "libraries": {name: library_version(name) for name in LIBRARIES},
    }


def _git_commit() -> str | None:
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        result = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # no git, or no repository
        return None
    return result.stdout.strip()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.export", description=__doc__.splitlines()[0])
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args(argv)
    try:
        print(f"wrote {export(arguments.run_dir, arguments.output)}")
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
