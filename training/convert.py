"""Converts a published version's network to ONNX and LiteRT, and proves each file equal to the Keras model.

python -m training.convert --version 2            # -> runs/converted/fashion_mnist/2/model.onnx and model.tflite
python -m training.convert --version 2 --to onnx -o out --json

The files hold the network alone: from the scaled image, float32 (N, S, S, 3), to probabilities, float32 (N, C). What
turns a picture into such an image stays in the SavedModel; the manifest says how. It needs the packages of
training/requirements-extra.txt.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from training import manifest
from training.augment import to_model_input
from training.datasets import DataError, Source, load_test
from training.extras import INSTALL
from training.folding import fold
from training.settings import MODELS
from training.versions import MODEL_FILE, newest_or

TOLERANCE = 1e-4  # of a probability
IMAGES = 100
CALLS = 50
OUTPUT = "probabilities"

Network = Callable[[np.ndarray], np.ndarray]  # float32 (N, S, S, 3) -> float32 (N, C)


class ConversionError(ValueError):
    """A file that does not compute what the Keras model does."""


@dataclass(frozen=True)
class Format:
    """A format: its file, the packages beyond requirements.txt, how it is written and how it is run."""

    title: str
    file: str
    packages: tuple[str, ...]
    write: Callable[[keras.Model, Path], None]
    load: Callable[[Path], Network]  # on one thread


@dataclass(frozen=True)
class Measured:
    """One line of the table."""

    format: str
    file: str | None  # None for the SavedModel, which is only measured
    bytes: int
    largest_difference: float  # of a probability, against the Keras model
    latency_ms: float  # of one image, one thread, median


def write_onnx(model: keras.Model, path: Path) -> None:
    """Writes `model` as ONNX: input named as the model's, output "probabilities", batch dimension "N".

    By tf2onnx itself: Keras' `export(format="onnx")` calls it too, but names the output "Identity:0" and patches numpy.
    """
    import onnx
    import tf2onnx

    specification = [tf.TensorSpec(model.input.shape, tf.float32, name=model.input.name)]

    @tf.function(input_signature=specification, autograph=False)
    def network(images):
        return {OUTPUT: model(images, training=False)}

    converted, _ = tf2onnx.convert.from_function(network, specification)
    for tensor in (*converted.graph.input, *converted.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_param = "N"
    onnx.checker.check_model(converted, full_check=True)
    onnx.save(converted, path)


def load_onnx(path: Path) -> Network:
    """The file in ONNX Runtime, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run([OUTPUT], {name: images})[0]


def write_litert(model: keras.Model, path: Path) -> None:
    """Writes `model` as LiteRT (.tflite): signature "serving_default", output "probabilities", the batch may vary.

    By Keras' export, which drives TensorFlow's converter: given a `tf.function` of ours, with variables, that wrote a
    file without weights and said nothing. Only LiteRT's own ops: the file has to run without TensorFlow.
    """
    named = keras.Model(model.input, {OUTPUT: model.output})
    builtin = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}
    named.export(str(path), format="litert", verbose=False, target_spec=builtin)


def load_litert(path: Path) -> Network:
    """The file in LiteRT's interpreter, on one thread."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    run = interpreter.get_signature_runner("serving_default")
    name = interpreter.get_signature_list()["serving_default"]["inputs"][0]
    return lambda images: run(**{name: images})[OUTPUT]


FORMATS = {
    "onnx": Format("ONNX", "model.onnx", ("onnx", "onnxruntime", "tf2onnx"), write_onnx, load_onnx),
    "litert": Format("LiteRT", "model.tflite", ("ai_edge_litert",), write_litert, load_litert),
}


def check_packages(formats: list[str]) -> None:
    """Raises ImportError, with what to install, where a format's packages are not there."""
    for name in formats:
        for package in FORMATS[name].packages:
            try:
                importlib.import_module(package)
            except ImportError as error:
                raise ImportError(f"--to {name} needs the package {package} ({error}): {INSTALL}") from error


def convert(model: keras.Model, formats: list[str], directory: Path, images: np.ndarray) -> list[Measured]:
    """Writes the model in each format into `directory`, batch norms folded, and keeps what is equal to it.

    Args:
        model: from float32 (N, S, S, 3) to float32 probabilities (N, C).
        formats: of FORMATS.
        directory: made if it is not there; files there are replaced.
        images: float32 (N, S, S, 3), scaled, at least 2, that the proof is made on.

    Returns:
        A line a format.

    Raises:
        ConversionError: a file's probabilities differ by more than TOLERANCE; the file is not kept, and one from before
            is left as it was.
        ImportError: a package is missing.
    """
    check_packages(formats)
    expected = _in_batches(_keras(model), images)
    folded, _ = fold(model)
    directory.mkdir(parents=True, exist_ok=True)
    lines = []
    for name in formats:
        chosen, path = FORMATS[name], directory / FORMATS[name].file
        with tempfile.TemporaryDirectory(prefix=".converting-", dir=directory) as scratch:
            unproven = Path(scratch) / path.name
            chosen.write(folded, unproven)
            network = chosen.load(unproven)
            difference = _largest_difference(network, images, expected)
            if not difference <= TOLERANCE:  # NaN is not
                raise ConversionError(
                    f"{path.name} is not kept: expected the probabilities of the Keras model to {TOLERANCE:g} on "
                    f"{len(images)} images, got a difference of {difference:.3g}"
                )
            latency = latency_ms(network, images[:1])
            unproven.replace(path)
        lines.append(Measured(chosen.title, str(path), path.stat().st_size, difference, latency))
    return lines


