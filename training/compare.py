"""Trains several models on one dataset and lays them side by side: networks by backbone, and classical models.

python -m training.compare --preset fast --models mobilenet_v2 mini_cnn:image_size=32 random_forest knn xgboost
python -m training.compare --dataset ~/cifar10.npz --preset fast --models resnet50:image_size=32,backbone_weights=none
python -m training.compare ...                  # again: what is finished is kept, the interrupted one goes on

A model is a backbone, with settings of its own after a colon (values as in TOML), or a classical model. All see the
same splits; the figures are of the test split. A note below the table says what its latency is.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import keras
import matplotlib as mpl
import numpy as np

from training.augment import to_model_input
from training.backbones import backbone
from training.backbones import names as backbone_names
from training.classical import CLASSICAL, fit_classical, unfitted
from training.convert import CALLS, FORMATS, IMAGES, ConversionError, check_packages, convert, latency_ms
from training.cost import macs, weight_bytes
from training.datasets import DataError, Source, Split, load_test, load_training
from training.evaluation.classification import confusion_matrix, metrics
from training.model import WeightsError
from training.runs import (
    add_run_arguments,
    begun,
    check_same_run,
    put_back_unless_begun,
    replace_file,
    run_from_arguments,
    start_over,
)
from training.settings import Settings, SettingsError, settings_from
from training.train import train
from training.tune import parse_value

# All models are asked about the same images; each sees them at its own size.
_OF_THE_DATA = {field.name for field in fields(Source)} - {"image_size"} | {"train_limit"}
BATCH = 128
_NOTE = (
    f"Latency: of one image, the median of {CALLS} calls. Every network is timed alone, on an image that is scaled "
    "already: in Keras on all threads of the CPU, or on the GPU, in ONNX and LiteRT on one thread. A classical model "
    "is timed with its principal components, on the threads that it takes."
)


def measure(predict: Callable[[np.ndarray], np.ndarray], test: Split, classes: tuple[str, ...]) -> dict[str, Any]:
    """Accuracy and macro F1 with their intervals on the test images.

    Args:
        predict: from uint8 images (N, H, W, C) to class ids (N,).
    """
    predicted = np.concatenate([predict(test.images[i : i + BATCH]) for i in range(0, len(test), BATCH)])
    report = metrics(confusion_matrix(test.labels, predicted, len(classes)), list(classes))
    names = ("accuracy", "accuracy_wilson_95", "macro_f1", "macro_f1_bootstrap_95")
    return {name: report[name] for name in names}


def network(settings: Settings, run_dir: Path, test: Split) -> dict[str, Any]:
    """Trains one backbone, or goes on with it, and measures it."""
    path = train(settings, run_dir)
    model = keras.models.load_model(path)
    scaling = backbone(settings.backbone).scaling
    classes = load_training(settings.source, settings.train_limit).classes

    def scaled(images: np.ndarray) -> np.ndarray:
        return keras.ops.convert_to_numpy(to_model_input(images, settings.image_size, scaling))

    def predict(images: np.ndarray) -> np.ndarray:
        return np.argmax(model.predict_on_batch(scaled(images)), axis=-1)

    history = [json.loads(line) for line in (run_dir / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    return {
        "settings": f"{settings.image_size} px, {len(history)} epochs",
        "parameters": model.count_params(),
        "macs": macs(model),
        "bytes": weight_bytes(model),
        "train_s": sum(epoch["seconds"] for epoch in history),
        "latency_ms": latency_ms(model.predict_on_batch, scaled(test.images[:1])),
        "converted": [],
    } | measure(predict, test, classes)


def in_formats(formats: Sequence[str], settings: Settings, run_dir: Path, test: Split) -> list[dict[str, Any]]:
    """A trained network in other formats: what training.convert finds of each."""
    model = keras.models.load_model(run_dir / "model.keras")
    scaling = backbone(settings.backbone).scaling
    inputs = keras.ops.convert_to_numpy(to_model_input(test.images[:IMAGES], settings.image_size, scaling))
    return [asdict(one) for one in convert(model, list(formats), run_dir, inputs)]


def classical(name: str, settings: Settings, test: Split) -> dict[str, Any]:
    """Fits one classical model on training and validation images together, searched on the former by folds."""
    data = load_training(settings.source, settings.train_limit)
    fitted = fit_classical(name, data.train, seed=settings.seed)
    chosen = ", ".join(f"{key.rpartition('__')[2]} {value}" for key, value in fitted.best_parameters.items())
    return {
        "settings": chosen,
        "parameters": None,
        "macs": None,
        "bytes": fitted.size_bytes,
        "train_s": fitted.seconds,
        "latency_ms": latency_ms(fitted.predict, test.images[:1]),
    } | measure(fitted.predict, test, data.classes)


def compare(
    settings: Settings, models: Sequence[str], directory: Path, formats: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Trains and measures each model, and writes results.json, results.md and results.png after each.

    Args:
        settings: what all have in common.
        models: a backbone or classical model each, NAME or NAME:KEY=VALUE,KEY=VALUE.
        directory: holds a folder a model.
        formats: onnx, litert; networks are measured in them too.

    Returns:
        One row a model, in the order given.

    Raises:
        SettingsError: a model that does not exist or cannot be; before any is trained.
        DataError: the data cannot be had, or have changed since the comparison began.
    """
    planned = [(text, *parse_model(text, settings)) for text in models]
    directory.mkdir(parents=True, exist_ok=True)
    check_same_run(settings, load_training(settings.source), directory)
    tests: dict[Source, Split] = {}  # photos are read at the size of the model that is asked about them
    rows = []
    for number, (text, name, own) in enumerate(planned, start=1):
        print(f"model {number}/{len(planned)}: {text}", flush=True)
        run_dir = directory / text.replace("/", "_")
        finished = run_dir / "result.json"
        if own.source not in tests:
            tests[own.source] = load_test(own.source).first(own.train_limit)
        test, is_network = tests[own.source], name in backbone_names()
        if not finished.is_file():
            row = network(own, run_dir, test) if is_network else classical(name, own, test)
            begun(run_dir)  # a network has said so itself, before its first epoch
            run_dir.mkdir(exist_ok=True)
            replace_file(finished, json.dumps({"model": name} | row) + "\n")
        row = json.loads(finished.read_text(encoding="utf-8"))
        there = {known["format"] for known in row.get("converted", [])}
        missing = [one for one in formats if FORMATS[one].title not in there]
        if is_network and missing:
            row["converted"] += in_formats(missing, own, run_dir, test)
            replace_file(finished, json.dumps(row) + "\n")
        rows.append(row)
        write_results(rows, directory, len(test))
    return rows


