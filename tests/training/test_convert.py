"""ONNX and LiteRT files: equal to the Keras model, of any batch size, or not kept."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter

from training import manifest
from training.convert import (
    FORMATS,
    IMAGES,
    ConversionError,
    convert,
    load_litert,
    load_onnx,
    main,
    measure_saved_model,
    proof_images,
    table,
)

layers = keras.layers
ROOT = Path(__file__).resolve().parents[2]


def network(seed: int = 0) -> keras.Model:
    """Small, with everything MobileNetV2 has; statistics and weights as after training."""
    inputs = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(8, 3, strides=2, use_bias=False)(layers.ZeroPadding2D(((0, 1), (0, 1)))(inputs))
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    y = layers.BatchNormalization()(layers.Conv2D(8, 1)(layers.ReLU(6.0)(layers.BatchNormalization()(y))))
    features = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(layers.Add()([x, y])))
    model = keras.Model(inputs, layers.Activation("softmax", name="probabilities")(layers.Dense(4)(features)))
    rng = np.random.default_rng(seed)
    model.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in model.get_weights()])
    head = model.layers[-2]
    head.set_weights([rng.normal(0, 1, weight.shape) for weight in head.get_weights()])
    return model


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return network()


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (40, 16, 16, 3)).astype("float32")


@pytest.fixture(scope="module")
def converted(model, images, tmp_path_factory):
    directory = tmp_path_factory.mktemp("converted") / "new"
    return directory, convert(model, ["onnx", "litert"], directory, images)


def test_what_was_written_is_what_is_reported(converted):
    directory, lines = converted
    assert sorted(path.name for path in directory.iterdir()) == ["model.onnx", "model.tflite"]
    assert [line.format for line in lines] == ["ONNX", "LiteRT"]
    for line in lines:
        assert line.bytes == Path(line.file).stat().st_size
        assert line.largest_difference <= 1e-4
        assert line.latency_ms > 0


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize(("load", "file"), [(load_onnx, "model.onnx"), (load_litert, "model.tflite")])
def test_a_file_computes_what_the_model_does(converted, model, images, load, file, batch):
    found = load(converted[0] / file)(images[:batch])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, model(images[:batch]), atol=1e-5)


def test_names_and_shapes_of_onnx(converted):
    session = onnxruntime.InferenceSession(converted[0] / "model.onnx", providers=["CPUExecutionProvider"])
    (sent,), (received,) = session.get_inputs(), session.get_outputs()
    assert (sent.name, sent.shape, sent.type) == ("image", ["N", 16, 16, 3], "tensor(float)")
    assert (received.name, received.shape, received.type) == ("probabilities", ["N", 4], "tensor(float)")


def test_names_and_shapes_of_litert(converted):
    interpreter = Interpreter(str(converted[0] / "model.tflite"))
    assert interpreter.get_signature_list() == {"serving_default": {"inputs": ["image"], "outputs": ["probabilities"]}}
    assert interpreter.get_input_details()[0]["shape_signature"].tolist() == [-1, 16, 16, 3]


def test_batch_norms_are_folded(converted, model):
    import onnx

    graph = onnx.load(converted[0] / "model.onnx").graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("Conv") == 3
    assert not {"BatchNormalization", "Mul", "Sub", "Pad"} & set(kinds)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("fault", ["another model", "no number"])
def test_a_file_that_is_not_equal_is_not_kept(monkeypatch, tmp_path, images, name, fault):
    right, wrong = network(), network(seed=1)
    if fault == "no number":
        wrong.layers[-2].set_weights([np.full(w.shape, np.nan) for w in wrong.layers[-2].get_weights()])
    write = FORMATS[name].write
    monkeypatch.setitem(
        FORMATS, name, dataclasses.replace(FORMATS[name], write=lambda folded, path: write(wrong, path))
    )
    earlier = tmp_path / FORMATS[name].file
    earlier.write_bytes(b"from before")
    with pytest.raises(ConversionError, match=rf"{FORMATS[name].file} is not kept: expected .* 0\.0001 on 40 images"):
        convert(right, [name], tmp_path, images)
    assert [path.name for path in tmp_path.iterdir()] == [earlier.name]
    assert earlier.read_bytes() == b"from before"


def test_the_saved_model_is_measured_beside_them(model, images, converted):
    line = measure_saved_model(model, images)
    assert line.largest_difference <= 1e-4
    assert line.bytes > 4 * model.count_params()
    text = table([line, *converted[1]])
    assert [row.split()[0] for row in text.splitlines()] == ["format", "Keras", "ONNX", "LiteRT"]


def test_fashion_mnist_is_proven_on_its_test_images():
    images, origin = proof_images({"training": {"dataset": "fashion_mnist"}}, 32)
    assert images.shape == (IMAGES, 32, 32, 3)
    assert (images.dtype, images.min()) == (np.float32, -1.0)
    assert 0.9 < images.max() <= 1.0
    assert "Fashion-MNIST" in origin


def test_other_data_are_proven_on_noise_in_their_scaling():
    content = {"training": {"dataset": "photos"}, "view": {"scaling": "caffe"}}
    (images, origin), (again, _) = proof_images(content, 16), proof_images(content, 16)
    np.testing.assert_array_equal(images, again)
    assert images.shape == (IMAGES, 16, 16, 3)
    assert images.min() < -100  # less ImageNet's mean
    assert images.max() > 130
    assert "noise" in origin


@pytest.fixture
def models(tmp_path) -> Path:
    """A base path's parent with version 3 of "photos"."""
    version_dir = tmp_path / "models" / "photos" / "3"
    (version_dir / "assets.extra").mkdir(parents=True)
    network().save(version_dir / "assets.extra" / "model.keras")
    manifest.write(version_dir, {"name": "photos", "version": 3, "training": {"dataset": "photos"}})
    return tmp_path / "models"


def test_the_command(models, tmp_path):
    """In a process of its own: threads are given to TensorFlow before it starts."""
    command = [sys.executable, "-W", "error", "-m", "training.convert", "--name", "photos", "--models", str(models)]
    command += ["-o", str(tmp_path / "out"), "--json"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    lines = json.loads(run.stdout)
    assert [line["format"] for line in lines] == ["Keras SavedModel", "ONNX", "LiteRT"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model.onnx", "model.tflite"]
    assert all(line["largest_difference"] <= 1e-4 for line in lines)


@pytest.mark.parametrize(
    ("name", "package"), [("onnx", "tf2onnx"), ("onnx", "onnxruntime"), ("litert", "ai_edge_litert")]
)
def test_a_missing_package_is_one_line(models, monkeypatch, capsys, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["--name", "photos", "--models", str(models), "--to", name]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert package in line
    assert "pip install -r training/requirements-extra.txt" in line


def test_a_version_that_is_not_there(models, capsys):
    assert main(["--name", "photos", "--models", str(models), "--version", "7"]) == 2
    assert "no version 7; there are: 3" in capsys.readouterr().err