def measure_saved_model(model: keras.Model, images: np.ndarray) -> Measured:
    """The same model as Keras exports it for TensorFlow, batch norms and all: what the files are measured against.

    It takes as many threads as TensorFlow was given before it started.
    """
    expected = _in_batches(_keras(model), images)
    with tempfile.TemporaryDirectory() as scratch:
        model.export(scratch, verbose=False)
        size = sum(path.stat().st_size for path in Path(scratch).rglob("*") if path.is_file())
        loaded = tf.saved_model.load(scratch)  # holds the variables

        def network(batch: np.ndarray) -> np.ndarray:
            return loaded.serve(tf.constant(batch)).numpy()

        difference = _largest_difference(network, images, expected)
        return Measured("Keras SavedModel", None, size, difference, latency_ms(network, images[:1]))


def latency_ms(network: Callable[[np.ndarray], np.ndarray], image: np.ndarray) -> float:
    """The median of CALLS calls, after a few that are not counted."""
    times = []
    for _ in range(CALLS + 5):
        started = time.perf_counter()
        network(image)
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times[5:])


def proof_images(content: Mapping[str, Any], size: int, data_dir: str | None = None) -> tuple[np.ndarray, str]:
    """What the proof is made on: scaled, float32 (IMAGES, size, size, 3).

    Args:
        content: of the version's manifest.
        size: of the model's input, pixels.
        data_dir: where Fashion-MNIST's files are; None searches.

    Returns:
        The images, and what they are: official test images for Fashion-MNIST, else noise from a fixed seed.

    Raises:
        DataError: Fashion-MNIST is not there.
    """
    if content["training"]["dataset"] == "fashion_mnist":
        pixels = load_test(Source(data_dir=data_dir)).images[:IMAGES]
        origin = f"{len(pixels)} test images of Fashion-MNIST"
    else:
        pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, size, size, 3), np.uint8)
        origin = f"{IMAGES} images of noise, seed 0"
    scaled = to_model_input(pixels, size, content.get("view", {}).get("scaling", "tf"))
    return keras.ops.convert_to_numpy(scaled), origin


def table(lines: list[Measured]) -> str:
    """The lines as text."""
    rows = [f"{'format':18}{'bytes':>12}{'largest difference':>20}{'latency ms':>12}  file"]
    rows += [
        f"{line.format:18}{line.bytes:12,d}{line.largest_difference:20.1e}{line.latency_ms:12.2f}  {line.file or '-'}"
        for line in lines
    ]
    return "\n".join(rows)


def _keras(model: keras.Model) -> Network:
    return lambda images: keras.ops.convert_to_numpy(model(images, training=False))


def _in_batches(network: Network, images: np.ndarray) -> np.ndarray:
    """The probabilities in batches of several sizes, one of them 1."""
    first, *rest = np.split(images, range(1, len(images), 33))
    return np.concatenate([network(batch) for batch in (first, *rest)])


def _largest_difference(network: Network, images: np.ndarray, expected: np.ndarray) -> float:
    return float(np.max(np.abs(_in_batches(network, images) - expected)))


def _on_one_thread() -> None:
    """Before TensorFlow's first op: what is laid side by side gets the same."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.convert", description=__doc__.splitlines()[0])
    parser.add_argument("--name", default="fashion_mnist")
    parser.add_argument("--version", type=int, help="default: the newest")
    parser.add_argument("--models", type=Path, default=MODELS)
    parser.add_argument("--to", nargs="+", choices=FORMATS, default=list(FORMATS), help="default: all")
    parser.add_argument("-o", "--output", type=Path, help="a directory (default: runs/converted/<name>/<version>)")
    parser.add_argument("--data-dir", help="of Fashion-MNIST: the directory of its files")
    parser.add_argument("--json", action="store_true", help="the table as JSON")
    arguments = parser.parse_args(argv)
    try:
        version_dir = newest_or(arguments.models / arguments.name, arguments.version)
        content = manifest.read(version_dir)
        check_packages(arguments.to)
        _on_one_thread()
        model = keras.models.load_model(version_dir / MODEL_FILE, compile=False)
        images, origin = proof_images(content, model.input_shape[1], arguments.data_dir)
        output = arguments.output or Path("runs") / "converted" / arguments.name / version_dir.name
        lines = [measure_saved_model(model, images), *convert(model, arguments.to, output, images)]
    except (ConversionError, DataError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if arguments.json:
        print(json.dumps([asdict(line) for line in lines], indent=2))
    else:
        print(table(lines))
        print(f"differences: of a probability, on {origin}; latency: of one image, one thread, median of {CALLS} calls")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