def parse_model(text: str, settings: Settings) -> tuple[str, Settings]:
    """NAME or NAME:KEY=VALUE,KEY=VALUE -> the name, and `settings` with these.

    An image size or a number of epochs means one stage with it; without ImageNet weights for a backbone training begins
    with random ones.

    Raises:
        SettingsError: no such model or setting; the message lists the valid ones.
    """
    name, _, assignments = text.partition(":")
    known = [*backbone_names(), *CLASSICAL]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise SettingsError(f"no model {name!r}{hint}; the models are {', '.join(known)}")
    own: dict[str, Any] = {}
    for assignment in filter(None, assignments.split(",")):
        key, equals, value = assignment.partition("=")
        if not equals:
            raise SettingsError(f"{text}: expected NAME:KEY=VALUE,KEY=VALUE")
        own[key] = parse_value(value)
    if name in CLASSICAL:
        if own:
            raise SettingsError(f"{text}: a classical model takes no settings; its grid is searched")
        return name, settings
    shared = sorted(_OF_THE_DATA & own.keys())
    if shared:
        raise SettingsError(f"{text}: {', '.join(shared)} is of the data, which all models share; set it for all")
    own["backbone"] = name
    if not backbone(name).imagenet and settings.backbone_weights == "imagenet":
        own.setdefault("backbone_weights", "none")
    if "image_size" in own or "epochs" in own:
        size = own.get("image_size", settings.image_size)
        epochs = own.pop("epochs", sum(stage.epochs for stage in settings.stages))
        own |= {"image_size": size, "stages": [{"image_size": size, "epochs": epochs}]}
    return name, settings_from(settings.to_dict() | own, origin=text)


_COLUMNS = (
    "model",
    "accuracy",
    "95 %",
    "macro F1",
    "95 %",
    "parameters",
    "MACs",
    "MB",
    "training",
    "latency",
    "settings",
)


def cells(row: dict[str, Any]) -> list[str]:
    """A row as it is read: percent, millions, megabytes, minutes."""
    low, high = row["accuracy_wilson_95"]
    f1_low, f1_high = row["macro_f1_bootstrap_95"]
    seconds = row["train_s"]
    return [
        row["model"],
        f"{row['accuracy']:.2%}",
        f"{low:.2%} to {high:.2%}",
        f"{row['macro_f1']:.4f}",
        f"{f1_low:.4f} to {f1_high:.4f}",
        "-" if row["parameters"] is None else f"{row['parameters'] / 1e6:.2f} M",
        "-" if row["macs"] is None else f"{row['macs'] / 1e6:.1f} M",
        f"{row['bytes'] / 1e6:.1f}",
        f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min",
        f"{row['latency_ms']:.1f} ms",
        row["settings"],
    ]


def _converted_cells(model: str, one: dict[str, Any]) -> list[str]:
    """The same network in another format: what differs is its size and its speed."""
    shown = {"model": f"{model}, {one['format']}", "MB": f"{one['bytes'] / 1e6:.1f}"}
    shown |= {"latency": f"{one['latency_ms']:.1f} ms", "settings": "one thread"}
    return [shown.get(column, "") for column in _COLUMNS]


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table, columns aligned, and what their latency is."""
    lines = [list(_COLUMNS)]
    for row in rows:
        lines.append(cells(row))
        lines += [_converted_cells(row["model"], one) for one in row.get("converted", [])]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    aligned = (
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |" for line in lines
    )
    return "\n".join([*aligned, "", _NOTE])


def write_results(rows: list[dict[str, Any]], directory: Path, images: int) -> None:
    """The rows as results.json, results.md and results.png: accuracy against latency."""
    (directory / "results.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    (directory / "results.md").write_text(table(rows) + "\n", encoding="utf-8")
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for row in rows:
        accuracy, (low, high) = 100 * row["accuracy"], (100 * bound for bound in row["accuracy_wilson_95"])
        spread = [[max(accuracy - low, 0)], [max(high - accuracy, 0)]]
        axes.errorbar(row["latency_ms"], accuracy, spread, fmt="o", capsize=3)
        axes.annotate(row["model"], (row["latency_ms"], accuracy), xytext=(7, 3), textcoords="offset points")
    axes.set_xscale("log")
    axes.margins(x=0.25)
    axes.grid(alpha=0.4)
    axes.set_xlabel("latency of one image, ms")
    axes.set_ylabel("test accuracy, %")
    axes.set_title(f"Accuracy on {images} test images, with its 95 % interval, and speed")
    figure.savefig(directory / "results.png", dpi=150)
    plt.close(figure)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.compare", description=__doc__.splitlines()[0])
    add_run_arguments(parser)
    parser.add_argument(
        "--models", nargs="+", required=True, metavar="NAME[:KEY=VALUE,...]",
        help=f"backbones ({', '.join(backbone_names())}) and classical models ({', '.join(CLASSICAL)})",
    )  # fmt: skip
    parser.add_argument(
        "--to", nargs="+", choices=tuple(FORMATS), default=[], help="measure networks in these formats too"
    )
    arguments = parser.parse_args(argv)
    try:
        check_packages(arguments.to)
        arguments.run_dir = arguments.run_dir or Path("runs") / f"compare-{Path(arguments.preset).stem}"
        settings, directory = run_from_arguments(arguments)
        for text in arguments.models:
            name, _ = parse_model(text, settings)
            if name in CLASSICAL:
                unfitted(name)  # says at once if a package is missing
        start_over(arguments, settings, directory)
        with put_back_unless_begun(directory):
            rows = compare(settings, arguments.models, directory, arguments.to)
    except (SettingsError, DataError, WeightsError, ConversionError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on with the interrupted model", file=sys.stderr)
        return 130
    print(f"{table(rows)}\nwrote {directory}/results.json, results.md and results.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
